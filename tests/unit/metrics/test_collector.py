# SPDX-License-Identifier: Apache-2.0
"""Rows of the tables, added up, and within the limit of series. How they are written is test_exposition.py's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmm_exporter.bpf.maps import KeyValues, Row
from hmm_exporter.catalog import tables
from hmm_exporter.catalog.metric import Source, Type
from hmm_exporter.catalog.metrics import METRICS
from hmm_exporter.catalog.tables import Table
from hmm_exporter.catalog.values import (
    DEVICE_NONE,
    DEVICE_UNKNOWN,
    OTHER_ERRNO,
    OTHER_POINTER,
    Class,
    DeviceFunction,
    Failure,
    Intent,
    RangeFunction,
    Trigger,
)
from hmm_exporter.config import Limits
from hmm_exporter.config_rule import rules_of
from hmm_exporter.metrics.collector import Collector
from tests.unit.bpf.in_memory import map_set
from tests.unit.metrics.exposed import (
    DEVICES,
    EVERYTHING,
    HEAP,
    OPS,
    Rows,
    collector,
    comm,
    names_with,
    row,
    rows_of,
    samples,
)


def test_nanoseconds_become_seconds_and_add_up_before_they_are_divided(tmp_path: Path) -> None:
    # 0.1 + 0.2 in floating point is not 0.3.
    rows = rows_of(
        (tables.PROCESS_MIGRATION, row(tables.PROCESS_MIGRATION, (comm("a"), HEAP[0], 1), fault_stall_ns=100_000_000)),
        (tables.PROCESS_MIGRATION, row(tables.PROCESS_MIGRATION, (comm("a"), HEAP[0], 2), fault_stall_ns=200_000_000)),
    )
    found = samples(collector(tmp_path, frozenset({"migrate_vma_finalize"})).families(rows))
    assert found == {("hmm_process_fault_stall_seconds_total", frozenset({("comm", "a")})): 0.3}


def test_rows_that_end_up_with_one_name_are_one_series(tmp_path: Path) -> None:
    # Two elements of a static object that is nobody's array, and two unknown drivers.
    names = names_with(tmp_path)
    owners = [0xFFFFFFFFC0600000, 0xFFFFFFFFC0600040]
    names.learn(dict.fromkeys(owners, 0), HEAP[:2], [])
    keys = [(owner, Class.evict, Trigger.syscall, DEVICE_NONE) for owner in owners]
    rows = rows_of(
        *((tables.MIGRATION, row(tables.MIGRATION, key, started=2)) for key in keys),
        *(
            (
                tables.MIGRATION_HISTOGRAM,
                row(tables.MIGRATION_HISTOGRAM, key[:2], request_size=[0, 1], requested_bytes=8192),
            )
            for key in keys
        ),
        *((tables.INTERVAL_NOTIFIER, row(tables.INTERVAL_NOTIFIER, (ops,), inserts=5)) for ops in HEAP[:2]),
    )
    made = collector(tmp_path, frozenset({"migrate_vma_setup", "mmu_interval_notifier_insert"}), names=names)
    found = samples(made.families(rows))
    labels = frozenset({("class", "evict"), ("pgmap_owner", "out_of_tree-somebodys_pgmap")})
    assert found[("hmm_migrations_started_total", labels | {("trigger", "syscall"), ("device", "none")})] == 4
    assert found[("hmm_migration_request_size_bytes_bucket", labels | {("le", "4096.0")})] == 0
    assert found[("hmm_migration_request_size_bytes_bucket", labels | {("le", "8192.0")})] == 2
    assert found[("hmm_migration_request_size_bytes_sum", labels)] == 16384
    assert found[("hmm_interval_notifier_inserts_total", frozenset({("driver", "unknown")}))] == 10


def test_a_process_has_a_series_only_for_what_it_did(tmp_path: Path) -> None:
    process = row(tables.PROCESS, (comm("python3"),), range_faults=3)
    migration = row(tables.PROCESS_MIGRATION, (comm("python3"), 0, Class.evict), started=1)
    rows = rows_of((tables.PROCESS, process), (tables.PROCESS_MIGRATION, migration))
    found = samples(collector(tmp_path, EVERYTHING).families(rows))
    assert {name: value for (name, _), value in found.items() if name.startswith("hmm_process_")} == {
        "hmm_process_range_faults_total": 3,
        "hmm_process_migrations_total": 1,
    }


def test_errors_that_a_function_can_return_are_there_at_zero_and_others_when_they_occur(tmp_path: Path) -> None:
    attached = frozenset({"make_device_exclusive"})
    rows = rows_of(
        (tables.FAILURE, row(tables.FAILURE, (0, 14, Failure.device_exclusive, 0, 0), calls=2)),
        (tables.FAILURE, row(tables.FAILURE, (0, 999, Failure.device_exclusive, 0, 0), calls=1)),
        (tables.FAILURE, row(tables.FAILURE, (OTHER_POINTER, OTHER_ERRNO, Failure.device_exclusive, 0, 0), calls=3)),
    )
    families = collector(tmp_path, attached).families(rows)
    failures = {
        dict(labels)["errno"]: value
        for (name, labels), value in samples(families).items()
        if name == "hmm_device_exclusive_failures_total"
    }
    assert failures == {"EFAULT": 2, "ENOMEM": 0, "EINTR": 0, "EINVAL": 0, "EOPNOTSUPP": 0, "999": 1, "other": 3}


def test_both_functions_failures_are_one_process_metric(tmp_path: Path) -> None:
    # The programs book either function as range_fault there.
    key = (comm("python3"), 16, Failure.range_fault, 0)
    rows = rows_of((tables.PROCESS_FAILURE, row(tables.PROCESS_FAILURE, key, calls=4)))
    for probe in ("hmm_range_fault", "hmm_range_fault_unlocked_timeout"):
        found = samples(collector(tmp_path, frozenset({probe})).families(rows))
        labels = frozenset({("comm", "python3"), ("errno", "EBUSY")})
        assert found[("hmm_process_range_fault_failures_total", labels)] == 4


def test_the_functions_failures_stay_apart_on_the_node(tmp_path: Path) -> None:
    rows = rows_of(
        (tables.FAILURE, row(tables.FAILURE, (0, 16, Failure.range_fault, 0, 0), calls=4)),
        (tables.FAILURE, row(tables.FAILURE, (0, 16, Failure.range_fault_unlocked, 0, 0), calls=1)),
    )
    found = samples(collector(tmp_path, EVERYTHING).families(rows))
    busy = {
        dict(labels)["function"]: value
        for (name, labels), value in found.items()
        if name == "hmm_range_fault_failures_total" and {("errno", "EBUSY"), ("driver", "unknown")} <= labels
    }
    assert busy == {"hmm_range_fault": 4, "hmm_range_fault_unlocked_timeout": 1}


def test_families_come_in_the_catalogues_order_each_once(tmp_path: Path) -> None:
    made = collector(tmp_path, EVERYTHING)
    names = [family.name for family in made.families(rows_of())]
    assert names == [metric.name.removesuffix("_total") for metric in METRICS]


def test_a_collection_says_which_tables_it_reads(tmp_path: Path) -> None:
    assert set(collector(tmp_path, frozenset({"migrate_device_range"})).tables) == {tables.DEVICE_RANGE}
    own = {tables.OWNER, tables.DRIVER, tables.LOSS, tables.PROBE_CALL, tables.OVERFLOW}
    assert set(collector(tmp_path, EVERYTHING).tables) == set(tables.TABLES) - own


def started_rows(counts: Mapping[int, int]) -> Rows:
    """One label set for each owner: an address and its calls. The overflow row is there, as always."""
    keys = [(OTHER_POINTER, 0)] + list(counts.items())
    return rows_of(
        *((tables.INTERVAL_NOTIFIER, row(tables.INTERVAL_NOTIFIER, (ops,), inserts=calls)) for ops, calls in keys)
    )


def inserts(made: Collector, counts: Mapping[int, int]) -> dict[str, float]:
    found = samples(made.families(started_rows(counts)))
    return {
        dict(labels)["driver"]: value
        for (name, labels), value in found.items()
        if name == "hmm_interval_notifier_inserts_total"
    }


DRIVERS = {"amdgpu": OPS[0], "xe": OPS[1], "drm_gpusvm_helper": OPS[2]}


@pytest.fixture
def crowded(tmp_path: Path) -> Collector:
    """Room for what is always there and one driver more: `other` inserts, four errors, and `other` of a process."""
    names = names_with(tmp_path)
    names.learn({}, OPS, [])
    return collector(tmp_path, frozenset({"mmu_interval_notifier_insert"}), limit=7, names=names)


def test_a_label_set_beyond_the_limit_is_booked_as_other_and_counted_there(crowded: Collector) -> None:
    assert inserts(crowded, {OPS[0]: 5, OPS[1]: 7, OPS[2]: 1}) == {"amdgpu": 5, "other": 8}
    assert crowded.series == 6


def test_a_label_set_keeps_the_place_that_it_has(crowded: Collector) -> None:
    assert inserts(crowded, {OPS[1]: 7}) == {"xe": 7, "other": 0}
    assert inserts(crowded, {OPS[0]: 5, OPS[1]: 8}) == {"xe": 8, "other": 5}


def test_a_label_set_that_is_other_stays_other_even_when_there_is_room(crowded: Collector) -> None:
    assert inserts(crowded, {OPS[0]: 5, OPS[1]: 7}) == {"amdgpu": 5, "other": 7}
    assert inserts(crowded, {OPS[1]: 8}) == {"other": 8}
    assert inserts(crowded, {OPS[1]: 8, OPS[2]: 1}) == {"drm_gpusvm_helper": 1, "other": 8}


def test_a_label_set_that_ended_is_decided_anew(crowded: Collector) -> None:
    assert inserts(crowded, {OPS[0]: 5, OPS[1]: 7}) == {"amdgpu": 5, "other": 7}
    assert inserts(crowded, {}) == {"other": 0}
    assert inserts(crowded, {OPS[1]: 1}) == {"xe": 1, "other": 0}


def test_what_always_exists_fits_into_the_smallest_limit_that_the_configuration_allows(tmp_path: Path) -> None:
    # limits.series is a hard ceiling: a smaller one could not be kept.
    with map_set() as (_, maps):
        made = collector(tmp_path, EVERYTHING, limit=0)
        made.families({table: maps.read(table) for table in tables.TABLES})
        assert made.series <= rules_of(Limits)["series"].low


WATCHED = frozenset(
    {
        "migrate_vma_setup",
        "migrate_vma_pages",
        "migrate_vma_finalize",
        "migrate_device_unmap",
        "hmm_range_fault",
        "mmu_interval_notifier_insert",
        "pages",
        "devices",
    }
)

_migrations = st.tuples(
    st.just(tables.MIGRATION),
    st.tuples(
        st.sampled_from([0, *HEAP]),
        st.sampled_from(Class),
        st.sampled_from(Trigger),
        st.sampled_from([0, 1, DEVICE_NONE, DEVICE_UNKNOWN]),
    ),
    st.fixed_dictionaries(
        {
            "started": st.integers(0, 9),
            "completed": st.integers(0, 9),
            "busy_bytes": st.integers(0, 9),
            "moved_bytes": st.lists(st.integers(0, 9), min_size=4, max_size=4),
        }
    ),
)
_sizes = st.tuples(
    st.just(tables.MIGRATION_HISTOGRAM),
    st.tuples(st.sampled_from([0, *HEAP]), st.sampled_from(Class)),
    st.fixed_dictionaries({"requested_bytes": st.integers(0, 9), "request_size": st.just([1])}),
)
_of_processes = st.tuples(
    st.just(tables.PROCESS_MIGRATION),
    st.tuples(
        st.sampled_from([comm(f"p{number}") for number in range(20)]), st.sampled_from(HEAP), st.sampled_from(Class)
    ),
    st.fixed_dictionaries({"started": st.integers(0, 5)}),
)
_range_faults = st.tuples(
    st.just(tables.RANGE_FAULT),
    st.tuples(st.sampled_from([0, *OPS]), st.just(RangeFunction.hmm_range_fault), st.sampled_from(Intent)),
    st.fixed_dictionaries({"calls": st.integers(1, 9), "bytes": st.integers(0, 9), "size": st.just([0, 1])}),
)
_busy = st.tuples(
    st.just(tables.EBUSY),
    st.tuples(st.sampled_from(OPS), st.integers(0, 30), st.just(RangeFunction.hmm_range_fault)),
    st.fixed_dictionaries({"calls": st.integers(1, 9)}),
)
_failures = st.tuples(
    st.just(tables.FAILURE),
    st.tuples(
        st.sampled_from(HEAP), st.just(22), st.just(Failure.migration), st.sampled_from(Class), st.sampled_from(Trigger)
    ),
    st.fixed_dictionaries({"calls": st.integers(1, 9)}),
)
_events = st.lists(st.one_of(_migrations, _sizes, _of_processes, _range_faults, _busy, _failures), max_size=25)

# Metric, without its open labels, to the table and column that it sums.
NAIVE = {
    "hmm_migrations_started_total": (tables.MIGRATION, "started", ("class", "trigger")),
    "hmm_migrations_completed_total": (tables.MIGRATION, "completed", ("class", "trigger")),
    "hmm_migration_unmoved_bytes_total": (tables.MIGRATION, "busy_bytes", ("class", "trigger")),
    "hmm_migration_moved_bytes_total": (tables.MIGRATION, "moved_bytes", ("trigger",)),
    "hmm_migration_request_size_bytes_sum": (tables.MIGRATION_HISTOGRAM, "requested_bytes", ("class",)),
    "hmm_migration_request_size_bytes_count": (tables.MIGRATION_HISTOGRAM, "request_size", ("class",)),
    "hmm_process_migrations_total": (tables.PROCESS_MIGRATION, "started", ("class",)),
    "hmm_range_faults_total": (tables.RANGE_FAULT, "calls", ("function", "intent")),
    "hmm_range_fault_size_bytes_count": (tables.RANGE_FAULT, "size", ("function",)),
    "hmm_range_fault_ebusy_callers_total": (tables.EBUSY, "calls", ()),
    "hmm_migration_failures_total": (tables.FAILURE, "calls", ("class", "trigger")),
}


@settings(max_examples=40)
@given(st.lists(_events, min_size=1, max_size=4), st.integers(800, 1100))
def test_whatever_happens_totals_are_exact_no_series_decreases_and_the_limit_holds(
    tmp_path_factory: pytest.TempPathFactory, scrapes: list[list[tuple[Table, KeyValues, dict[str, int]]]], room: int
) -> None:
    names = names_with(tmp_path_factory.getbasetemp(), stacks={}, devices=DEVICES)
    truth: Counter[tuple[str, tuple[str, ...]]] = Counter()
    with map_set() as (bpf, maps):
        empty = collector(tmp_path_factory.getbasetemp(), WATCHED)
        empty.families({table: maps.read(table) for table in tables.TABLES})
        limit = empty.series + room
        made = collector(tmp_path_factory.getbasetemp(), WATCHED, limit, names)
        before: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for events in scrapes:
            for table, key, columns in events:
                bpf.book(table, key, **columns)
                _count(truth, table, key, columns)
            names.learn(dict.fromkeys(HEAP, 0), OPS, range(31))
            found = samples(made.families({table: maps.read(table) for table in tables.TABLES}))
            assert _by_closed_labels(found) == truth
            assert made.series == len(found) <= limit
            assert {series: value for series, value in before.items() if found.get(series, -1) < value} == {}
            before = found


def _count(
    truth: Counter[tuple[str, tuple[str, ...]]], table: Table, key: KeyValues, columns: Mapping[str, int]
) -> None:
    fields = dict(zip((each.name for each in table.keys), key))
    for name, (its_table, column, closed) in NAIVE.items():
        if its_table is table:
            amount = columns[column]
            labels = tuple(getattr(fields[label], "name", "") for label in closed)
            truth[(name, labels)] += amount if isinstance(amount, int) else sum(amount)


def _by_closed_labels(
    found: Mapping[tuple[str, frozenset[tuple[str, str]]], float],
) -> Counter[tuple[str, tuple[str, ...]]]:
    sums: Counter[tuple[str, tuple[str, ...]]] = Counter()
    for (name, labels), value in found.items():
        if name in NAIVE:
            sums[(name, tuple(dict(labels)[label] for label in NAIVE[name][2]))] += int(value)
    return sums


@given(st.lists(st.integers(0, 1 << 40), min_size=26, max_size=26), st.integers(0, 1 << 53))
def test_a_histogram_is_cumulative_and_its_last_bucket_is_its_count(
    tmp_path_factory: pytest.TempPathFactory, slots: list[int], total: int
) -> None:
    each = row(tables.DEVICE_RANGE, (DeviceFunction.migrate_device_range, DEVICE_NONE), bytes=total, size=slots)
    made = collector(tmp_path_factory.getbasetemp(), frozenset({"migrate_device_range"}))
    found = samples(made.families(rows_of((tables.DEVICE_RANGE, each))))
    buckets = {
        dict(labels)["le"]: value for (name, labels), value in found.items() if name.endswith("_size_bytes_bucket")
    }
    if not any((*slots, total)):
        assert not buckets
        return
    in_order = [value for _, value in sorted(buckets.items(), key=lambda bucket: float(bucket[0]))]
    assert in_order == [float(sum(slots[: at + 1])) for at in range(26)]
    labels = frozenset({("function", "migrate_device_range")})
    assert found[("hmm_device_range_size_bytes_count", labels)] == buckets["+Inf"] == sum(slots)
    assert found[("hmm_device_range_size_bytes_sum", labels)] == total


def test_every_histogram_of_the_catalogue_has_25_finite_bounds_in_the_exposition(tmp_path: Path) -> None:
    sources = [source for metric in METRICS if metric.type is Type.HISTOGRAM for source in metric.sources]
    rows = rows_of(*((source.table, Row(a_key(source), (1,) * source.table.words)) for source in sources))
    families = collector(tmp_path, EVERYTHING).families(rows)
    histograms = {metric.name for metric in METRICS if metric.type is Type.HISTOGRAM}
    for family in families:
        if family.name in histograms:
            bounds = {sample.labels["le"] for sample in family.samples if sample.name.endswith("_bucket")}
            assert len(bounds) == 26, family.name


def a_key(source: Source) -> KeyValues:
    return tuple(source.where.get(key.name, 0) for key in source.table.keys)


def _stall(made: Collector, rows: Rows) -> dict[str, float]:
    found = samples(made.families(rows))
    return {dict(its)["comm"]: value for (name, its), value in found.items() if name.endswith("_stall_seconds_total")}


def test_a_sum_of_several_rows_does_not_go_down_when_one_of_them_ends(tmp_path: Path) -> None:
    """Prometheus would take it for a restart, and all that is left for new."""
    made = collector(tmp_path, frozenset({"migrate_vma_finalize"}))
    old, young = (
        row(tables.PROCESS_MIGRATION, (comm("a"), owner, 1), fault_stall_ns=10**9 * seconds)
        for owner, seconds in zip(HEAP, (3, 4))
    )
    assert _stall(made, rows_of((tables.PROCESS_MIGRATION, old), (tables.PROCESS_MIGRATION, young))) == {"a": 7}
    made.end(tables.PROCESS_MIGRATION, old)
    for _ in range(3):
        assert _stall(made, rows_of((tables.PROCESS_MIGRATION, young))) == {"a": 7}


def test_with_the_last_of_its_rows_a_label_set_ends_and_begins_anew(tmp_path: Path) -> None:
    made = collector(tmp_path, frozenset({"migrate_vma_finalize"}))
    old = row(tables.PROCESS_MIGRATION, (comm("a"), HEAP[0], 1), fault_stall_ns=3 * 10**9)
    new = row(tables.PROCESS_MIGRATION, (comm("a"), HEAP[0], 1), fault_stall_ns=10**9)
    assert _stall(made, rows_of((tables.PROCESS_MIGRATION, old))) == {"a": 3}
    made.end(tables.PROCESS_MIGRATION, old)
    assert _stall(made, rows_of()) == {}
    assert _stall(made, rows_of((tables.PROCESS_MIGRATION, new))) == {"a": 1}


def test_what_ended_in_other_stays_there(tmp_path: Path) -> None:
    """`other` is the sum of many, and must not go down with one of them."""
    probes = frozenset({"migrate_vma_finalize"})
    room = Collector(probes, names_with(tmp_path), 100)
    held_back = 100 - room.series_limit
    made = Collector(probes, names_with(tmp_path), held_back + 1)
    first, second, third = (
        row(tables.PROCESS_MIGRATION, (comm(name), HEAP[0], 1), fault_stall_ns=10**9 * seconds)
        for name, seconds in (("a", 5), ("b", 100), ("d", 7))
    )
    rows = [(tables.PROCESS_MIGRATION, each) for each in (first, second, third)]
    assert _stall(made, rows_of(*rows)) == {"a": 5, "other": 107}
    made.end(tables.PROCESS_MIGRATION, second)
    for _ in range(2):
        made.forget_ended(rows_of(rows[0], rows[2]))
        assert _stall(made, rows_of(rows[0], rows[2])) == {"a": 5, "other": 107}
    made.end(tables.PROCESS_MIGRATION, third)
    assert _stall(made, rows_of(rows[0])) == {"a": 5, "other": 107}


def test_a_series_that_ends_and_begins_anew_between_two_scrapes_goes_on(tmp_path: Path) -> None:
    """Found by the model of test_limiter.py: at 1 again, nobody would see that it has counted something."""
    made = collector(tmp_path, frozenset({"migrate_vma_finalize"}))
    first = row(tables.PROCESS_MIGRATION, (comm("a"), HEAP[0], 1), fault_stall_ns=10**9)
    assert _stall(made, rows_of((tables.PROCESS_MIGRATION, first))) == {"a": 1}
    made.end(tables.PROCESS_MIGRATION, first)
    made.forget_ended(rows_of())
    assert _stall(made, rows_of((tables.PROCESS_MIGRATION, first))) == {"a": 2}


def test_what_has_ended_is_let_go_of_also_when_nobody_scrapes(tmp_path: Path) -> None:
    made = collector(tmp_path, frozenset({"migrate_vma_finalize"}))
    lasting = row(tables.PROCESS_MIGRATION, (comm("a"), HEAP[0], 1), fault_stall_ns=10**9)
    for number in range(50):
        gone = row(tables.PROCESS_MIGRATION, (comm(f"job-{number}"), HEAP[0], 1), fault_stall_ns=10**9)
        made.end(tables.PROCESS_MIGRATION, gone)
        made.end(tables.PROCESS_MIGRATION, row(tables.PROCESS_MIGRATION, (comm("a"), HEAP[1], 1), fault_stall_ns=10**9))
        made.forget_ended(rows_of((tables.PROCESS_MIGRATION, lasting)))
    assert [list(sums) for sums in made._ended.values() if sums] == [[("a",)]]
    assert _stall(made, rows_of((tables.PROCESS_MIGRATION, lasting))) == {"a": 51}


def test_what_ended_before_it_was_shown_goes_where_its_label_set_goes(tmp_path: Path) -> None:
    probes = frozenset({"migrate_vma_finalize"})
    held_back = 100 - Collector(probes, names_with(tmp_path), 100).series_limit
    made = Collector(probes, names_with(tmp_path), held_back + 1)
    shown, young = (
        row(tables.PROCESS_MIGRATION, (comm(name), HEAP[0], 1), fault_stall_ns=10**9 * seconds)
        for name, seconds in (("a", 5), ("b", 7))
    )
    old = row(tables.PROCESS_MIGRATION, (comm("b"), HEAP[1], 1), fault_stall_ns=100 * 10**9)
    assert _stall(made, rows_of((tables.PROCESS_MIGRATION, shown))) == {"a": 5}
    made.end(tables.PROCESS_MIGRATION, old)
    rows = rows_of((tables.PROCESS_MIGRATION, shown), (tables.PROCESS_MIGRATION, young))
    made.forget_ended(rows)
    for _ in range(2):
        assert _stall(made, rows) == {"a": 5, "other": 107}
