# SPDX-License-Identifier: Apache-2.0
"""``python -m hmm_exporter`` is ``hmm-exporter``. Nothing else belongs here."""

from __future__ import annotations

import sys

from hmm_exporter.cli import main

sys.exit(main())
