# SPDX-License-Identifier: Apache-2.0
"""The errors that end a start. Each message is one line: what, where, what would help."""

from __future__ import annotations


class StartError(Exception):
    """The exporter cannot run as asked; the process ends with exit status 1."""
