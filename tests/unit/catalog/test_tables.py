# SPDX-License-Identifier: Apache-2.0
"""The tables as declared: keys, columns, who admits whom."""

from __future__ import annotations

import pytest

from hmm_exporter.catalog import tables
from hmm_exporter.catalog.probes import PROBES
from hmm_exporter.catalog.tables import ROW_TABLES, TABLES, Kind, Table
from hmm_exporter.catalog.values import DEVICE_NONE, DEVICE_REGIONS, DEVICE_UNKNOWN, HISTOGRAM_SLOTS, Direction

each_table = pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)


def test_every_domain_of_a_key_counts_from_zero_without_a_gap() -> None:
    # An array's index is made of them, and a byte holds them.
    for table in TABLES:
        for key in table.keys:
            if key.domain:
                assert [member.value for member in key.domain] == list(range(key.values)), (table.name, key.name)
                assert key.c_type == "u8"


def test_tables_have_names_of_their_own_and_so_have_their_columns() -> None:
    assert len({table.name for table in TABLES}) == len(TABLES)
    for table in TABLES:
        names = [key.name for key in table.keys] + [value.name for value in table.values]
        assert len(set(names)) == len(names)


@each_table
def test_an_array_knows_all_its_keys_and_a_hash_does_not(table: Table) -> None:
    assert bool(table.open_keys) == (table.kind is Kind.HASH)
    if table.kind is Kind.ARRAY:
        assert table.rows >= 2
        assert not any(key.admitted_by or key.goes_with for key in table.keys)


@each_table
def test_fields_of_a_key_come_from_the_widest_to_the_narrowest_so_that_no_hole_lies_between(table: Table) -> None:
    widths = [{"comm": 8, "u64": 8, "u32": 4, "u16": 2, "u8": 1}[key.c_type] for key in table.keys]
    assert widths == sorted(widths, reverse=True)


@each_table
def test_a_value_that_is_admitted_is_admitted_by_a_table_of_that_one_value(table: Table) -> None:
    by_name = {each.name: each for each in ROW_TABLES}
    for key in table.keys:
        for name in filter(None, (key.admitted_by, *key.goes_with)):
            (admission_key,) = by_name[name].keys
            assert admission_key.c_type == key.c_type


@each_table
def test_an_open_field_is_admitted_or_has_a_limit_of_its_own(table: Table) -> None:
    free = {(table.name, key.name) for key in table.open_keys if not key.admitted_by}
    assert free <= {
        ("owner", "owner"),
        ("driver", "ops"),
        ("process", "comm"),
        ("ebusy", "stack"),
        ("migration", "device"),  # one of 64 indices, and none and unknown
        ("failure", "subject"),
        ("failure", "errno"),
        ("process_failure", "errno"),
    }


@each_table
def test_a_row_has_as_many_words_as_its_columns(table: Table) -> None:
    assert table.words == sum(
        HISTOGRAM_SLOTS if value.histogram else len(value.by) if value.by else 1 for value in table.values
    )


def test_a_column_by_direction_has_a_word_for_each_and_no_column_is_a_histogram_as_well() -> None:
    columns = {(table.name, value.name): value for table in TABLES for value in table.values}
    by_direction = {name for name, value in columns.items() if value.by is Direction}
    assert by_direction == {
        ("migration", "moved_bytes"),
        ("migration", "moved_huge_bytes"),
        ("process_migration", "moved_bytes"),
    }
    assert {columns[name].words for name in by_direction} == {4}
    assert not [name for name, value in columns.items() if value.by and value.histogram]
    assert [value.is_array for value in columns.values()] == [value.words > 1 for value in columns.values()]


def test_a_table_by_device_has_a_row_for_each_of_them_none_and_unknown() -> None:
    assert tables.DEVICE.rows == DEVICE_REGIONS + 2 == DEVICE_UNKNOWN + 1 == DEVICE_NONE + 2
    assert tables.DEVICE_RANGE.rows == 2 * tables.DEVICE.rows


def test_the_overflow_counts_have_a_row_for_every_table_and_calls_one_for_every_probe() -> None:
    assert tables.OVERFLOW.rows == len(ROW_TABLES)
    assert tables.PROBE_CALL.rows == len(PROBES)
