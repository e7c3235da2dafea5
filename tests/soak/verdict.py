# SPDX-License-Identifier: Apache-2.0
"""Whether it grew: what a straight line through the samples says was gained after the warm-up."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.soak.sample import FORMATS, Sample

WARM_UP_SHARE, LEAST_WARM_UP, MOST_WARM_UP = 0.25, 75.0, 900.0
"""Of the whole time; seconds. Rows fill up in the first minute, and the first of them end after that and a sweep."""

MIB = 1 << 20


@dataclass(frozen=True)
class Tolerance:
    """More than both, gained from the end of the warm-up to the end, is growth."""

    amount: float
    share: float = 0.0
    """Of the mean: for what comes and goes all the time."""
    unit: str = ""
    scale: float = 1


#: Memory of the serving process moves in steps of one or two megabytes, which the allocators take and give back minutes
#: later. In 20 minutes 4 MiB are some 5 kB a scrape, in 8 hours 150 bytes. Label sets that are rare come up for a long
#: time; what they fill is bounded.
TOLERANCES: Mapping[str, Tolerance] = {
    "rss": Tolerance(4 * MIB, unit=" MiB", scale=MIB),
    "anonymous": Tolerance(4 * MIB, unit=" MiB", scale=MIB),
    "helper": Tolerance(MIB / 4, unit=" MiB", scale=MIB),
    "fds": Tolerance(1),
    "threads": Tolerance(1),
    "entries": Tolerance(2, share=0.05),
    "series": Tolerance(2, share=0.05),
}


@dataclass(frozen=True)
class Growth:
    name: str
    an_hour: float
    gained: float
    allowed: float

    @property
    def too_much(self) -> bool:
        return self.gained > self.allowed

    def __str__(self) -> str:
        tolerance = TOLERANCES[self.name]
        return f"{self.name} {self.an_hour / tolerance.scale:+.1f}{tolerance.unit}/h" + " (GREW)" * self.too_much


def judged(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Those after the warm-up."""
    whole = samples[-1].seconds
    warm = min(max(WARM_UP_SHARE * whole, LEAST_WARM_UP), MOST_WARM_UP, whole / 2)
    return [sample for sample in samples if sample.seconds >= warm]


def growth(samples: Sequence[Sample]) -> Iterator[Growth]:
    """Of samples after the warm-up."""
    seconds = [sample.seconds for sample in samples]
    for name, tolerance in TOLERANCES.items():
        values = [float(getattr(sample, name)) for sample in samples]
        slope = statistics.linear_regression(seconds, values).slope
        gained = slope * (seconds[-1] - seconds[0])
        allowed = max(tolerance.amount, tolerance.share * statistics.fmean(values))
        yield Growth(name, slope * 3600, gained, allowed)


def latencies(samples: Sequence[Sample]) -> Iterator[str]:
    for format in FORMATS:
        its = sorted(sample.latency for sample in samples if sample.format == format)
        p99 = its[min(int(len(its) * 0.99), len(its) - 1)]
        yield f"{format} {statistics.median(its) * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms"


def lost(issued: Mapping[str, int], counted: Mapping[str, int], metrics: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """By metric, what it should have counted and has not, or, below 0, what it has counted too often."""
    differences = {name: issued[kind] - counted[name] for kind, names in metrics.items() for name in names}
    return {name: difference for name, difference in differences.items() if difference}
