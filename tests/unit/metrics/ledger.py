# SPDX-License-Identifier: Apache-2.0
"""What happened, by whom, and what a Prometheus would make of the scrapes: the two must agree.

Knows series and who counts into them; nothing of rows and tables, nor how the exporter keeps either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

Series = tuple[str, frozenset[tuple[str, str]]]

OPEN = frozenset({"pgmap_owner", "device", "driver", "comm", "caller"})
"""Labels whose values there may be no room for."""

WITHOUT_DEVICE = frozenset({"hmm_migration_failures_total"})
"""A migration that is refused has no pages: there, `none` is what every device is called."""


def other(series: Series) -> Series:
    """Where a series is counted that found no room."""
    name, labels = series
    replaced = OPEN - {"device"} if name in WITHOUT_DEVICE else OPEN
    return name, frozenset((label, "other" if label in replaced else value) for label, value in labels)


@dataclass(frozen=True)
class Room:
    """What a scrape has room for."""

    left: int
    """Series."""
    needed: Mapping[str, int]
    """By a new one of each name, with those that go with it."""


class Ledger:
    """A series has sources, each a tuple of what it ends with; it goes when the last of them has ended."""

    def __init__(self) -> None:
        self._sources: dict[Series, set[tuple[Hashable, ...]]] = {}
        self._shown_as: dict[Series, Series] = {}
        """Of those that have sources."""
        self._counted: Counter[Series] = Counter()
        """Since the latest scrape."""
        self._unseen: Counter[Series] = Counter()
        """The part of it that ended before anybody saw it: it may be missing."""
        self._ended: set[Series] = set()
        """Since the latest scrape."""
        self._decided: set[Series] = set()
        """What they are shown as was decided while they were not shown."""
        self._before: dict[Series, float] = {}

    def count(self, name: str, labels: Mapping[str, str], *source: Hashable, amount: int = 1) -> None:
        series = (name, frozenset(labels.items()))
        self._sources.setdefault(series, set()).add(source)
        self._counted[series] += amount

    def end(self, gone: Hashable) -> None:
        """Whoever had a part in this."""
        for series, sources in list(self._sources.items()):
            sources -= {source for source in sources if gone in source}
            if not sources:
                del self._sources[series]
                self._shown_as.pop(series, None)
                self._unseen[series] = self._counted[series]
                self._ended.add(series)

    def scraped(self, found: Mapping[Series, float], names: frozenset[str], room: Room) -> None:
        """A scrape showed this, and was to show the series of these names: what nothing feeds is absent."""
        assert {name for name, _ in found} <= names
        self._hidden(names)
        most: Counter[Series] = Counter()
        least: Counter[Series] = Counter()
        for series in [series for series in self._counted if series[0] in names]:
            shown = self._shown(series, found, room)
            counted, unseen = self._counted.pop(series), self._unseen.pop(series, 0)
            most[shown] += counted
            least[shown] += counted - unseen
            if shown == series:
                most[other(series)] += unseen  # while it was not shown, there may have been no room for it
        for series in most.keys() | found.keys():
            increase = found.get(series, 0) - self._before.get(series, 0)
            if increase < 0 and series in self._ended:  # a counter that begins anew
                increase = found.get(series, 0)
            assert least[series] <= increase <= most[series], (series, least[series], increase, most[series])
        mine = {series for series in self._before if series[0] in names}
        # One that has counted nothing was shown with another, and goes with that.
        vanished = {series for series in mine - found.keys() - self._ended if self._before[series]}
        assert not vanished, f"vanished: {vanished}"
        self._ended = {series for series in self._ended if series[0] not in names}
        self._before = {series: value for series, value in self._before.items() if series not in mine}
        self._before.update(found)

    def _hidden(self, names: frozenset[str]) -> None:
        """Who ends while nobody sees it begins anew; who does not goes on."""
        gone = {series for series in self._ended - self._sources.keys() if series[0] not in names}
        self._ended -= gone
        self._before = {series: value for series, value in self._before.items() if series not in gone}
        self._decided |= {series for series in self._counted if series[0] not in names}

    def _shown(self, series: Series, found: Mapping[Series, float], room: Room) -> Series:
        """What it is counted as: itself from the first scrape on or never, and itself if there is room."""
        shown = series if series in found else other(series)
        if series in self._sources:
            is_new = not (series in self._shown_as or series in self._ended or series in self._decided)
            before = self._shown_as.setdefault(series, shown)
            assert before == shown, f"moved from {before} to {shown}"
            if is_new and shown != series:
                assert room.left < room.needed[series[0]], f"there is room for {series}"
        return shown
