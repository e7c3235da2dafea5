# SPDX-License-Identifier: Apache-2.0
"""What was counted: in all, and since the page was last looked at.

One snapshot is remembered, by the server and not by viewers: of two people who look in turn, each sees the time since
the other's look, and the page says how long that was. Longer histories are Prometheus' work. How figures look does not
belong here, but for how they are written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client.metrics_core import Metric as Family

from hmm_exporter.report.snapshot import Number, Snapshot, snapshot
from hmm_exporter.report.units import Unit, figure
from hmm_exporter.web.page.markup import NO_BREAK

SHORTEST_SECONDS = 2.0
"""Who looks again sooner sees the same: rates over less would jump, and many viewers cost one scrape in that time."""
FORGET_SECONDS = 3600.0
"""A mean over longer would say nothing of now, and lack the rows that were idle for limits.idle_ttl."""
NONE = "\u2014"
"""Where there is no figure, which is not 0."""


@dataclass(frozen=True)
class Figures:
    """One look: all that is counted, and what of it is new."""

    total: Snapshot
    """Counters since their rows were admitted; gauges."""
    new: Snapshot
    """Counted since the look before; all of it, if there was none."""
    seconds: float
    """Since the look before; 0, if there was none."""

    @property
    def time(self) -> str:
        """``the last 12 s``, or ``all the time`` so far."""
        if not self.seconds:
            return "all the time"
        seconds = f"{self.seconds:.{1 if self.seconds < 9.95 else 0}f}{NO_BREAK}s"
        return f"the last {seconds if self.seconds < 120 else written(self.seconds, Unit.seconds)}"

    def rate(self, value: Number, unit: Unit) -> str:
        """What of *value* there was in each second, with ``/s``; the whole where no time is known."""
        if not (self.seconds and value):
            return written(value, unit)
        return f"{written(value / self.seconds, unit)}/s"


class Memory:
    """Asks for families, and remembers the newest look until the next one."""

    def __init__(
        self, families: Callable[[float], Iterable[Family]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """*families* are those of a scrape, for which it waits so many seconds; it may raise Busy and Failed."""
        self._families = families
        self._clock = clock
        self._newest: tuple[float, Figures] | None = None

    def look(self, patience: float) -> Figures:
        """By one caller at a time. Raises Busy and Failed."""
        if self._newest and self._clock() - self._newest[0] < SHORTEST_SECONDS:
            return self._newest[1]
        total = snapshot(self._families(patience))
        now = self._clock()
        if self._newest and now - self._newest[0] < FORGET_SECONDS:
            before, figures = self._newest
            found = Figures(total, total.since(figures.total), now - before)
        else:
            found = Figures(total, total, 0.0)
        self._newest = now, found
        return found


def written(value: Number, unit: Unit) -> str:
    """``1.5 MiB``, ``31.2 µs``, ``0.25``; a figure and its unit stay on one line."""
    if unit is Unit.count and 0 < value < 100 and value != int(value):
        return f"{value:.2g}" if value < 1 else f"{value:.3g}"
    return figure(value, unit).replace(" us", " µs").replace(" ", NO_BREAK)


def percent(share: float) -> str:
    """``0.3 %``, ``42 %``"""
    return f"{100 * share:.{1 if 0 < share < 0.0995 else 0}f}{NO_BREAK}%"
