# SPDX-License-Identifier: Apache-2.0
"""The metrics that dashboards, alerts and other people rely on: this list is the contract, written out.

A name, a type or a label that changes here breaks somebody: it needs a note that says why.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

import pytest

from hmm_exporter.catalog import tables, values
from hmm_exporter.catalog.metric import NEEDS, Metric, Scale, Source, Type, Zeros
from hmm_exporter.catalog.metrics import METRICS
from hmm_exporter.catalog.probes import PROBES
from hmm_exporter.catalog.tables import Kind
from hmm_exporter.catalog.values import CONSTANTS, Direction, Event, Failure, Size
from hmm_exporter.config import Histograms

N = ("class", "trigger", "pgmap_owner", "device")
COUNTER, HISTOGRAM = "counter", "histogram"

CONTRACT = {
    # Migrations, node tier
    "hmm_migrations_started_total": (COUNTER, N),
    "hmm_migration_failures_total": (COUNTER, (*N, "errno")),
    "hmm_migrations_empty_total": (COUNTER, N),
    "hmm_migrations_completed_total": (COUNTER, N),
    "hmm_migration_requested_bytes_total": (COUNTER, N),
    "hmm_migration_request_size_bytes": (HISTOGRAM, ("class", "pgmap_owner")),
    "hmm_migration_duration_seconds": (HISTOGRAM, ("class", "pgmap_owner")),
    "hmm_migration_phase_seconds_total": (COUNTER, ("class", "pgmap_owner", "phase")),
    "hmm_migration_phase_duration_seconds": (HISTOGRAM, ("class", "phase")),
    # What they moved
    "hmm_migration_collected_bytes_total": (COUNTER, N),
    "hmm_migration_moved_bytes_total": (COUNTER, ("direction", "trigger", "pgmap_owner", "device")),
    "hmm_migration_moved_huge_bytes_total": (COUNTER, ("direction", "pgmap_owner", "device")),
    "hmm_migration_zero_filled_bytes_total": (COUNTER, N),
    "hmm_migration_unmoved_bytes_total": (COUNTER, (*N, "reason")),
    "hmm_migrations_aborted_total": (COUNTER, N),
    "hmm_migrations_partial_total": (COUNTER, N),
    "hmm_migrations_huge_total": (COUNTER, N),
    "hmm_migration_moved_size_bytes": (HISTOGRAM, ("class", "pgmap_owner")),
    "hmm_device_residency_seconds": (HISTOGRAM, ("device",)),
    "hmm_migration_returned_bytes_total": (COUNTER, ("pgmap_owner", "device")),
    # Device ranges
    "hmm_device_range_migrations_total": (COUNTER, ("function", "device")),
    "hmm_device_range_size_bytes": (HISTOGRAM, ("function",)),
    "hmm_device_range_moved_bytes_total": (COUNTER, ("device",)),
    # Device mirror
    "hmm_range_faults_total": (COUNTER, ("function", "driver", "intent")),
    "hmm_range_fault_failures_total": (COUNTER, ("function", "driver", "errno")),
    "hmm_range_fault_size_bytes": (HISTOGRAM, ("function", "driver")),
    "hmm_range_fault_duration_seconds": (HISTOGRAM, ("function", "driver")),
    "hmm_range_fault_ebusy_callers_total": (COUNTER, ("driver", "caller")),
    "hmm_range_fault_attempts_total": (COUNTER, ("driver",)),
    "hmm_range_fault_ebusy_total": (COUNTER, ("driver", "reason")),
    # Process tier
    "hmm_process_migrations_total": (COUNTER, ("comm", "class", "pgmap_owner")),
    "hmm_process_migration_failures_total": (COUNTER, ("comm", "class", "errno")),
    "hmm_process_requested_bytes_total": (COUNTER, ("comm", "class", "pgmap_owner")),
    "hmm_process_moved_bytes_total": (COUNTER, ("comm", "direction")),
    "hmm_process_returned_bytes_total": (COUNTER, ("comm",)),
    "hmm_process_fault_stall_seconds_total": (COUNTER, ("comm",)),
    "hmm_process_range_faults_total": (COUNTER, ("comm",)),
    "hmm_process_range_fault_failures_total": (COUNTER, ("comm", "errno")),
    "hmm_process_device_exclusive_total": (COUNTER, ("comm",)),
    "hmm_process_device_exclusive_restores_total": (COUNTER, ("comm",)),
    "hmm_process_huge_faults_total": (COUNTER, ("comm",)),
    "hmm_process_interval_notifier_inserts_total": (COUNTER, ("comm",)),
    "hmm_process_interval_notifier_removes_total": (COUNTER, ("comm",)),
    "hmm_process_invalidations_total": (COUNTER, ("comm",)),
    # The rest of the script's probes
    "hmm_device_exclusive_total": (COUNTER, ()),
    "hmm_device_exclusive_failures_total": (COUNTER, ("errno",)),
    "hmm_device_exclusive_restores_total": (COUNTER, ()),
    "hmm_interval_notifier_inserts_total": (COUNTER, ("driver",)),
    "hmm_interval_notifier_insert_failures_total": (COUNTER, ("driver", "errno")),
    "hmm_interval_notifier_removes_total": (COUNTER, ("driver",)),
    "hmm_huge_faults_total": (COUNTER, ()),
    "hmm_huge_fault_retries_total": (COUNTER, ()),
    "hmm_huge_fault_failures_total": (COUNTER, ("fault",)),
    "hmm_dma_maps_total": (COUNTER, ()),
    "hmm_dma_map_failures_total": (COUNTER, ()),
    "hmm_dma_unmaps_total": (COUNTER, ()),
    "hmm_dma_unmap_misses_total": (COUNTER, ()),
    "hmm_mmu_notifier_invalidations_total": (COUNTER, ("event",)),
    "hmm_mmu_notifier_invalidation_size_bytes": (HISTOGRAM, ("event",)),
    "hmm_migration_ptes_set_total": (COUNTER, ("order", "context")),
    "hmm_migration_ptes_removed_total": (COUNTER, ("order", "context")),
    "hmm_migration_pmds_set_total": (COUNTER, ("context",)),
    "hmm_migration_pmds_removed_total": (COUNTER, ("context",)),
}

# What each function can return, read in the kernel's sources from 6.1 to 7.3.
ERRORS = {
    "hmm_migration_failures_total": {"EINVAL"},
    "hmm_range_fault_failures_total": {"EBUSY", "EFAULT", "EPERM", "EINVAL", "ENOMEM", "EINTR"},
    "hmm_device_exclusive_failures_total": {"EFAULT", "ENOMEM", "EINTR", "EINVAL", "EOPNOTSUPP"},
    "hmm_interval_notifier_insert_failures_total": {"EOVERFLOW", "ENOMEM", "EINTR", "EINVAL"},
    "hmm_huge_fault_failures_total": {"VM_FAULT_SIGBUS", "VM_FAULT_OOM"},
}

each_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)


def sources() -> Iterator[tuple[Metric, Source]]:
    for metric in METRICS:
        for source in metric.sources:
            yield metric, source


each_source = pytest.mark.parametrize(
    ("metric", "source"),
    list(sources()),
    ids=[f"{metric.name}-{at}" for metric in METRICS for at in range(len(metric.sources))],
)


def test_the_metrics_are_those_of_the_contract_one_by_one() -> None:
    assert {metric.name: (metric.type.value, tuple(metric.labels)) for metric in METRICS} == CONTRACT
    assert len(METRICS) == len(CONTRACT)


@each_metric
def test_the_process_tier_is_what_is_named_so_and_it_alone_has_a_comm(metric: Metric) -> None:
    assert metric.per_process == metric.name.startswith("hmm_process_") == ("comm" in metric.labels)


@each_metric
def test_a_name_is_plain_and_says_its_type_and_unit_as_prometheus_wants_it(metric: Metric) -> None:
    # promlint's rules, where they can be seen in a name.
    assert re.fullmatch(r"hmm(_[a-z0-9]+)+", metric.name)
    assert metric.name.endswith("_total") == (metric.type is Type.COUNTER)
    words = metric.name.split("_")
    assert not {"counter", "gauge", "histogram", "summary", "bucket", "count", "sum", "info"} & set(words)
    assert not {"ns", "ms", "us", "kb", "mb", "kib", "mib", "milliseconds", "nanoseconds", "kilobytes"} & set(words)
    units = [at for at, word in enumerate(words) if word in ("seconds", "bytes")]
    assert units in ([], [len(words) - 1 - (metric.type is Type.COUNTER)])
    assert bool(units) or metric.type is Type.COUNTER


@each_metric
def test_a_help_text_is_one_line_of_whole_sentences(metric: Metric) -> None:
    assert metric.help == metric.help.strip()
    assert metric.help.isprintable()
    assert metric.help[0].isupper()
    assert metric.help.endswith(".")
    assert "  " not in metric.help
    assert len(metric.help) >= 25


def test_no_two_metrics_have_one_help_text() -> None:
    assert len({metric.help for metric in METRICS}) == len(METRICS)


@each_metric
def test_labels_are_plain_and_none_that_prometheus_or_kubernetes_adds(metric: Metric) -> None:
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", label) for label in metric.labels)
    assert not {"le", "quantile", "job", "instance", "node", "pod", "namespace", "container"} & set(metric.labels)


@each_source
def test_every_column_exists_and_a_histogram_has_a_sum_beside_it(metric: Metric, source: Source) -> None:
    columns = {value.name: value for value in source.table.values}
    if metric.type is Type.COUNTER:
        assert columns[source.column].histogram is None
        assert source.sum == ""
    else:
        expected = Size.seconds if metric.name.endswith("_seconds") else Size.bytes
        assert columns[source.column].histogram is expected
        assert columns[source.sum].histogram is None


@each_source
def test_nanoseconds_become_seconds_and_nothing_else_is_scaled(metric: Metric, source: Source) -> None:
    number = source.sum or source.column
    in_ns = number == "ns" or number.endswith("_ns")
    assert (metric.scale is Scale.nanoseconds) == in_ns == ("_seconds" in metric.name)
    assert (number.endswith("bytes")) == ("_bytes" in metric.name)


@each_source
def test_every_key_field_that_is_named_exists_and_has_the_value_that_is_wanted(metric: Metric, source: Source) -> None:
    keys = {key.name: key for key in source.table.keys}
    for name, value in source.where.items():
        key = keys[name]
        assert value in (list(key.domain) if key.domain else range(key.values))
    for label, name in metric.labels.items():
        assert (label in source.labels) != (name in keys and name != "")
    assert set(source.labels) <= set(metric.labels)


@each_source
def test_every_probe_that_feeds_a_metric_exists(metric: Metric, source: Source) -> None:
    assert source.probes
    assert set(source.probes) <= {probe.name for probe in PROBES}


def test_every_probe_feeds_a_metric_but_two_that_tell_contexts_and_attempts_apart() -> None:
    feeding = {probe for _, source in sources() for probe in source.probes}
    assert {probe.name for probe in PROBES} - feeding == {"migrate_device_finalize", "hmm_range_fault_locked"}


def test_what_a_source_needs_beside_probes_is_an_option_of_the_configuration_or_a_known_need() -> None:
    needed = {option for _, source in sources() for option in source.options}
    assert needed == {"histograms.migration_phases", *NEEDS}
    assert hasattr(Histograms(), "migration_phases")


def test_what_is_told_by_direction_or_device_needs_pages_and_what_is_read_of_arrays_needs_them_too() -> None:
    for metric, source in sources():
        if "direction" in metric.labels:
            assert set(source.options) == {"pages", "devices"}, metric.name
        if source.table in (tables.MIGRATION, tables.PROCESS_MIGRATION) and source.column not in OF_CALLS:
            assert "pages" in source.options, metric.name


OF_CALLS = {"started", "empty", "completed", "requested_bytes", "fault_stall_ns"}
"""What is known without reading an array, and so under lockdown, too."""


def test_an_array_column_is_taken_element_by_element_and_each_once() -> None:
    arrays = {(table.name, value.name): value.by for table in tables.ROW_TABLES for value in table.values if value.by}
    assert set(arrays.values()) == {Direction}
    for metric, source in sources():
        by = arrays.get((source.table.name, source.column))
        assert (source.element is None) == (by is None), metric.name
        if by and source.element is not None:
            assert source.labels == {"direction": by(source.element).name}
    for metric in METRICS:
        elements = [source.element for source in metric.sources if source.element is not None]
        assert elements in ([], list(Direction)), metric.name


# Which label sets of the node tier's counters are shown at 0. A migration is booked without device
# when it begins, and with one, as a rule, when it ends; by reason and direction most never occur.
SHOWN_AT_ZERO = {
    "hmm_migrations_started_total": Zeros.without_device,
    "hmm_migration_failures_total": Zeros.never,
    "hmm_migrations_empty_total": Zeros.without_device,
    "hmm_migrations_completed_total": Zeros.with_device,
    "hmm_migration_requested_bytes_total": Zeros.with_device,
    "hmm_migration_phase_seconds_total": Zeros.never,
    "hmm_migration_collected_bytes_total": Zeros.with_device,
    "hmm_migration_zero_filled_bytes_total": Zeros.never,
    "hmm_migrations_aborted_total": Zeros.other,
    "hmm_migrations_partial_total": Zeros.other,
    "hmm_migrations_huge_total": Zeros.never,
    "hmm_migration_moved_bytes_total": Zeros.other,
    "hmm_migration_moved_huge_bytes_total": Zeros.never,
    "hmm_migration_unmoved_bytes_total": Zeros.never,
    "hmm_migration_returned_bytes_total": Zeros.other,
    "hmm_device_range_migrations_total": Zeros.other,
}


def test_every_counter_of_migrations_and_devices_says_which_zeros_it_shows_and_all_others_show_every_one() -> None:
    shown = {metric.name: metric.zeros for metric in METRICS if metric.type is Type.COUNTER}
    assert {name: zeros for name, zeros in shown.items() if zeros is not Zeros.every} == SHOWN_AT_ZERO
    by_device = {metric.name for metric, source in sources() if source.table is tables.MIGRATION}
    assert by_device <= set(SHOWN_AT_ZERO)


def test_no_histogram_is_shown_before_it_has_counted() -> None:
    assert {metric.zeros for metric in METRICS if metric.type is Type.HISTOGRAM} == {Zeros.never}


def test_every_column_of_every_row_is_part_of_a_metric() -> None:
    used = {(source.table.name, column) for _, source in sources() for column in (source.column, source.sum)}
    exporters_own = {("owner", "stack"), ("driver", "seen")}
    unused = {(table.name, value.name) for table in tables.ROW_TABLES for value in table.values} - used
    assert unused == exporters_own


def test_every_event_and_every_failing_function_is_part_of_a_metric() -> None:
    events = [source.where["event"] for _, source in sources() if source.table is tables.EVENT]
    assert sorted(events) == sorted(Event)
    failing = [source.where["function"] for _, source in sources() if source.table is tables.FAILURE]
    assert sorted(failing) == sorted(Failure)


def test_no_column_is_counted_twice_in_one_metric() -> None:
    for metric in METRICS:
        picks = [(s.table.name, s.column, s.element, *sorted(s.where.items())) for s in metric.sources]
        assert len(picks) == len(set(picks)), metric.name


def test_the_errors_that_each_function_can_return_have_a_series_from_the_first_scrape() -> None:
    stated: dict[str, set[str]] = {}
    for metric, source in sources():
        if source.errnos:
            stated.setdefault(metric.name, set()).update(source.errnos)
    assert stated == ERRORS


def test_every_stated_error_is_a_symbol_of_the_kernel() -> None:
    symbols = {name for names in ERRORS.values() for name in names}
    assert {name for name in symbols if not hasattr(errno, name) and name not in CONSTANTS} == set()


def test_a_failure_metric_of_the_node_tier_states_its_errors() -> None:
    for metric, source in sources():
        if source.table is tables.FAILURE:
            assert source.errnos, metric.name


@pytest.mark.parametrize(
    ("label", "values"),
    [
        ("class", ["prefetch", "fault_back", "evict", "unclassified"]),
        ("trigger", ["cpu_fault", "nested", "kthread", "syscall"]),
        ("intent", ["snapshot", "read", "write", "per_page"]),
        ("phase", ["setup", "driver_prepare", "commit", "driver_complete", "finalize"]),
        ("event", ["migrate", "exclusive"]),
        ("context", ["other", "hmm"]),
        ("direction", ["host_to_host", "host_to_device", "device_to_host", "device_to_device"]),
    ],
)
def test_a_label_with_known_values_has_those_of_the_contract(label: str, values: list[str]) -> None:
    found: list[list[str]] = []
    for metric, source in sources():
        if label in source.labels:
            if source.labels[label] not in [each for one in found for each in one]:
                found.append([source.labels[label]])
        elif label in metric.labels:
            domain = next(key.domain for key in source.table.keys if key.name == metric.labels[label])
            assert domain
            found.append([member.name for member in domain])
    assert found in ([values] * len(found), [[value] for value in values])
    assert found


def test_functions_are_called_as_the_kernel_calls_them() -> None:
    functions = {member.name for domain in (values.DeviceFunction, values.RangeFunction) for member in domain} | {
        source.labels["function"] for _, source in sources() if "function" in source.labels
    }
    assert functions == {
        "migrate_device_range",
        "migrate_device_pfns",
        "hmm_range_fault",
        "hmm_range_fault_unlocked_timeout",
    }
    for _, source in sources():
        if source.table in (tables.DEVICE_RANGE, tables.RANGE_FAULT):
            (probe,) = source.probes
            domain = next(key.domain for key in source.table.keys if key.name == "function")
            assert domain
            assert domain(source.where["function"]).name == probe


def test_arrays_exist_at_zero_so_that_only_they_and_stated_errors_need_no_event() -> None:
    # What a scrape shows before anything has happened: everything without an open label.
    closed = {metric.name for metric, source in sources() if source.table.kind is Kind.ARRAY}
    assert {name for name, (_, labels) in CONTRACT.items() if not labels} <= closed


def test_reasons_are_those_of_the_contract() -> None:
    reasons: dict[str, list[str]] = {}
    for metric, source in sources():
        if "reason" in metric.labels:
            reasons.setdefault(metric.name, []).append(source.labels["reason"])
            # Its column says so, too: what one reason counted is never another's.
            assert source.column in (source.labels["reason"], f"{source.labels['reason']}_bytes")
    assert reasons == {
        "hmm_migration_unmoved_bytes_total": ["not_selected", "busy", "no_destination", "commit_failed", "not_read"],
        "hmm_range_fault_ebusy_total": ["raced", "own_fault", "lock_dropped"],
    }
