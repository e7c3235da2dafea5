# SPDX-License-Identifier: Apache-2.0
"""Label sets that were idle for the TTL end, with all their rows; threads that never come back are abandoned."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hmm_exporter.bpf.maps import KeyValues, MapSet, Row
from hmm_exporter.catalog import tables
from hmm_exporter.catalog.tables import Kind, Table
from hmm_exporter.catalog.values import (
    DEVICE_NONE,
    OTHER_COMM,
    OTHER_DEVICE,
    OTHER_POINTER,
    Class,
    Failure,
    Loss,
    Trigger,
)
from hmm_exporter.config import Limits, Maps
from hmm_exporter.metrics.books import IN_MIGRATION, Totals, balanced, totals
from hmm_exporter.metrics.idle import ARRIVAL_SECONDS, OVER_SECONDS, THREAD_SECONDS, Idle, dimensions
from tests.unit.bpf.in_memory import Bpf, map_set, pack_key

TTL = 100.0
OWNER, SECOND = 0xFFFF888104A30000, 0xFFFF888104A31000
OPS = 0xFFFFFFFFC0110000
COMM = b"python3".ljust(24, b"\0")
MIGRATION_KEY = (OWNER, Class.evict, Trigger.kthread, DEVICE_NONE)
FAILURE_KEY = (OWNER, 22, Failure.migration, Class.evict, Trigger.kthread)


class World:
    """Maps in memory, a clock that the test moves, and the sweeper between them."""

    def __init__(self, bpf: Bpf, maps: MapSet, ttl: float = TTL) -> None:
        self.bpf = bpf
        self.maps = maps
        self.now = 5000.0
        self.over: set[int | bytes] = set()
        self.ended: list[tuple[str, KeyValues]] = []
        self.idle = Idle(
            maps,
            ttl,
            lambda: self.now,
            lambda admission, value: value in self.over,
            lambda table, row: self.ended.append((table.name, row.key)),
        )

    def rows(self) -> dict[Table, list[Row]]:
        return {table: self.maps.read(table) for table in tables.TABLES}

    def sweep(self) -> dict[str, list[int | bytes]]:
        """What ended, by the table that admitted it."""
        return {table.name: list(ended) for table, ended in self.idle.sweep_rows(self.rows()).items() if ended}

    def after(self, seconds: float) -> dict[str, list[int | bytes]]:
        self.now += seconds
        return self.sweep()

    def keys(self, *of_tables: Table) -> set[tuple[str, KeyValues]]:
        """Rows beside the overflow rows and NULL's."""
        known = {OTHER_POINTER, OTHER_COMM, 0}
        return {
            (table.name, row.key) for table in of_tables for row in self.maps.read(table) if row.key[0] not in known
        }

    def owner_with_rows(self, owner: int = OWNER) -> None:
        self.bpf.book(tables.OWNER, (owner,), stack=5)
        self.bpf.book(tables.MIGRATION, (owner, *MIGRATION_KEY[1:]), started=3, empty=1, completed=1)
        self.bpf.book(tables.MIGRATION_HISTOGRAM, (owner, Class.evict), duration_ns=1000, duration=[1])
        self.bpf.book(tables.FAILURE, (owner, *FAILURE_KEY[1:]), calls=1)


@pytest.fixture
def world() -> Iterator[World]:
    with map_set() as (bpf, maps):
        yield World(bpf, maps)


ALL = [table for table in tables.ROW_TABLES if table.kind is Kind.HASH]


def test_an_owner_a_driver_and_a_process_have_these_tables_with_rows_of_theirs() -> None:
    found = {
        each.admission.name: [(table.name, at) for table, at in each.followers + each.shared] for each in dimensions()
    }
    assert found == {
        "owner": [("migration", 0), ("migration_histogram", 0), ("process_migration", 1), ("failure", 0)],
        "driver": [("range_fault", 0), ("range_attempt", 0), ("ebusy", 0), ("interval_notifier", 0), ("failure", 0)],
        "process": [("process_migration", 0), ("process_failure", 0)],
    }
    assert {table.name for each in dimensions() for table, _ in each.shared} == {"failure"}


def test_an_owner_goes_with_all_its_rows_at_the_ttl_and_not_before(world: World) -> None:
    world.owner_with_rows()
    world.bpf.book(tables.PROCESS_MIGRATION, (COMM, OWNER, Class.evict), started=3)
    before = world.keys(*ALL)
    assert len(before) == 5
    assert world.sweep() == {}
    assert world.after(TTL - 0.1) == {}
    assert world.keys(*ALL) == before
    assert world.after(0.1)["owner"] == [OWNER]
    assert world.keys(*ALL) == set()


def test_a_driver_goes_with_all_its_rows(world: World) -> None:
    world.bpf.book(tables.DRIVER, (OPS,))
    world.bpf.book(tables.RANGE_FAULT, (OPS, 0, 0), calls=2)
    world.bpf.book(tables.RANGE_ATTEMPT, (OPS,), attempts=2)
    world.bpf.book(tables.EBUSY, (OPS, 7, 0), calls=1)
    world.bpf.book(tables.INTERVAL_NOTIFIER, (OPS,), inserts=1)
    world.bpf.book(tables.FAILURE, (OPS, 16, Failure.range_fault, 0, 0), calls=1)
    world.sweep()
    assert world.after(TTL)["driver"] == [OPS]
    assert world.keys(*ALL) == set()


def test_a_process_goes_with_all_its_rows(world: World) -> None:
    world.bpf.book(tables.PROCESS, (COMM,), range_faults=1)
    world.bpf.book(tables.PROCESS_MIGRATION, (COMM, 0, Class.evict), started=1)
    world.bpf.book(tables.PROCESS_FAILURE, (COMM, 22, Failure.migration, Class.evict), calls=1)
    world.sweep()
    assert world.after(TTL) == {"process": [COMM]}
    assert world.keys(*ALL) == set()


@pytest.mark.parametrize(
    ("table", "key", "column"),
    [
        (tables.MIGRATION, MIGRATION_KEY, "completed"),
        (tables.MIGRATION, (OWNER, Class.prefetch, Trigger.syscall, 0), "started"),
        (tables.MIGRATION, MIGRATION_KEY, "moved_bytes"),
        (tables.MIGRATION_HISTOGRAM, (OWNER, Class.evict), "duration"),
        (tables.PROCESS_MIGRATION, (COMM, OWNER, Class.evict), "started"),
        (tables.FAILURE, FAILURE_KEY, "calls"),
    ],
    ids=["its-row", "a-new-row", "a-direction", "a-histogram", "a-processs-row", "a-failure"],
)
def test_any_count_in_any_row_of_an_owner_keeps_it_for_another_ttl(
    world: World, table: Table, key: KeyValues, column: str
) -> None:
    world.owner_with_rows()
    world.sweep()
    world.now += TTL - 1
    world.bpf.book(table, key, **{column: 1})
    assert "owner" not in world.sweep()
    assert "owner" not in world.after(TTL - 1)
    assert ("owner", (OWNER,)) in world.keys(*ALL)
    assert world.after(1)["owner"] == [OWNER]


def test_one_that_is_active_keeps_nobody_else(world: World) -> None:
    world.owner_with_rows()
    world.owner_with_rows(SECOND)
    world.sweep()
    world.now += TTL
    world.bpf.book(tables.MIGRATION, (SECOND, *MIGRATION_KEY[1:]), started=1, empty=1)
    assert world.sweep()["owner"] == [OWNER]
    assert {key[0] for _, key in world.keys(tables.OWNER, tables.MIGRATION)} == {SECOND}


def test_null_and_other_never_go_nor_do_arrays(world: World) -> None:
    for key in ((0, *MIGRATION_KEY[1:]), (OTHER_POINTER, *MIGRATION_KEY[1:-1], OTHER_DEVICE)):
        world.bpf.book(tables.MIGRATION, key, started=3, empty=3)
    world.bpf.book(tables.PROCESS, (OTHER_COMM,), range_faults=1)
    world.bpf.book(tables.FAILURE, (0, 22, Failure.migration, 0, 0), calls=1)
    world.bpf.book(tables.EVENT, (0,), calls=1)
    before = world.rows()
    assert world.sweep() == {}
    assert world.after(10 * TTL) == {}
    assert world.rows() == before


def test_a_ttl_of_zero_is_never() -> None:
    with map_set() as (bpf, maps):
        world = World(bpf, maps, ttl=0)
        world.owner_with_rows()
        before = world.rows()
        assert world.sweep() == {}
        assert world.after(1e9) == {}
        assert world.rows() == before


def test_somebody_who_comes_back_has_a_ttl_of_his_own(world: World) -> None:
    world.owner_with_rows()
    world.sweep()
    assert world.after(TTL)["owner"] == [OWNER]
    world.owner_with_rows()
    assert world.sweep() == {}
    assert world.after(TTL - 1) == {}
    assert world.after(1)["owner"] == [OWNER]


def test_a_row_that_counted_between_the_look_and_its_removal_is_put_back_with_its_counts(world: World) -> None:
    world.owner_with_rows()
    world.sweep()
    world.now += TTL

    def count(name: str, key: bytes) -> None:
        if name == "migration_map":
            world.bpf.before_removal = lambda name, key: None
            world.bpf.book(tables.MIGRATION, MIGRATION_KEY, started=1, completed=1)

    world.bpf.before_removal = count
    assert "owner" not in world.sweep()
    assert [row.words[:3] for row in world.maps.read(tables.MIGRATION) if row.key == MIGRATION_KEY] == [(4, 1, 2)]
    assert totals(world.rows()).plus(world.idle.gone) == Totals(started=4, ended=4)
    world.sweep()
    assert "owner" not in world.after(TTL - 1)
    assert ("owner", (OWNER,)) in world.keys(tables.OWNER)
    assert world.after(1)["owner"] == [OWNER]
    assert world.keys(tables.OWNER, tables.MIGRATION) == set()


def test_counts_that_make_up_for_a_removed_row_are_noticed(world: World) -> None:
    """A sweep that is given up half-way leaves rows with less in them; the same sum again is not the same rows."""
    world.bpf.book(tables.OWNER, (OWNER,), stack=5)
    world.bpf.book(tables.MIGRATION, MIGRATION_KEY, started=3)
    world.bpf.book(tables.PROCESS_MIGRATION, (COMM, OWNER, Class.evict), started=2)
    world.sweep()
    world.now += TTL

    def count(name: str, key: bytes) -> None:
        world.bpf.before_removal = lambda name, key: None
        world.bpf.book(tables.MIGRATION, MIGRATION_KEY, started=1, empty=1)

    world.bpf.before_removal = count
    assert "owner" not in world.sweep()
    assert "owner" not in world.sweep()
    assert "owner" not in world.after(TTL - 1)
    assert world.after(1)["owner"] == [OWNER]


def test_an_event_between_a_rows_removal_and_its_return_is_not_lost_and_ends_nothing(world: World) -> None:
    """The program finds no row, its owner still admitted, and makes one: there is no place to put the old one."""
    world.owner_with_rows()
    world.sweep()
    world.now += TTL
    key = pack_key(tables.MIGRATION, MIGRATION_KEY)
    events = [1, 1]  # one before the removal, which makes it wrong, and one after it

    def count(name: str, removed: bytes) -> None:
        if removed == key and events:
            world.bpf.book(tables.MIGRATION, MIGRATION_KEY, started=events.pop(), completed=1)

    world.bpf.before_removal = world.bpf.after_removal = count
    world.sweep()
    assert totals(world.rows()).plus(world.idle.gone) == Totals(started=5, ended=5)


def test_a_row_whose_place_was_taken_meanwhile_is_not_lost_and_ends_nothing() -> None:
    """Another process's failure finds the room that the removal made; the map is full."""
    full = Maps(failures=64)
    with map_set(Limits(processes=1), full) as (bpf, maps):
        world = World(bpf, maps)
        world.owner_with_rows()
        entries = bpf.maps["failure_map"].entries
        for number in range(entries - len(bpf.maps["failure_map"].rows)):
            bpf.book(tables.FAILURE, (0, 100 + number, Failure.migration, 0, 0), calls=1)
        world.sweep()
        world.now += TTL
        mine = pack_key(tables.FAILURE, FAILURE_KEY)

        def count(name: str, removed: bytes) -> None:
            if removed == mine:
                bpf.book(tables.FAILURE, FAILURE_KEY, calls=1)

        def take_the_place(name: str, removed: bytes) -> None:
            if removed == mine:
                bpf.before_removal = bpf.after_removal = lambda name, key: None
                bpf.book(tables.FAILURE, (0, 4000, Failure.range_fault, 0, 0), calls=1)

        before = totals(world.rows())
        bpf.before_removal, bpf.after_removal = count, take_the_place
        world.sweep()
        assert totals(world.rows()).plus(world.idle.gone) == before.plus(Totals(ended=1))


@pytest.mark.parametrize(
    ("admission", "active", "failure"),
    [
        (
            (tables.DRIVER, (OPS,)),
            (tables.RANGE_FAULT, (OPS, 0, 0), "calls"),
            (OPS, 16, Failure.range_fault, 0, 0),
        ),
        ((tables.OWNER, (OWNER,)), (tables.MIGRATION, MIGRATION_KEY, "empty"), FAILURE_KEY),
    ],
    ids=["driver", "owner"],
)
def test_the_failures_of_somebody_who_is_active_stay_with_him(
    world: World,
    admission: tuple[Table, KeyValues],
    active: tuple[Table, KeyValues, str],
    failure: KeyValues,
) -> None:
    """An owner, a driver or a process goes with all its rows, when none of them has changed for the TTL."""
    world.bpf.book(*admission)
    world.bpf.book(tables.FAILURE, failure, calls=1)
    for _ in range(4):
        table, key, column = active
        world.bpf.book(table, key, **{column: 1})
        assert world.after(TTL / 2) == {}
    assert failure in [row.key for row in world.maps.read(tables.FAILURE)]


def test_what_removed_rows_had_booked_stays_in_the_books(world: World) -> None:
    world.owner_with_rows()
    world.bpf.enter(1, IN_MIGRATION, 0)
    world.bpf.book(tables.MIGRATION, MIGRATION_KEY, started=1)
    world.sweep()
    world.after(TTL)
    assert world.idle.gone == Totals(started=4, ended=3)
    assert totals(world.rows()) == Totals()
    assert balanced(world.maps, world.rows(), world.maps.read_threads(), world.idle.gone, pages=True)


def test_a_thread_that_entered_too_long_ago_is_forgotten_and_its_migration_abandoned(world: World) -> None:
    since = int((world.now - THREAD_SECONDS) * 1e9)
    world.bpf.enter(1, IN_MIGRATION | 1, since - 1)
    world.bpf.enter(2, IN_MIGRATION, since)  # exactly ten minutes: not yet
    world.bpf.enter(3, 1 << 5, since - 1)  # inside hmm_range_fault: no migration
    world.idle.sweep_threads(world.maps.read_threads())
    assert [thread.key for thread in world.maps.read_threads()] == [(2).to_bytes(4, "little")]
    assert world.idle.gone == Totals(abandoned=1)


def test_a_thread_that_went_by_itself_meanwhile_is_not_abandoned(world: World) -> None:
    world.bpf.enter(1, IN_MIGRATION, 0)
    threads = world.maps.read_threads()
    world.bpf.leave(1)
    world.idle.sweep_threads(threads)
    assert world.idle.gone == Totals()


def test_threads_are_swept_even_where_rows_never_end() -> None:
    with map_set() as (bpf, maps):
        world = World(bpf, maps, ttl=0)
        bpf.enter(1, IN_MIGRATION, 0)
        world.idle.sweep_threads(maps.read_threads())
        assert (maps.read_threads(), world.idle.gone) == ([], Totals(abandoned=1))


MM = 0xFFFF888105A00000


def arrivals(world: World) -> tuple[set[int], set[int]]:
    """Regions in the two maps: those that arrived, and those of them whose residency is not known yet."""
    maps = (world.bpf.maps[name].rows for name in ("arrival_map", "resident_map"))
    first, second = ({int.from_bytes(key[8:], "little") for key in rows} for rows in maps)
    return first, second


def test_a_region_that_arrived_an_hour_ago_is_forgotten_and_later_ones_are_counted(world: World) -> None:
    oldest = int((world.now - ARRIVAL_SECONDS) * 1e9)
    for region, since in enumerate((0, oldest - 1, oldest, oldest + 1, int(world.now * 1e9))):
        world.bpf.arrive(MM, region, since)
    world.idle.sweep_arrivals()
    assert arrivals(world) == ({2, 3, 4}, {2, 3, 4})
    assert world.idle.arrivals == 3


def test_a_region_that_came_back_already_is_forgotten_as_well(world: World) -> None:
    world.bpf.arrive(MM, 1, 0)
    world.bpf.arrive(MM, 2, int(world.now * 1e9))
    for region in (1, 2):
        world.bpf.come_back(MM, region)
    world.idle.sweep_arrivals()
    assert arrivals(world) == ({2}, set())
    assert world.idle.arrivals == 1


def test_arrivals_are_forgotten_even_where_rows_never_end() -> None:
    with map_set() as (bpf, maps):
        world = World(bpf, maps, ttl=0)
        bpf.arrive(MM, 1, 0)
        world.idle.sweep_arrivals()
        assert arrivals(world) == (set(), set())


def test_before_the_first_sweep_no_arrival_is_claimed(world: World) -> None:
    world.bpf.arrive(MM, 1, 0)
    assert world.idle.arrivals == 0


_owners = st.sampled_from([0, OWNER, SECOND])
_threads = st.integers(1, 4)
_comms = st.sampled_from([COMM, b"ollama".ljust(24, b"\0")])


class AnyOrder(RuleBasedStateMachine):
    """Programs, sweeps and time in any order, also in the middle of a sweep. The truth is kept beside."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.truth = Totals()
        self.flying: dict[int, tuple[int, int]] = {}
        self.changed: dict[int, float] = {}
        """When each owner last counted something."""

    @initialize()
    def begin(self) -> None:
        bpf, maps = self.stack.enter_context(map_set())
        self.world = World(bpf, maps)

    def teardown(self) -> None:
        self.stack.close()

    def _count(self, owner: int, each: Class, **columns: int) -> None:
        if owner:
            # Its stack is the same each time: a program writes it once.
            admitted = (owner,) in [row.key for row in self.world.maps.read(tables.OWNER)]
            self.world.bpf.book(tables.OWNER, (owner,), stack=0 if admitted else 5)
        self.world.bpf.book(tables.MIGRATION, (owner, each, Trigger.syscall, DEVICE_NONE), **columns)
        self.changed[owner] = self.world.now

    @rule(owner=_owners, each=st.sampled_from(list(Class)[:2]), thread=_threads, comm=_comms)
    def start(self, owner: int, each: Class, thread: int, comm: bytes) -> None:
        if self.flying.pop(thread, None):
            self.world.bpf.book(tables.LOSS, (Loss.migration_abandoned,), events=1)
            self.truth = self.truth.plus(Totals(abandoned=1))
        self._count(owner, each, started=1)
        self.world.bpf.book(tables.PROCESS, (comm,))
        self.world.bpf.book(tables.PROCESS_MIGRATION, (comm, owner, each), started=1)
        self.world.bpf.enter(thread, IN_MIGRATION, int(self.world.now * 1e9))
        self.flying[thread] = (owner, each)
        self.truth = self.truth.plus(Totals(started=1))

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), how=st.sampled_from(("empty", "completed", "failed")))
    def end(self, data: st.DataObject, how: str) -> None:
        thread = data.draw(st.sampled_from(sorted(self.flying)))
        owner, number = self.flying.pop(thread)
        if how == "failed":
            key = (owner, 22, Failure.migration, number, Trigger.syscall)
            self.world.bpf.book(tables.FAILURE, key, calls=1)
            self.changed[owner] = self.world.now
        else:
            self._count(owner, Class(number), **{how: 1})
        self.world.bpf.leave(thread)
        self.truth = self.truth.plus(Totals(ended=1))

    @rule(seconds=st.sampled_from((0.0, 1.0, TTL / 2, TTL - 1, TTL, 3 * TTL, THREAD_SECONDS)))
    def wait(self, seconds: float) -> None:
        self.world.now += seconds

    @rule()
    def sweep_threads(self) -> None:
        old = (self.world.now - THREAD_SECONDS) * 1e9
        lost = {thread.key for thread in self.world.maps.read_threads() if thread.since < old}
        self.world.idle.sweep_threads(self.world.maps.read_threads())
        for key in lost:
            del self.flying[int.from_bytes(key, "little")]
            self.truth = self.truth.plus(Totals(abandoned=1))

    @rule(interrupt=st.booleans(), owner=st.sampled_from([OWNER, SECOND]), at=st.integers(0, 5))
    def sweep_rows(self, interrupt: bool, owner: int, at: int) -> None:
        """With ``interrupt``, a migration starts and turns out empty just before the at-th removal."""
        removals = iter(range(100))

        def event(name: str, key: bytes) -> None:
            if next(removals) == at:
                self._count(owner, Class.prefetch, started=1, empty=1)
                self.truth = self.truth.plus(Totals(started=1, ended=1))

        if interrupt:
            self.world.bpf.before_removal = event
        before = dict(self.changed)
        ended = self.world.sweep().get("owner", [])
        self.world.bpf.before_removal = lambda name, key: None
        for gone in ended:
            assert isinstance(gone, int)
            assert gone in (OWNER, SECOND)
            assert self.world.now - before[gone] >= TTL, "ended while it was active"

    @invariant()
    def totals_are_the_truth(self) -> None:
        if hasattr(self, "world"):
            assert totals(self.world.rows()).plus(self.world.idle.gone) == self.truth
            threads = self.world.maps.read_threads()
            assert len(threads) == len(self.flying)
            assert balanced(self.world.maps, self.world.rows(), threads, self.world.idle.gone, pages=True)

    @invariant()
    def an_owner_that_counted_within_the_ttl_has_a_row(self) -> None:
        """An admission, or what was counted while it was removed, or by a migration that was in flight then."""
        if hasattr(self, "world"):
            rows = self.world.rows()
            there = {row.key[0] for table in (tables.OWNER, tables.MIGRATION, tables.FAILURE) for row in rows[table]}
            active = {owner for owner, at in self.changed.items() if self.world.now - at < TTL}
            assert active <= there | {0}


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=30, stateful_step_count=40)


def test_each_row_that_is_removed_is_told_of_and_no_other(world: World) -> None:
    world.owner_with_rows()
    world.owner_with_rows(SECOND)
    before = world.keys(*ALL)
    world.sweep()
    world.now += TTL
    world.bpf.book(tables.MIGRATION, (SECOND, *MIGRATION_KEY[1:]), started=1)
    world.sweep()
    assert set(world.ended) == before - world.keys(*ALL)
    assert len(world.ended) == 4


def test_what_is_over_ends_five_minutes_after_its_last_count_however_long_the_ttl_is() -> None:
    with map_set() as (bpf, maps):
        world = World(bpf, maps, ttl=3600)
        world.bpf.book(tables.PROCESS, (COMM,), range_faults=1)
        world.sweep()
        world.over.add(COMM)
        assert world.after(OVER_SECONDS - 0.1) == {}
        assert world.after(0.1) == {"process": [COMM]}


def test_what_is_over_does_not_stay_longer_than_a_shorter_ttl(world: World) -> None:
    world.bpf.book(tables.PROCESS, (COMM,), range_faults=1)
    world.over.add(COMM)
    world.sweep()
    assert world.after(TTL) == {"process": [COMM]}
