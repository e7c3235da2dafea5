# SPDX-License-Identifier: Apache-2.0
"""A histogram as lines of text, in bpftrace's manner: a bucket a line, from the first to the last one hit."""

from __future__ import annotations

from collections.abc import Iterator

from hmm_exporter.report.snapshot import Distribution
from hmm_exporter.report.terminal import Style
from hmm_exporter.report.units import Unit, figure

_LABEL = 20  # (62.5 ms, 125 ms]
_COUNT = 11
_WIDEST_BAR = 64


def histogram(distribution: Distribution, unit: Unit, width: int, style: Style) -> Iterator[str]:
    """Lines no longer than ``width``. Bounds are log2, the upper one inclusive."""
    hit = [at for at, count in enumerate(distribution.counts) if count]
    room = min(_WIDEST_BAR, width - _LABEL - _COUNT - len(" ||"))
    most = max(distribution.counts)
    for at in range(hit[0], hit[-1] + 1):
        count = distribution.counts[at]
        line = f"{_bucket(distribution.bounds, at, unit):<{_LABEL}}{figure(count, Unit.count):>{_COUNT}}"
        if room >= 8:
            # What was hit is seen, however little it is beside the rest.
            bar = "@" * max(count > 0, count * room // most)
            line += f" |{style.bar(bar)}{'':{room - len(bar)}}|"
        yield line


def _bucket(bounds: tuple[str, ...], at: int, unit: Unit) -> str:
    if at == 0:
        return f"<= {figure(float(bounds[0]), unit)}"
    if at == len(bounds) - 1:
        return f"> {figure(float(bounds[-2]), unit)}"
    return f"({figure(float(bounds[at - 1]), unit)}, {figure(float(bounds[at]), unit)}]"
