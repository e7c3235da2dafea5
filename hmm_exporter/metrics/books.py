# SPDX-License-Identifier: Apache-2.0
"""Whether the figures add up: started = failed + empty + completed + in flight + abandoned.

The maps are read one after another while events go on, so a difference is an error only when
more is missing than moved meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hmm_exporter.bpf.maps import MapSet, Row, Thread
from hmm_exporter.catalog import tables
from hmm_exporter.catalog.tables import Table
from hmm_exporter.catalog.values import Failure, Loss

IN_MIGRATION = 1 << 63  # program/thread.c
_ATTEMPTS = 3

_STARTED, _EMPTY, _COMPLETED = 0, 1, 2  # the first columns of tables.MIGRATION


@dataclass(frozen=True)
class Totals:
    """Migrations of all rows together."""

    started: int = 0
    ended: int = 0
    """Failed, empty or completed."""
    abandoned: int = 0

    def plus(self, other: Totals) -> Totals:
        return Totals(self.started + other.started, self.ended + other.ended, self.abandoned + other.abandoned)


def totals(rows: Mapping[Table, Sequence[Row]]) -> Totals:
    """What the rows of MIGRATION, FAILURE and LOSS say together."""
    migrations = rows[tables.MIGRATION]
    function = next(at for at, key in enumerate(tables.FAILURE.keys) if key.name == "function")
    failed = sum(row.words[0] for row in rows[tables.FAILURE] if row.key[function] == Failure.migration)
    return Totals(
        sum(row.words[_STARTED] for row in migrations),
        sum(row.words[_EMPTY] + row.words[_COMPLETED] for row in migrations) + failed,
        sum(row.words[0] for row in rows[tables.LOSS] if row.key[0] == Loss.migration_abandoned),
    )


def in_flight(threads: Iterable[Thread]) -> int:
    return sum(1 for thread in threads if thread.inside & IN_MIGRATION)


def balanced(maps: MapSet, rows: Mapping[Table, Sequence[Row]], threads: Sequence[Thread], gone: Totals) -> bool:
    """Whether the books balance. ``gone``: what removed rows and swept threads had booked."""
    before = totals(rows).plus(gone)
    for _ in range(_ATTEMPTS):
        difference = before.started - before.ended - before.abandoned - in_flight(threads)
        if difference == 0:
            return True
        after = totals({table: maps.read(table) for table in _READ}).plus(gone)
        moved = (after.started - before.started) + (after.ended - before.ended) + (after.abandoned - before.abandoned)
        if abs(difference) <= moved:
            return True
        before, threads = after, maps.read_threads()
    return False


_READ = (tables.MIGRATION, tables.FAILURE, tables.LOSS)
