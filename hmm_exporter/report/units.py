# SPDX-License-Identifier: Apache-2.0
"""Figures for people: at most ten characters each. Exact ones are in the JSON."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum


class Unit(Enum):
    count = "count"
    bytes = "bytes"
    seconds = "seconds"


_MANY = ((1e6, "M"), (1e9, "G"), (1e12, "T"), (1e15, "P"))
_BYTES = tuple((1024.0**power, unit) for power, unit in enumerate(("B", "KiB", "MiB", "GiB", "TiB", "PiB")))
_SECONDS = ((1e-9, "ns"), (1e-6, "us"), (1e-3, "ms"), (1.0, "s"), (60.0, "min"), (3600.0, "h"), (86400.0, "d"))


def figure(value: float, unit: Unit) -> str:
    """``12,345``; ``1.5 MiB``; ``31.2 us``"""
    if value == 0:
        return "0"
    if unit is Unit.count:
        return f"{value:,.0f}" if value < 1e8 else _scaled(value, _MANY)
    return _scaled(value, _BYTES if unit is Unit.bytes else _SECONDS)


def _scaled(value: float, units: Sequence[tuple[float, str]]) -> str:
    """In the largest unit that it has one of, as rounded in the next smaller, with three digits."""
    size, name = units[0]
    for larger, its_name in units[1:]:
        if _rounded(value / size) * size < larger:
            break
        size, name = larger, its_name
    number = _rounded(value / size)
    return f"{number:.{0 if number == int(number) else _decimals(number)}f} {name}"


def _rounded(value: float) -> float:
    return round(value, _decimals(value))


def _decimals(value: float) -> int:
    return 2 if value < 9.995 else 1 if value < 99.95 else 0
