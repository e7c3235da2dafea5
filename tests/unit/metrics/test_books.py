# SPDX-License-Identifier: Apache-2.0
"""Whether the books balance: started = failed + empty + completed + in flight + abandoned.

And requested = moved + zero-filled + the sum of unmoved, in bytes.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmm_exporter.bpf.maps import MapSet, Row, Thread
from hmm_exporter.catalog import tables
from hmm_exporter.catalog.tables import Table
from hmm_exporter.catalog.values import DEVICE_NONE, Class, Direction, Failure, Loss, Trigger
from hmm_exporter.metrics import books
from hmm_exporter.metrics.books import IN_MIGRATION, Totals, balanced, in_flight, totals
from tests.unit.bpf.in_memory import Bpf, map_set

OWNER = 0xFFFF888104A30000
KEY = (OWNER, Class.evict, Trigger.kthread, DEVICE_NONE)
ARRIVED = (OWNER, Class.prefetch, Trigger.syscall, 0)
FAILED = (OWNER, 22, Failure.migration, Class.evict, Trigger.kthread)


def rows_of(maps: MapSet) -> dict[Table, list[Row]]:
    return {table: maps.read(table) for table in tables.TABLES}


def is_balanced(maps: MapSet, gone: Totals | None = None, pages: bool = True) -> bool:
    return balanced(maps, rows_of(maps), maps.read_threads(), gone or Totals(), pages)


def by_word() -> list[str]:
    """Of each word in a row of MIGRATION, the column."""
    return [value.name for value in tables.MIGRATION.values for _ in range(value.words)]


EXPLAINED = [
    "zero_filled_bytes",
    "not_selected_bytes",
    "busy_bytes",
    "no_destination_bytes",
    "commit_failed_bytes",
    "not_read_bytes",
    *["moved_bytes"] * 4,
]
"""What happened to bytes: each word once."""


def write_some(bpf: Bpf) -> None:
    """20 started: 3 failed, 4 empty, 5 completed, 2 abandoned, and 6 in flight with one thread that is none."""
    bpf.book(tables.MIGRATION, KEY, started=15, empty=4, completed=2)
    bpf.book(tables.MIGRATION, (0, Class.prefetch, Trigger.syscall, 3), started=5, completed=3)
    bpf.book(tables.FAILURE, FAILED, calls=3)
    # Failures of other functions are none of migrations.
    bpf.book(tables.FAILURE, (0, 16, Failure.range_fault, 0, 0), calls=100)
    bpf.book(tables.LOSS, (Loss.migration_abandoned,), events=2)
    bpf.book(tables.LOSS, (Loss.stack,), events=100)
    for thread in range(6):
        bpf.enter(thread, IN_MIGRATION | 1, 1000)
    bpf.enter(99, 1 << 5, 1000)


def test_totals_are_over_all_rows_and_of_migrations_only() -> None:
    with map_set() as (bpf, maps):
        write_some(bpf)
        assert totals(rows_of(maps)) == Totals(started=20, ended=3 + 4 + 5, abandoned=2)
        assert in_flight(maps.read_threads()) == 6


def test_totals_add_up_part_by_part() -> None:
    assert Totals(1, 2, 3, 4, 5).plus(Totals(10, 20, 30, 40, 50)) == Totals(11, 22, 33, 44, 55)
    assert Totals(11, 22, 33, 44, 55).minus(Totals(10, 20, 30, 40, 50)) == Totals(1, 2, 3, 4, 5)
    assert Totals(1, 2, 3, 4, 5).plus(Totals()) == Totals(1, 2, 3, 4, 5)


def test_a_thread_is_in_flight_by_the_bit_that_the_programs_set() -> None:
    assert IN_MIGRATION == 1 << 63
    threads = [Thread(b"", inside, 0) for inside in (1 << 63, 1 << 62, 1 << 63 | 1, 0)]
    assert in_flight(threads) == 2


def test_books_that_add_up_are_balanced() -> None:
    with map_set() as (bpf, maps):
        assert is_balanced(maps)
        write_some(bpf)
        assert is_balanced(maps)


def test_what_was_booked_in_rows_that_are_gone_counts() -> None:
    with map_set() as (bpf, maps):
        bpf.book(tables.MIGRATION, KEY, started=1)
        assert not is_balanced(maps)
        assert is_balanced(maps, Totals(started=5, ended=6))
        assert is_balanced(maps, Totals(abandoned=1))
        assert not is_balanced(maps, Totals(started=1))


@pytest.mark.parametrize("wrong", [{"started": 1}, {"empty": 1}, {"completed": 1}])
def test_one_migration_too_many_or_too_few_shows(wrong: dict[str, int]) -> None:
    with map_set() as (bpf, maps):
        write_some(bpf)
        bpf.book(tables.MIGRATION, KEY, **wrong)
        assert not is_balanced(maps)


def test_one_failure_too_many_shows() -> None:
    with map_set() as (bpf, maps):
        write_some(bpf)
        bpf.book(tables.FAILURE, FAILED, calls=1)
        assert not is_balanced(maps)


def test_a_thread_that_is_lost_shows() -> None:
    with map_set() as (bpf, maps):
        write_some(bpf)
        bpf.leave(3)
        assert not is_balanced(maps)


def test_migrations_that_ended_while_the_maps_were_read_are_no_imbalance() -> None:
    with map_set() as (bpf, maps):
        write_some(bpf)
        rows = rows_of(maps)
        # Two threads finish after the rows were read and before the threads are.
        bpf.book(tables.MIGRATION, KEY, completed=2)
        bpf.leave(0)
        bpf.leave(1)
        assert balanced(maps, rows, maps.read_threads(), Totals(), pages=True)


def test_migrations_that_began_while_the_maps_were_read_are_no_imbalance() -> None:
    with map_set() as (bpf, maps):
        write_some(bpf)
        rows = rows_of(maps)
        bpf.book(tables.MIGRATION, KEY, started=1)
        bpf.enter(7, IN_MIGRATION, 1000)
        assert balanced(maps, rows, maps.read_threads(), Totals(), pages=True)


def test_a_failure_between_two_tables_reads_is_no_imbalance() -> None:
    with map_set() as (bpf, maps):
        write_some(bpf)
        migrations = maps.read(tables.MIGRATION)
        bpf.book(tables.MIGRATION, KEY, started=1)
        bpf.book(tables.FAILURE, FAILED, calls=1)
        rows = rows_of(maps) | {tables.MIGRATION: migrations}
        assert balanced(maps, rows, maps.read_threads(), Totals(), pages=True)


def test_more_is_missing_than_moved_and_it_shows() -> None:
    with map_set() as (bpf, maps):
        write_some(bpf)
        bpf.book(tables.MIGRATION, KEY, started=3)  # three are lost

        def one_migration(name: str) -> None:
            if name == "migration_map":
                bpf.book(tables.MIGRATION, KEY, started=1, empty=1)  # and one moves, at each look: two counts

        rows, threads = rows_of(maps), maps.read_threads()
        bpf.before_read = one_migration
        assert not balanced(maps, rows, threads, Totals(), pages=True)


def test_a_steady_stream_of_events_does_not_hide_balanced_books() -> None:
    with map_set() as (bpf, maps):
        write_some(bpf)

        def many(name: str) -> None:
            bpf.book(tables.MIGRATION, KEY, started=50, completed=50)

        bpf.before_read = many
        assert is_balanced(maps)


def test_books_that_balance_are_not_read_twice() -> None:
    reads: list[str] = []
    with map_set() as (bpf, maps):
        write_some(bpf)
        rows, threads = rows_of(maps), maps.read_threads()
        bpf.before_read = reads.append
        assert balanced(maps, rows, threads, Totals(), pages=True)
        assert reads == []
        bpf.book(tables.MIGRATION, KEY, started=1)
        assert not balanced(maps, rows_of(maps), threads, Totals(), pages=True)
        # Some times over, and then it gives up: a scrape must end.
        assert len(reads) < 40


def test_the_columns_that_are_summed_are_where_the_catalogue_puts_them() -> None:
    assert [value.name for value in tables.MIGRATION.values][:4] == ["started", "empty", "completed", "requested_bytes"]
    assert (books._STARTED, books._ENDED, books._REQUESTED) == ((0,), (1, 2), (3,))
    assert [by_word()[at] for at in books._EXPLAINED] == EXPLAINED


@given(st.lists(st.integers(0, 1 << 40), min_size=len(EXPLAINED), max_size=len(EXPLAINED)), st.integers(1, 9))
def test_bytes_that_are_explained_one_way_or_another_balance_and_one_page_less_does_not(
    amounts: list[int], pages: int
) -> None:
    with map_set() as (bpf, maps):
        bpf.book(tables.MIGRATION, ARRIVED, **dict(zip(EXPLAINED[:6], amounts)), moved_bytes=amounts[6:])
        # Which device a row is of does not matter: requests and what became of them are of one row.
        bpf.book(tables.MIGRATION, KEY, requested_bytes=sum(amounts))
        assert is_balanced(maps)
        bpf.book(tables.MIGRATION, KEY, requested_bytes=pages * 4096)
        assert not is_balanced(maps)
        assert is_balanced(maps, Totals(explained_bytes=pages * 4096))


@pytest.mark.parametrize("column", sorted(set(EXPLAINED) | {"requested_bytes"}))
def test_a_page_that_is_booked_twice_shows(column: str) -> None:
    with map_set() as (bpf, maps):
        bpf.book(tables.MIGRATION, ARRIVED, requested_bytes=8192, moved_bytes=[0, 8192, 0, 0])
        assert is_balanced(maps)
        bpf.book(tables.MIGRATION, ARRIVED, **{column: 4096})
        assert not is_balanced(maps)


@pytest.mark.parametrize("way", Direction)
def test_every_direction_explains_bytes(way: Direction) -> None:
    with map_set() as (bpf, maps):
        bpf.book(tables.MIGRATION, ARRIVED, requested_bytes=4096)
        assert not is_balanced(maps)
        bpf.book(tables.MIGRATION, ARRIVED, moved_bytes=[4096 * (each is way) for each in Direction])
        assert is_balanced(maps)


def test_what_is_said_of_bytes_twice_explains_them_once() -> None:
    """Huge folios and returns are a part of what moved, collected bytes of what was asked for."""
    with map_set() as (bpf, maps):
        part = [0, 0, 4096, 0]
        bpf.book(tables.MIGRATION, ARRIVED, requested_bytes=4096, moved_bytes=part)
        bpf.book(tables.MIGRATION, ARRIVED, moved_huge_bytes=part, returned_bytes=4096, collected_bytes=4096)
        assert is_balanced(maps)


def test_where_pages_cannot_be_read_nobody_expects_bytes_to_be_explained() -> None:
    with map_set() as (bpf, maps):
        bpf.book(tables.MIGRATION, KEY, started=1, completed=1, requested_bytes=8192)
        assert not is_balanced(maps)
        assert is_balanced(maps, pages=False)
        bpf.book(tables.MIGRATION, KEY, started=1)
        assert not is_balanced(maps, pages=False)


def test_bytes_in_flight_are_no_imbalance() -> None:
    """A migration is booked when it ends, and its words one after another: a read may come in between."""
    with map_set() as (bpf, maps):
        bpf.book(tables.MIGRATION, KEY, started=1)
        bpf.enter(1, IN_MIGRATION, 1000)
        assert is_balanced(maps)
        bpf.book(tables.MIGRATION, ARRIVED, requested_bytes=8192, completed=1)
        bpf.leave(1)
        rows, threads = rows_of(maps), maps.read_threads()
        bpf.book(tables.MIGRATION, ARRIVED, moved_bytes=[0, 4096, 0, 0], busy_bytes=4096)
        assert balanced(maps, rows, threads, Totals(), pages=True)


def test_more_bytes_are_missing_than_moved_and_it_shows() -> None:
    with map_set() as (bpf, maps):
        bpf.book(tables.MIGRATION, ARRIVED, requested_bytes=1 << 20)

        def one_page(name: str) -> None:
            if name == "migration_map":
                bpf.book(tables.MIGRATION, ARRIVED, requested_bytes=4096, moved_bytes=[0, 4096, 0, 0])

        rows, threads = rows_of(maps), maps.read_threads()
        bpf.before_read = one_page
        assert not balanced(maps, rows, threads, Totals(), pages=True)


def test_a_steady_stream_of_bytes_does_not_hide_calls_that_are_missing() -> None:
    with map_set() as (bpf, maps):
        bpf.book(tables.MIGRATION, KEY, started=3)

        def much(name: str) -> None:
            bpf.book(tables.MIGRATION, ARRIVED, requested_bytes=1 << 30, moved_bytes=[0, 1 << 30, 0, 0])

        rows, threads = rows_of(maps), maps.read_threads()
        bpf.before_read = much
        assert not balanced(maps, rows, threads, Totals(), pages=True)
