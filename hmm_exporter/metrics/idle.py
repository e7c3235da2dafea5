# SPDX-License-Identifier: Apache-2.0
"""Ends what is over: label sets that were idle for the TTL, threads that never came back, old arrivals.

An owner, a driver or a process goes with all its rows, when none of them has changed for the
TTL. A row that counted something between the last look and its removal is put back with its
counts. What cannot be excluded: a program that found a row before its removal and adds to it
after, within nanoseconds, may lose that one event, or book it to who comes next; the row had been
idle for the whole TTL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from hmm_exporter.bpf import arrivals
from hmm_exporter.bpf.maps import KeyValues, MapSet, Row, Thread
from hmm_exporter.catalog import tables, values
from hmm_exporter.catalog.tables import Table
from hmm_exporter.metrics import books
from hmm_exporter.metrics.books import Totals

THREAD_SECONDS = 600.0
"""No call of an HMM function, and no migration, is believed to take longer."""

ARRIVAL_SECONDS = 3600.0
"""Memory that has been on a device for so long does not thrash; its address space may be gone."""
_SOON_FORGOTTEN = 1 << 17
"""So many arrivals take half a second of CPU."""

OVER_SECONDS = 300.0
"""A process whose cgroup is gone counts no more; by then its last counts have been scraped, however seldom that is."""

_NEVER_GOES = frozenset({0, values.OTHER_POINTER, values.OTHER_COMM})


@dataclass(frozen=True)
class Dimension:
    """A label whose values come and go, and the tables with rows of such a value."""

    admission: Table
    followers: tuple[tuple[Table, int], ...]
    """(table, position of the value in its key)"""
    shared: tuple[tuple[Table, int], ...]
    """The same for fields that hold values of several dimensions: only an admission tells whose one is."""


def dimensions() -> Sequence[Dimension]:
    """Derived from the catalogue: which key fields are admitted by which table."""
    return [
        Dimension(
            admission,
            tuple(
                (table, at)
                for table in tables.ROW_TABLES
                for at, key in enumerate(table.keys)
                if key.admitted_by == admission.name
            ),
            tuple(
                (table, at)
                for table in tables.ROW_TABLES
                for at, key in enumerate(table.keys)
                if admission.name in key.goes_with
            ),
        )
        for admission in (tables.OWNER, tables.DRIVER, tables.PROCESS)
    ]


class Idle:
    """Remembers when each value of a dimension last counted something."""

    def __init__(
        self,
        maps: MapSet,
        ttl: float,
        clock: Callable[[], float],
        is_over: Callable[[Table, int | bytes], bool] = lambda admission, value: False,
        ended: Callable[[Table, Row], None] = lambda table, row: None,
        thrash_window: float = 10.0,
    ) -> None:
        """``ttl`` in seconds, 0 for never; ``clock`` is CLOCK_MONOTONIC in seconds.

        ``is_over``: whether a value cannot count again. ``ended`` is told of each row that is removed. For
        ``thrash_window`` seconds at least, an arrival is remembered.
        """
        self._maps = maps
        self._ttl = ttl
        self._clock = clock
        self._is_over = is_over
        self._ended = ended
        self._dimensions = dimensions()
        self._seen: dict[tuple[Table, int | bytes], tuple[dict[tuple[Table, KeyValues], int], float]] = {}
        self._thrash_window = thrash_window
        self.arrivals = 0
        """Regions whose arrival on a device is remembered, as of the latest sweep."""
        self.gone = Totals()
        """What was booked in rows that have been removed, and by threads that were swept."""

    def limit(self, ttl: float) -> None:
        """Another TTL from now on; how long a row has been idle is still known."""
        self._ttl = ttl

    def sweep_threads(self, threads: Iterable[Thread]) -> None:
        """Forget threads that entered too long ago; a migration among them is abandoned."""
        oldest = (self._clock() - THREAD_SECONDS) * 1e9
        self._end_threads(thread for thread in threads if thread.since < oldest)

    def end_threads(self, threads: Iterable[Thread], unwatched: int) -> None:
        """Forget threads that are inside of nothing but functions of these bits: nobody sees them return.

        A thread that is inside of another one, too, is left until that returns, or its migration would be lost; and so
        is one that is just entering or leaving.
        """
        self._end_threads(thread for thread in threads if thread.inside and not thread.inside & ~unwatched)

    def _end_threads(self, threads: Iterable[Thread]) -> None:
        for thread in threads:
            last = self._maps.remove_thread(thread)
            if last and last.inside & books.IN_MIGRATION:
                self.gone = self.gone.plus(Totals(abandoned=1))

    def forget_arrivals(self) -> None:
        """Nobody has seen for a while what arrived and what came back: no residency would be right."""
        arrivals.forget(self._maps.fds, int(self._clock() * 1e9), self._maps.arrivals)

    def sweep_arrivals(self) -> None:
        """Forget when regions arrived on a device that did so too long ago.

        Too long is an hour, and less while the map fills up: a job that streams memory to its GPU must not take the
        room of one that thrashes.
        """
        ages = [ARRIVAL_SECONDS]
        while ages[-1] > self._thrash_window:
            ages.append(max(ages[-1] / 4, self._thrash_window))
        now = self._clock()
        times = [0, *(max(int((now - age) * 1e9), 0) for age in ages)]
        total, *remaining = arrivals.arrived_since(self._maps.fds, times)
        half = self._maps.arrivals // 2
        before, remain = next(
            (each for each in zip(times[1:], remaining) if each[1] <= half), (times[-1], remaining[-1])
        )
        # The others are forgotten in the next sweeps: half a million take two seconds of CPU.
        most = max(half, _SOON_FORGOTTEN)
        forgotten = arrivals.forget(self._maps.fds, before, most) if remain < total else 0
        self.arrivals = total - forgotten

    def sweep_rows(self, rows: Mapping[Table, Sequence[Row]]) -> Mapping[Table, Sequence[int | bytes]]:
        """Remove what was idle for the TTL. Gives the values that ended, by admission table."""
        if not self._ttl:
            return {}
        return {dimension.admission: self._sweep(dimension, rows) for dimension in self._dimensions}

    def _sweep(self, dimension: Dimension, rows: Mapping[Table, Sequence[Row]]) -> Sequence[int | bytes]:
        now = self._clock()
        mine: dict[int | bytes, list[tuple[Table, Row]]] = {}
        for row in rows[dimension.admission]:
            mine.setdefault(row.key[0], []).append((dimension.admission, row))
        admitted = frozenset(mine)
        for table, at in dimension.followers:
            for row in rows[table]:
                # Also without an admission: an event during a removal may have left such a row.
                mine.setdefault(row.key[at], []).append((table, row))
        for table, at in dimension.shared:
            for row in rows[table]:
                if row.key[at] in admitted:
                    mine[row.key[at]].append((table, row))
        ended = []
        for value, its_rows in mine.items():
            if value in _NEVER_GOES:
                continue
            # Columns only grow, so that a row's sum changes when any of them does. Row by row: one that
            # ended with another dimension could hide in a total what the others have counted.
            counted = {(table, row.key): sum(row.words) for table, row in its_rows}
            known, since = self._seen.get((dimension.admission, value), ({}, now))
            if counted.items() - known.items():
                self._seen[(dimension.admission, value)] = (counted, now)
            elif self._has_ended(dimension.admission, value, now - since):
                # Where a part was removed, too: with less in it, an old sum may come by again.
                del self._seen[(dimension.admission, value)]
                if self._remove(its_rows):
                    ended.append(value)
        return ended

    def _has_ended(self, admission: Table, value: int | bytes, idle: float) -> bool:
        return idle >= self._ttl or (idle >= OVER_SECONDS and self._is_over(admission, value))

    def _remove(self, its_rows: Sequence[tuple[Table, Row]]) -> bool:
        """Followers first, so that an event meanwhile finds its value still admitted."""
        for table, row in reversed(its_rows):
            last = self._maps.remove(table, row.key)
            if last is not None and last.words != row.words:
                last = self._maps.put_back(table, last)
                if last is None:
                    return False
                # Without room to put it back, its series ends all the same, an event later.
            if last is not None:
                self._ended(table, last)
                self.gone = self.gone.plus(_booked(table, last))
        return True


def _booked(table: Table, row: Row) -> Totals:
    """The migrations that a removed row had in its books."""
    if table not in (tables.MIGRATION, tables.FAILURE):
        return Totals()
    return books.totals({tables.MIGRATION: (), tables.FAILURE: (), tables.LOSS: ()} | {table: (row,)})
