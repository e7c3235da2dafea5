# SPDX-License-Identifier: Apache-2.0
"""The daemon's side of the tables, over maps in memory: sizes, overflow rows, reading, removal, refusals.

The maps that are no tables are test_other_maps.py's.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmm_exporter import capabilities
from hmm_exporter.bpf import syscall
from hmm_exporter.bpf.compiler import CompiledMap
from hmm_exporter.bpf.maps import KeyValues, MapSet, Row, Thread, capacity, other_keys, overflow_rows, shards_for
from hmm_exporter.bpf.source import row_words
from hmm_exporter.catalog import tables
from hmm_exporter.catalog.tables import ROW_TABLES, TABLES, Kind, Table
from hmm_exporter.catalog.values import (
    DEVICE_NONE,
    OTHER_COMM,
    OTHER_DEVICE,
    OTHER_ERRNO,
    OTHER_POINTER,
    OTHER_STACK,
    Class,
    Event,
    Failure,
    Intent,
    Loss,
    RangeFunction,
    Trigger,
)
from hmm_exporter.config import Limits, Maps
from hmm_exporter.errors import StartError
from tests.unit.bpf import in_memory
from tests.unit.bpf.in_memory import STACK_BYTES, Bpf, layouts, map_set

HASHES = [table for table in TABLES if table.kind is Kind.HASH]
OWNER, OPS = 0xFFFF888104A3C000, 0xFFFFFFFFC1840000


def of_table(table: Table) -> str:
    return table.name


@pytest.mark.parametrize(
    ("cpus", "shards"),
    [(1, 1), (2, 1), (32, 1), (33, 2), (64, 2), (65, 4), (128, 4), (129, 8), (256, 8), (257, 8), (8192, 8)],
)
def test_there_is_a_shard_for_32_cpus_and_a_power_of_two_of_them_up_to_eight(cpus: int, shards: int) -> None:
    assert shards_for(cpus) == shards


# Rows at the default limits: 16 owners and 16 drivers with NULL and `other`, 64 processes with
# `other`, and as many overflow rows as there are combinations of known values. Of an owner's
# devices four have room on the average; an array has 64, none and the unknown one.
DEFAULT_CAPACITY = {
    "owner": 18,
    "driver": 18,
    "migration": 18 * 4 * 4 * 4,
    "migration_histogram": 18 * 4,
    "migration_phase": 4 * 5,
    "device_range": 2 * 66,
    "device": 66,
    "range_fault": 18 * 2 * 4,
    "range_attempt": 18,
    "ebusy": 1024 + 2,
    "interval_notifier": 18,
    "failure": 1024 + 6 * 4 * 4,
    "invalidation": 2,
    "migration_pte": 2 * 12 * 2,
    "migration_pmd": 2 * 2,
    "event": 8,
    "process": 65,
    "process_migration": 65 * 18 * 4,
    "process_failure": 65 * 16 + 6 * 4,
    "loss": 4,
    "probe_call": 24,
    "overflow": 19,
}


def test_every_table_has_this_capacity_at_the_default_limits() -> None:
    assert {table.name: capacity(table, Limits(), Maps()) for table in TABLES} == DEFAULT_CAPACITY


@given(
    st.builds(Limits, owners=st.integers(1, 256), drivers=st.integers(1, 256), processes=st.integers(1, 4096)),
    st.builds(Maps, stacks=st.integers(16, 16384), failures=st.integers(64, 65536)),
)
def test_every_label_set_of_admitted_owners_drivers_and_processes_has_room(limits: Limits, maps: Maps) -> None:
    # NULL and `other` beside the admitted ones; every process has a name.
    admitted = {"owner": limits.owners + 2, "ops": limits.drivers + 2, "comm": limits.processes + 1}
    for table in (
        tables.MIGRATION_HISTOGRAM,
        tables.RANGE_FAULT,
        tables.RANGE_ATTEMPT,
        tables.INTERVAL_NOTIFIER,
        tables.PROCESS_MIGRATION,
    ):
        needed = 1
        for key in table.keys:
            needed *= key.values or admitted[key.name]
        assert capacity(table, limits, maps) == needed
    # On several devices at a time, as a rule, no owner does all that it can do.
    assert capacity(tables.MIGRATION, limits, maps) == 4 * 4 * 4 * admitted["owner"]
    for table in HASHES:
        assert capacity(table, limits, maps) > overflow_rows(table)


@pytest.mark.parametrize(
    ("table", "keys"),
    [
        (tables.OWNER, {(OTHER_POINTER,)}),
        (tables.PROCESS, {(OTHER_COMM,)}),
        (tables.EBUSY, {(OTHER_POINTER, OTHER_STACK, 0), (OTHER_POINTER, OTHER_STACK, 1)}),
        (tables.PROCESS_MIGRATION, {(OTHER_COMM, OTHER_POINTER, each) for each in range(4)}),
        (tables.MIGRATION, {(OTHER_POINTER, each, trigger, OTHER_DEVICE) for each in Class for trigger in Trigger}),
        (tables.MIGRATION_HISTOGRAM, {(OTHER_POINTER, each) for each in Class}),
        (tables.RANGE_ATTEMPT, {(OTHER_POINTER,)}),
        (tables.RANGE_FAULT, {(OTHER_POINTER, each, intent) for each in RangeFunction for intent in Intent}),
        (
            tables.FAILURE,
            {
                (OTHER_POINTER, OTHER_ERRNO, *rest)
                for rest in ((f, c, t) for f in Failure for c in Class for t in Trigger)
            },
        ),
        (tables.PROCESS_FAILURE, {(OTHER_COMM, OTHER_ERRNO, function, each) for function in Failure for each in Class}),
    ],
    ids=lambda value: value.name if isinstance(value, Table) else "",
)
def test_what_finds_no_room_has_a_row_for_every_combination_of_known_values(table: Table, keys: set[KeyValues]) -> None:
    made = list(other_keys(table))
    assert set(made) == keys
    assert overflow_rows(table) == len(made) == len(keys)


def test_all_maps_of_a_256_cpu_node_take_less_than_32_mib_of_kernel_memory() -> None:
    shards = shards_for(256)
    total = 0
    for table in TABLES:
        # struct htab_elem is 48 bytes, and each bucket's head 16; an array has neither.
        key = layouts(shards)[f"{table.name}_map"].key_bytes if table.kind is Kind.HASH else -64
        total += capacity(table, Limits(), Maps()) * (64 + key + 8 * row_words(table, shards))
    total += Maps().threads * (64 + 8 + layouts(shards)["thread_map"].value_bytes)
    total += 2 * Maps().arrivals * (48 + 16 + 16 + 8)
    total += 16 * 1024 * (24 + STACK_BYTES)
    assert total < 32 << 20


@pytest.mark.parametrize("shards", [1, 8])
def test_every_map_is_created_in_the_size_that_the_compiler_laid_out(shards: int) -> None:
    with map_set(shards=shards) as (bpf, _):
        created = {name: (each.key_bytes, each.value_bytes) for name, each in bpf.maps.items()}
        laid_out = {name: (each.key_bytes, each.value_bytes) for name, each in layouts(shards).items()}
        # Its depth is the daemon's choice: the helper takes as many frames as the map has room for.
        assert created == laid_out | {"stack_map": (4, STACK_BYTES)}
        kinds = {table.name: bpf.maps[f"{table.name}_map"].kind for table in TABLES}
        assert kinds == {t.name: syscall.MAP_ARRAY if t.kind is Kind.ARRAY else syscall.MAP_HASH for t in TABLES}
        rows = {table.name: bpf.maps[f"{table.name}_map"].entries for table in TABLES}
        assert rows == DEFAULT_CAPACITY
        assert (bpf.maps["thread_map"].entries, bpf.maps["zero_map"].entries) == (8192, 1)
        assert bpf.maps["stack_map"].kind == syscall.MAP_STACK_TRACE


@pytest.mark.parametrize("stacks", [16, 500, 1024, 4096])
def test_the_stack_map_has_sixteen_slots_for_a_stack_because_two_in_one_slot_are_one_too_many(stacks: int) -> None:
    with map_set(maps=Maps(stacks=stacks)) as (bpf, maps):
        assert bpf.maps["stack_map"].entries == maps.stacks == 16 * stacks


@pytest.mark.parametrize("table", HASHES, ids=of_table)
def test_a_new_hash_holds_its_overflow_rows_and_null_at_zero(table: Table) -> None:
    expected = set(other_keys(table)) | ({(0,)} if table in (tables.OWNER, tables.DRIVER) else set())
    with map_set() as (_, maps):
        rows = maps.read(table)
        assert {row.key for row in rows} == expected
        assert len(rows) == len(expected)
        assert {row.words for row in rows} == {(0,) * table.words}


@pytest.mark.parametrize("table", [table for table in TABLES if table.kind is Kind.ARRAY], ids=of_table)
def test_an_arrays_rows_have_their_digits_for_a_key(table: Table) -> None:
    with map_set() as (bpf, maps):
        rows = maps.read(table)
        assert len(rows) == len({row.key for row in rows}) == table.rows
        for number, row in enumerate(rows):
            bpf.book(table, row.key, **{table.values[0].name: number + 1})
        assert [row.words[0] for row in maps.read(table)] == list(range(1, table.rows + 1))


def test_a_row_of_a_known_key_is_found_where_the_program_puts_it() -> None:
    with map_set(shards=4) as (bpf, maps):
        bpf.book(tables.EVENT, (Event.huge_fault,), shard=3, calls=5)
        bpf.book(tables.LOSS, (Loss.stack,), events=2)
        bpf.book(tables.MIGRATION_PTE, (1, 11, 1), shard=2, entries=7)
        assert maps.read(tables.EVENT)[Event.huge_fault] == Row((Event.huge_fault,), (5,))
        assert maps.read(tables.LOSS)[Loss.stack] == Row((Loss.stack,), (2,))
        assert [row for row in maps.read(tables.MIGRATION_PTE) if any(row.words)] == [Row((1, 11, 1), (7,))]


_words = st.integers(0, (1 << 53) - 1)


@given(st.data(), st.sampled_from(TABLES), st.sampled_from((1, 2, 4, 8)))
def test_a_row_is_the_sum_of_its_shards(data: st.DataObject, table: Table, shards: int) -> None:
    copies = shards if table.sharded else 1
    written = data.draw(
        st.lists(st.lists(_words, min_size=table.words, max_size=table.words), min_size=1, max_size=copies)
    )
    with map_set(shards=shards) as (bpf, maps):
        key = maps.read(table)[-1].key
        for shard, words in enumerate(written):
            by_column = iter(words)
            columns = {value.name: [next(by_column) for _ in range(value.words)] for value in table.values}
            bpf.book(table, key, shard, **columns)
        expected = tuple(sum(words[at] for words in written) for at in range(table.words))
        assert [row.words for row in maps.read(table) if row.key == key] == [expected]
        assert all(not any(row.words) for row in maps.read(table) if row.key != key)


def test_a_table_of_many_rows_is_read_whole_and_each_row_once() -> None:
    with map_set() as (bpf, maps):
        for stack in range(512):
            bpf.book(tables.EBUSY, (OPS, stack, 0), calls=stack + 1)
        rows = [row for row in maps.read(tables.EBUSY) if row.key[0] == OPS]
        assert sorted(rows, key=lambda row: row.key[1]) == [Row((OPS, at, 0), (at + 1,)) for at in range(512)]


@pytest.mark.parametrize(
    ("table", "key"),
    [
        (tables.OWNER, (OWNER,)),
        (tables.MIGRATION, (OWNER, Class.evict, Trigger.kthread, 63)),
        (tables.MIGRATION_HISTOGRAM, (OWNER, Class.evict)),
        (tables.RANGE_ATTEMPT, (OPS,)),
        (tables.EBUSY, (OPS, 77, RangeFunction.hmm_range_fault_unlocked_timeout)),
        (tables.FAILURE, (OPS, 16, Failure.range_fault, 0, 0)),
        (tables.PROCESS, (b"python3".ljust(24, b"\0"),)),
        (tables.PROCESS_MIGRATION, (b"python3".ljust(24, b"\0"), OWNER, Class.prefetch)),
        (tables.PROCESS_FAILURE, (b"\xc3\xa9".ljust(24, b"\0"), 22, Failure.migration, Class.fault_back)),
    ],
    ids=lambda value: value.name if isinstance(value, Table) else "",
)
def test_a_key_that_a_program_writes_is_read_field_by_field(table: Table, key: KeyValues) -> None:
    with map_set(shards=2) as (bpf, maps):
        bpf.book(table, key, **{table.values[-1].name: 3})
        assert [row.key for row in maps.read(table) if any(row.words)] == [key]


def test_a_removed_row_is_given_back_summed_and_is_gone() -> None:
    key = (OWNER, Class.evict, Trigger.kthread, DEVICE_NONE)
    with map_set(shards=8) as (bpf, maps):
        for shard in range(8):
            bpf.book(tables.MIGRATION, key, shard, started=1 + shard, moved_huge_bytes=[0, 0, 0, 1])
        removed = maps.remove(tables.MIGRATION, key)
        assert removed
        assert (removed.key, removed.words[0], removed.words[-1], sum(removed.words)) == (key, 36, 8, 44)
        assert key not in [row.key for row in maps.read(tables.MIGRATION)]
        assert maps.remove(tables.MIGRATION, key) is None


def test_a_removal_that_the_kernel_refuses_is_an_error() -> None:
    with map_set() as (_, maps), pytest.raises(OSError, match="Invalid argument"):
        maps.remove(tables.EVENT, (0,))


@given(st.sampled_from((tables.MIGRATION, tables.OWNER, tables.FAILURE)), st.sampled_from((1, 2, 8)), st.data())
def test_a_row_that_is_put_back_reads_as_before(table: Table, shards: int, data: st.DataObject) -> None:
    with map_set(shards=shards) as (bpf, maps):
        key = maps.read(table)[0].key
        for shard in range(shards if table.sharded else 1):
            amounts = {value.name: data.draw(_words) for value in table.values}
            bpf.book(table, key, shard, **amounts)
        before = maps.read(table)
        removed = maps.remove(table, key)
        assert removed
        maps.put_back(table, removed)
        assert sorted(maps.read(table), key=repr) == sorted(before, key=repr)


def test_a_row_that_came_back_by_itself_keeps_what_it_counted_and_gets_the_rest() -> None:
    with map_set(shards=2) as (bpf, maps):
        bpf.book(tables.PROCESS, (b"a" * 24,), range_faults=5)
        removed = maps.remove(tables.PROCESS, (b"a" * 24,))
        bpf.book(tables.PROCESS, (b"a" * 24,), shard=1, range_faults=1)
        assert removed
        maps.put_back(tables.PROCESS, removed)
        assert [row.words[0] for row in maps.read(tables.PROCESS) if row.key == (b"a" * 24,)] == [6]


def test_a_row_without_a_place_to_be_put_back_to_is_handed_back() -> None:
    with map_set(Limits(processes=1)) as (bpf, maps):
        bpf.book(tables.PROCESS, (b"a" * 24,), range_faults=5)
        removed = maps.remove(tables.PROCESS, (b"a" * 24,))
        bpf.book(tables.PROCESS, (b"b" * 24,), range_faults=1)
        assert removed
        assert maps.put_back(tables.PROCESS, removed) == removed
        assert {row.key[0] for row in maps.read(tables.PROCESS)} == {b"b" * 24, OTHER_COMM}


def test_a_row_that_comes_back_faster_than_it_is_put_back_loses_nothing() -> None:
    """Some attempts, and then whoever asked has all that was not left in the map."""
    with map_set() as (bpf, maps):
        bpf.book(tables.PROCESS, (b"a" * 24,), range_faults=5)
        removed = maps.remove(tables.PROCESS, (b"a" * 24,))
        events = []

        def count(name: str, key: bytes) -> None:
            bpf.book(tables.PROCESS, (b"a" * 24,), range_faults=1)
            events.append(1)

        count("", b"")
        bpf.after_removal = count
        assert removed
        handed_back = maps.put_back(tables.PROCESS, removed)
        left = [row.words[0] for row in maps.read(tables.PROCESS) if row.key == (b"a" * 24,)]
        assert handed_back
        assert handed_back.words[0] + sum(left) == 5 + len(events)


def test_threads_are_read_with_what_they_are_inside_of_and_since_when() -> None:
    with map_set() as (bpf, maps):
        assert maps.read_threads() == []
        for thread in range(300):
            bpf.enter(thread, 1 << 63 | thread, 1000 + thread)
        expected = [Thread(struct.pack("<I", at), 1 << 63 | at, 1000 + at) for at in range(300)]
        assert sorted(maps.read_threads(), key=lambda thread: thread.since) == expected


def test_a_thread_is_removed_once() -> None:
    with map_set() as (bpf, maps):
        bpf.enter(7, 1, 1000)
        (thread,) = maps.read_threads()
        assert maps.remove_thread(thread)
        assert not maps.remove_thread(thread)
        assert maps.read_threads() == []


def test_a_stack_is_its_return_addresses_to_the_first_zero() -> None:
    with map_set() as (bpf, maps):
        bpf.keep_stack(5, 0xFFFFFFFF81000001, 0xFFFFFFFFC0000002)
        bpf.keep_stack(6, *range(1, 128))
        assert maps.stack(5) == (0xFFFFFFFF81000001, 0xFFFFFFFFC0000002)
        assert maps.stack(6) == tuple(range(1, 128))
        assert maps.stack(9) == maps.stack(OTHER_STACK) == ()


REMEDIES = {
    errno.EPERM: f"the kernel refuses to make BPF maps: {capabilities.why_refused()}",
    errno.ENOMEM: "no memory for the BPF maps: make limits.* or maps.* smaller, or the memory limit larger",
    errno.ENOSYS: "this kernel has no bpf(2): it needs CONFIG_BPF_SYSCALL",
    errno.EINVAL: "cannot make the BPF maps: Invalid argument",
}


@pytest.mark.parametrize("number", REMEDIES, ids=lambda number: errno.errorcode[number])
@pytest.mark.parametrize("name", ["owner_map", "process_migration_map", "zero_map"])
def test_maps_that_cannot_be_made_end_the_start_with_the_remedy_and_leave_nothing_open(number: int, name: str) -> None:
    bpf = Bpf()
    bpf.refusal[name] = number
    before = os.listdir("/proc/self/fd")
    with bpf.installed(), pytest.raises(StartError) as refused:
        MapSet(Limits(), Maps(), 1, layouts(1))
    assert str(refused.value) == REMEDIES[number]
    assert os.listdir("/proc/self/fd") == before


def test_closing_gives_every_descriptor_back_and_may_be_done_twice() -> None:
    before = os.listdir("/proc/self/fd")
    with map_set() as (_, maps):
        assert len(os.listdir("/proc/self/fd")) == len(before) + len(TABLES) + 7
        maps.close()
    assert os.listdir("/proc/self/fd") == before


def test_a_compiler_that_lays_a_table_out_otherwise_is_not_believed() -> None:
    wrong = dict(layouts(1)) | {"ebusy_map": CompiledMap(1, 20, 8)}
    with Bpf().installed(), pytest.raises(AssertionError, match="ebusy"):
        MapSet(Limits(), Maps(), 1, wrong)


def test_every_row_table_is_read_in_this_order_so_that_the_overflow_counts_fit() -> None:
    # The index in OVERFLOW is a table's place here: the programs are generated with it.
    assert [table.name for table in ROW_TABLES][:4] == ["owner", "driver", "migration", "migration_histogram"]
    assert tables.OVERFLOW.rows == len(ROW_TABLES)


def test_the_stand_in_for_the_kernel_packs_keys_as_the_programs_structs_do() -> None:
    # A check of the tests themselves: in_memory writes what the compiler would.
    for table in HASHES:
        values: Sequence[int | bytes] = [
            b"0123456789abcdef" + bytes(8) if key.c_type == "comm" else at + 1 for at, key in enumerate(table.keys)
        ]
        packed = in_memory.pack_key(table, tuple(values))
        laid_out = in_memory.c_structs(1)[f"{table.name}_key"].from_buffer_copy(packed)
        for value, key in zip(values, table.keys):
            read = getattr(laid_out, key.name)
            assert (bytes(read) if key.c_type == "comm" else read) == value
