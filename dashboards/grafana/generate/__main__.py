# SPDX-License-Identifier: Apache-2.0
"""Writes the files, into the folder that is named or where they belong."""

from __future__ import annotations

import sys
from pathlib import Path

from dashboards.grafana.generate import BOARDS

folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]
for board in BOARDS:
    (folder / board.file).write_text(board.json())
