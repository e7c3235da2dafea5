# SPDX-License-Identifier: Apache-2.0
"""The errors that end a start. Each message is one line: what, where, what would help."""

from __future__ import annotations

PRIVILEGE = "run as root, or with CAP_BPF and CAP_PERFMON"
"""What would help where the kernel says EPERM to bpf(2)."""


class StartError(Exception):
    """The exporter cannot run as asked; the process ends with exit status 1."""
