# SPDX-License-Identifier: Apache-2.0
"""Which label sets are shown before they have counted anything, and what a device is called in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmm_exporter.bpf.maps import KeyValues
from hmm_exporter.catalog import tables
from hmm_exporter.catalog.metric import Metric, Type, Zeros
from hmm_exporter.catalog.metrics import METRICS
from hmm_exporter.catalog.tables import Table
from hmm_exporter.catalog.values import (
    DEVICE_NONE,
    DEVICE_REGIONS,
    DEVICE_UNKNOWN,
    HISTOGRAM_SLOTS,
    OTHER_DEVICE,
    OTHER_POINTER,
    Class,
    DeviceFunction,
    Direction,
    Trigger,
)
from hmm_exporter.metrics.collector import Collector
from hmm_exporter.metrics.selection import select
from tests.unit.bpf.in_memory import map_set
from tests.unit.metrics.exposed import DEVICES, EVERYTHING, names_with, row, samples

BY_NAME = {metric.name: metric for metric in METRICS}
OWNER = 0xFFFFFFFFC0480000
"""Static: it is called nvidia_uvm."""

Labelled = dict[frozenset[tuple[str, str]], float]


def of(metric: str, folder: Path, *rows: tuple[Table, KeyValues, dict[str, int]]) -> Labelled:
    """What a metric shows after these rows were booked."""
    names = names_with(folder, devices=DEVICES)
    names.learn({OWNER: 0}, [], [])
    with map_set() as (bpf, maps):
        for table, key, columns in rows:
            bpf.book(table, key, **columns)
        families = Collector(EVERYTHING, names, 10000).families({table: maps.read(table) for table in tables.TABLES})
        return {labels: value for (name, labels), value in samples(families).items() if name == metric}


def migration(device: int, **columns: int) -> tuple[Table, KeyValues, dict[str, int]]:
    return tables.MIGRATION, (OWNER, Class.evict, Trigger.kthread, device), columns


def by_device(found: Labelled) -> dict[str, float]:
    """Of nvidia_uvm's label sets."""
    return {dict(labels)["device"]: value for labels, value in found.items() if ("pgmap_owner", "nvidia_uvm") in labels}


OF_MIGRATIONS = [
    metric.name
    for metric in METRICS
    if metric.type is Type.COUNTER and any(source.table is tables.MIGRATION for source in metric.sources)
]
ROWS = (migration(DEVICE_NONE), migration(0), migration(1))


@pytest.mark.parametrize(
    ("zeros", "shown"),
    [
        (Zeros.without_device, {"none"}),
        (Zeros.with_device, set(DEVICES)),
        (Zeros.other, set[str]()),
        (Zeros.never, set[str]()),
    ],
    ids=lambda value: value.name if isinstance(value, Zeros) else "",
)
def test_a_migrations_row_is_shown_at_zero_by_the_metrics_that_count_such_rows(
    tmp_path: Path, zeros: Zeros, shown: set[str]
) -> None:
    metrics = [name for name in OF_MIGRATIONS if BY_NAME[name].zeros is zeros]
    assert metrics
    for metric in metrics:
        assert set(by_device(of(metric, tmp_path, *ROWS))) == shown, metric


@pytest.mark.parametrize("name", OF_MIGRATIONS)
def test_whatever_was_counted_is_shown_whether_its_zero_is_or_not(tmp_path: Path, name: str) -> None:
    columns = {source.column: 7 for source in BY_NAME[name].sources}
    rows = (migration(DEVICE_NONE, **columns), migration(1, **columns))
    assert {"none", "hmm_dmirror-0"} <= set(by_device(of(name, tmp_path, *rows)))


@pytest.mark.parametrize("name", OF_MIGRATIONS)
def test_an_overflow_row_of_each_class_is_shown_at_zero_from_the_first_scrape(tmp_path: Path, name: str) -> None:
    found = of(name, tmp_path)
    if BY_NAME[name].zeros is Zeros.never:
        assert not found
        return
    expected = 1
    for label, known in (("class", Class), ("direction", Direction)):
        expected *= len(known) if label in BY_NAME[name].labels else 1
    assert len(found) == expected
    assert set(found.values()) == {0}
    assert {dict(labels)["device"] for labels in found} == {"other"}


def test_no_histogram_is_shown_before_it_has_counted(tmp_path: Path) -> None:
    only_timed = (tables.MIGRATION_HISTOGRAM, (OWNER, Class.evict), {"duration_ns": 2_000})
    assert not of("hmm_migration_moved_size_bytes_count", tmp_path, only_timed)
    assert len(of("hmm_migration_duration_seconds_count", tmp_path, only_timed)) == 1
    assert not of("hmm_device_range_size_bytes_count", tmp_path, only_timed)


def test_a_devices_zero_is_shown_as_soon_as_it_has_a_name_and_no_free_index_ever(tmp_path: Path) -> None:
    found = of("hmm_device_range_moved_bytes_total", tmp_path)
    assert {dict(labels)["device"]: value for labels, value in found.items()} == {
        "none": 0,
        "other": 0,
        "0000:c1:00.0": 0,
        "hmm_dmirror-0": 0,
    }


def test_no_metric_by_device_shows_a_free_index(tmp_path: Path) -> None:
    names = names_with(tmp_path, devices=DEVICES)
    with map_set() as (_, maps):
        families = Collector(EVERYTHING, names, 10000).families({table: maps.read(table) for table in tables.TABLES})
        shown = {sample.labels["device"] for each in families for sample in each.samples if "device" in sample.labels}
    assert shown == {"none", "other", *DEVICES}


def test_unknown_and_overflowing_devices_are_other_and_are_added_up(tmp_path: Path) -> None:
    rows = (
        (tables.DEVICE, (DEVICE_UNKNOWN,), {"range_moved_bytes": 4096}),
        (tables.DEVICE, (1,), {"range_moved_bytes": 8192}),
        (tables.MIGRATION, (OTHER_POINTER, Class.evict, Trigger.kthread, OTHER_DEVICE), {"completed": 2}),
        (tables.MIGRATION, (OTHER_POINTER, Class.evict, Trigger.kthread, DEVICE_UNKNOWN), {"completed": 3}),
    )
    moved = of("hmm_device_range_moved_bytes_total", tmp_path, *rows)
    assert moved[frozenset({("device", "other")})] == 4096
    assert moved[frozenset({("device", "hmm_dmirror-0")})] == 8192
    labels = {("class", "evict"), ("trigger", "kthread"), ("pgmap_owner", "other"), ("device", "other")}
    assert of("hmm_migrations_completed_total", tmp_path, *rows)[frozenset(labels)] == 5


def test_a_failed_migration_has_no_device_and_says_so(tmp_path: Path) -> None:
    found = of("hmm_migration_failures_total", tmp_path)
    assert {dict(labels)["device"] for labels in found} == {"none"}


def test_a_direction_that_moved_nothing_stays_hidden_beside_one_that_did(tmp_path: Path) -> None:
    names = names_with(tmp_path, devices=DEVICES)
    names.learn({OWNER: 0}, [], [])
    with map_set() as (bpf, maps):
        bpf.book(tables.MIGRATION, (OWNER, Class.evict, Trigger.kthread, 0), moved_bytes=[0, 0, 4096, 0])
        families = Collector(EVERYTHING, names, 10000).families({table: maps.read(table) for table in tables.TABLES})
        found = {
            dict(labels)["direction"]: value
            for (name, labels), value in samples(families).items()
            if name == "hmm_migration_moved_bytes_total" and ("pgmap_owner", "nvidia_uvm") in labels
        }
    assert found == {"device_to_host": 4096}


@given(st.lists(st.integers(0, 1 << 50), min_size=8, max_size=8), st.sampled_from(Direction))
def test_each_element_of_an_arrays_column_is_its_own_direction(
    tmp_path_factory: pytest.TempPathFactory, words: list[int], way: Direction
) -> None:
    names = names_with(tmp_path_factory.getbasetemp(), devices=DEVICES)
    for name, column, at in (
        ("hmm_migration_moved_bytes_total", "moved_bytes", 0),
        ("hmm_migration_moved_huge_bytes_total", "moved_huge_bytes", 4),
    ):
        selected = select(BY_NAME[name], EVERYTHING, names)
        assert selected
        key = (0, Class.evict, Trigger.kthread, 0)
        written = row(tables.MIGRATION, key, moved_bytes=words[:4], moved_huge_bytes=words[4:])
        found = {s.labels(key)[0]: s.words(written) for s in selected.selections}
        assert found[way.name] == [words[at + way]], column
        assert set(found) == {each.name for each in Direction}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_takes_the_words_that_the_program_writes_to_its_columns(tmp_path: Path, metric: Metric) -> None:
    """One word a column, and element, is written, by name; the metric must read that word and no other."""
    selected = select(metric, EVERYTHING, names_with(tmp_path))
    assert selected
    assert len(selected.selections) == len(metric.sources)
    for selection, source in zip(selected.selections, metric.sources):
        with map_set() as (bpf, maps):
            key = a_key(source.table, source.where)
            numbered = {
                value.name: list(range(at * 100 + 1, at * 100 + 1 + value.words))
                for at, value in enumerate(source.table.values)
            }
            bpf.book(source.table, key, 0, **numbered)
            (read,) = (each for each in maps.read(source.table) if each.key == key)
        assert selection.matches(read.key)
        expected = numbered[source.column]
        if source.element is not None:
            expected = [expected[source.element]]
        assert selection.words(read) == expected + (numbered[source.sum] if source.sum else [])
        assert (
            len(selection.words(read))
            == selected.words
            == (HISTOGRAM_SLOTS + 1 if metric.type is Type.HISTOGRAM else 1)
        )


def a_key(table: Table, where: Mapping[str, int]) -> KeyValues:
    """A key that a source takes rows of, and that is no overflow row's."""
    return tuple(where.get(key.name, bytes(24) if key.c_type == "comm" else 0) for key in table.keys)


@given(st.integers(0, 255))
def test_every_device_number_has_a_name_or_is_a_free_index(
    tmp_path_factory: pytest.TempPathFactory, number: int
) -> None:
    name = names_with(tmp_path_factory.getbasetemp(), devices=DEVICES).device(number)
    if number < len(DEVICES):
        assert name == DEVICES[number]
    elif number < DEVICE_REGIONS:
        assert name == ""
    else:
        assert name == ("none" if number == DEVICE_NONE else "other")


@pytest.mark.parametrize("function", DeviceFunction)
def test_a_range_of_an_unknown_device_is_counted_as_other(tmp_path: Path, function: DeviceFunction) -> None:
    found = of(
        "hmm_device_range_migrations_total",
        tmp_path,
        (tables.DEVICE_RANGE, (function, DEVICE_UNKNOWN), {"calls": 3}),
    )
    assert found[frozenset({("function", function.name), ("device", "other")})] == 3
