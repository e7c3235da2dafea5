# SPDX-License-Identifier: Apache-2.0
"""Whether the figures add up: started = failed + empty + completed + in flight + abandoned.

And of what migrations asked for: requested = moved + zero-filled + the sum of unmoved. The maps
are read one after another, and the words of a row while they are added to, so a difference is an
error only when more is missing than moved meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass

from hmm_exporter.bpf.maps import MapSet, Row, Thread
from hmm_exporter.catalog import tables
from hmm_exporter.catalog.tables import Table
from hmm_exporter.catalog.values import Failure, Loss, Unmoved

IN_MIGRATION = 1 << 63  # program/thread.c
_ATTEMPTS = 3


@dataclass(frozen=True)
class Totals:
    """Migrations of all rows together."""

    started: int = 0
    ended: int = 0
    """Failed, empty or completed."""
    abandoned: int = 0
    requested_bytes: int = 0
    explained_bytes: int = 0
    """Moved, zero-filled, or left for a reason."""

    def plus(self, other: Totals) -> Totals:
        return Totals(*(mine + its for mine, its in zip(astuple(self), astuple(other))))

    def minus(self, other: Totals) -> Totals:
        return Totals(*(mine - its for mine, its in zip(astuple(self), astuple(other))))


def totals(rows: Mapping[Table, Sequence[Row]]) -> Totals:
    """What the rows of MIGRATION, FAILURE and LOSS say together."""
    migrations = [sum(column) for column in zip(*(row.words for row in rows[tables.MIGRATION]))]
    function = next(at for at, key in enumerate(tables.FAILURE.keys) if key.name == "function")
    failed = sum(row.words[0] for row in rows[tables.FAILURE] if row.key[function] == Failure.migration)
    return Totals(
        sum(migrations[at] for at in _STARTED if migrations),
        sum(migrations[at] for at in _ENDED if migrations) + failed,
        sum(row.words[0] for row in rows[tables.LOSS] if row.key[0] == Loss.migration_abandoned),
        sum(migrations[at] for at in _REQUESTED if migrations),
        sum(migrations[at] for at in _EXPLAINED if migrations),
    )


def _words(*columns: str) -> tuple[int, ...]:
    """Where these columns lie in a row of MIGRATION."""
    found: list[int] = []
    start = 0
    for value in tables.MIGRATION.values:
        if value.name in columns:
            found += range(start, start + value.words)
        start += value.words
    return tuple(found)


_STARTED, _ENDED, _REQUESTED = _words("started"), _words("empty", "completed"), _words("requested_bytes")
_EXPLAINED = _words("zero_filled_bytes", "moved_bytes", *(f"{reason.name}_bytes" for reason in Unmoved))


def in_flight(threads: Iterable[Thread]) -> int:
    return sum(1 for thread in threads if thread.inside & IN_MIGRATION)


def balanced(
    maps: MapSet, rows: Mapping[Table, Sequence[Row]], threads: Sequence[Thread], gone: Totals, pages: bool
) -> bool:
    """Whether the books balance. ``gone``: what removed rows and swept threads had booked.

    ``pages``: what moved is counted at all.
    """
    before = totals(rows).plus(gone)
    for _ in range(_ATTEMPTS):
        difference = before.started - before.ended - before.abandoned - in_flight(threads)
        missing = before.requested_bytes - before.explained_bytes if pages else 0
        if difference == 0 == missing:
            return True
        after = totals({table: maps.read(table) for table in _READ}).plus(gone)
        meanwhile = after.minus(before)
        if (
            abs(difference) <= meanwhile.started + meanwhile.ended + meanwhile.abandoned
            and abs(missing) <= meanwhile.requested_bytes + meanwhile.explained_bytes
        ):
            return True
        before, threads = after, maps.read_threads()
    return False


_READ = (tables.MIGRATION, tables.FAILURE, tables.LOSS)
