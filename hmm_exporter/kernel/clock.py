# SPDX-License-Identifier: Apache-2.0
"""The clock that BPF programs read: CLOCK_MONOTONIC as the kernel has it, whatever a time namespace shows."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

_OFFSETS = Path("/proc/self/timens_offsets")
"""Since 5.6, of this process's namespace as long as it makes no other (time_namespaces(7))."""


def monotonic(path: Path = _OFFSETS) -> Callable[[], float]:
    """Seconds, comparable with what bpf_ktime_get_ns gave."""
    ahead = _ahead(path)
    return lambda: time.monotonic() - ahead


def _ahead(path: Path) -> float:
    try:
        lines = path.read_text().splitlines()
    except OSError:  # no time namespaces
        return 0.0
    for line in lines:
        name, seconds, nanoseconds = line.split()
        if name == "monotonic":
            return int(seconds) + int(nanoseconds) / 1e9
    return 0.0
