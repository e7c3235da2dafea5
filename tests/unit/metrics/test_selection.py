# SPDX-License-Identifier: Apache-2.0
"""How a metric picks rows and names their label sets, and when it exists at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from hmm_exporter.bpf.maps import Row
from hmm_exporter.catalog import tables
from hmm_exporter.catalog.metric import Metric
from hmm_exporter.catalog.metrics import METRICS
from hmm_exporter.catalog.values import OTHER_POINTER, USUAL_TRIGGER, Class, Failure, RangeFunction, Trigger
from hmm_exporter.metrics.selection import OPEN_LABELS, Selected, select
from tests.unit.metrics.exposed import DEVICES, EVERYTHING, names_with

BY_NAME = {metric.name: metric for metric in METRICS}


def selected(folder: Path, name: str, attached: frozenset[str] = EVERYTHING) -> Selected:
    found = select(BY_NAME[name], attached, names_with(folder, devices=DEVICES))
    assert found
    return found


# What a kernel with one of these probes alone can say. A figure that nobody counts is absent.
FED_BY = {
    frozenset[str](): set[str](),
    frozenset({"migrate_vma_setup"}): {
        "hmm_migrations_started_total",
        "hmm_migration_failures_total",
        "hmm_migrations_empty_total",
        "hmm_migration_requested_bytes_total",
        "hmm_migration_request_size_bytes",
        "hmm_process_migrations_total",
        "hmm_process_migration_failures_total",
        "hmm_process_requested_bytes_total",
    },
    frozenset({"hmm_range_fault"}): {
        "hmm_range_faults_total",
        "hmm_range_fault_failures_total",
        "hmm_range_fault_size_bytes",
        "hmm_range_fault_duration_seconds",
        "hmm_range_fault_ebusy_callers_total",
        "hmm_process_range_faults_total",
        "hmm_process_range_fault_failures_total",
    },
    frozenset({"mmu_interval_notifier_insert_locked"}): {
        "hmm_interval_notifier_inserts_total",
        "hmm_interval_notifier_insert_failures_total",
        "hmm_process_interval_notifier_inserts_total",
    },
    frozenset({"migrate_device_pfns"}): {"hmm_device_range_migrations_total", "hmm_device_range_size_bytes"},
    frozenset({"set_migration_pte"}): {"hmm_migration_ptes_set_total"},
    frozenset({"migrate_device_finalize"}): set(),
}


@pytest.mark.parametrize("attached", FED_BY, ids=lambda attached: "+".join(sorted(attached)) or "nothing")
def test_a_metric_is_there_when_its_probes_are_attached_and_absent_otherwise(
    tmp_path: Path, attached: frozenset[str]
) -> None:
    names = names_with(tmp_path)
    assert {metric.name for metric in METRICS if select(metric, attached, names)} == FED_BY[attached]


@pytest.mark.parametrize("missing", ["migrate_vma_setup", "migrate_vma_pages", "migrate_vma_finalize"])
def test_phases_are_there_only_when_all_three_functions_are_watched(tmp_path: Path, missing: str) -> None:
    metric = BY_NAME["hmm_migration_phase_seconds_total"]
    assert select(metric, EVERYTHING - {missing}, names_with(tmp_path)) is None


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_is_there_when_everything_is_attached(tmp_path: Path, metric: Metric) -> None:
    assert select(metric, EVERYTHING, names_with(tmp_path))


def test_a_metric_of_two_functions_has_only_the_one_that_is_watched(tmp_path: Path) -> None:
    found = selected(tmp_path, "hmm_range_faults_total", frozenset({"hmm_range_fault"}))
    assert [selection.where for selection in found.selections] == [((1, RangeFunction.hmm_range_fault),)]
    assert len(selected(tmp_path, "hmm_range_faults_total").selections) == 2


def test_a_selection_takes_rows_of_its_function_only(tmp_path: Path) -> None:
    (selection,) = selected(tmp_path, "hmm_migration_failures_total").selections
    key = (OTHER_POINTER, 22, Failure.migration, Class.evict, Trigger.kthread)
    assert selection.matches(key)
    assert not selection.matches((*key[:2], Failure.range_fault, *key[3:]))
    assert selection.labels(key) == ("evict", "kthread", "other", "none", "EINVAL")


def test_a_selection_takes_its_column_and_a_histograms_sum(tmp_path: Path) -> None:
    row = Row((0, 0, 0), tuple(range(tables.MIGRATION_HISTOGRAM.words)))
    (empty,) = selected(tmp_path, "hmm_migrations_empty_total").selections
    (size,) = selected(tmp_path, "hmm_migration_request_size_bytes").selections
    (moved,) = selected(tmp_path, "hmm_migration_moved_size_bytes").selections
    (duration,) = selected(tmp_path, "hmm_migration_duration_seconds").selections
    # duration_ns, five phases, requested and moved bytes, then three histograms.
    assert size.words(row) == [*range(8, 34), 6]
    assert moved.words(row) == [*range(34, 60), 7]
    assert duration.words(row) == [*range(60, 86), 0]
    # started, empty, ...
    assert empty.words(row) == [1]


def test_errors_that_a_function_can_return_exist_at_zero_for_every_known_label(tmp_path: Path) -> None:
    assert set(selected(tmp_path, "hmm_migration_failures_total").zeros) == {
        (each.name, USUAL_TRIGGER[each.name].name, "other", "none", "EINVAL") for each in Class
    }
    assert selected(tmp_path, "hmm_range_fault_failures_total", frozenset({"hmm_range_fault"})).zeros == tuple(
        ("hmm_range_fault", "other", name) for name in ("EBUSY", "EFAULT", "EPERM", "EINVAL", "ENOMEM", "EINTR")
    )
    assert selected(tmp_path, "hmm_huge_fault_failures_total").zeros == (("VM_FAULT_SIGBUS",), ("VM_FAULT_OOM",))


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_the_process_tier_has_no_series_before_its_events(tmp_path: Path, metric: Metric) -> None:
    if metric.per_process:
        assert selected(tmp_path, metric.name).zeros == ()


def test_a_label_set_as_other_keeps_what_is_known_beforehand(tmp_path: Path) -> None:
    started = selected(tmp_path, "hmm_migrations_started_total")
    assert started.as_other(("evict", "kthread", "amdgpu-1", "none")) == ("evict", "kthread", "other", "other")
    failures = selected(tmp_path, "hmm_migration_failures_total")  # their device is none, whatever it is a failure of
    assert failures.as_other(("evict", "kthread", "amdgpu-1", "none", "EINVAL"))[2:] == ("other", "none", "EINVAL")
    callers = selected(tmp_path, "hmm_range_fault_ebusy_callers_total")
    assert callers.as_other(("amdgpu", "svm_range_restore_pages")) == ("other", "other")
    from_the_cgroup = {"namespace", "pod", "container", "slurm_job"}
    assert {"pgmap_owner", "device", "driver", "comm", "pid", "caller"} | from_the_cgroup == OPEN_LABELS


def test_a_histograms_bounds_are_exact_decimals_and_end_in_infinity(tmp_path: Path) -> None:
    sizes = selected(tmp_path, "hmm_migration_request_size_bytes").bounds
    times = selected(tmp_path, "hmm_migration_duration_seconds").bounds
    assert (sizes[0], sizes[-2], sizes[-1], len(sizes)) == ("4096.0", "68719476736.0", "+Inf", 26)
    assert (times[0], times[-2], times[-1], len(times)) == ("9.5367431640625e-07", "16.0", "+Inf", 26)
    assert [float(bound) for bound in sizes[:-1]] == [2.0**at for at in range(12, 37)]
    assert [float(bound) for bound in times[:-1]] == [2.0**at for at in range(-20, 5)]


def test_a_histogram_is_28_series_and_a_counter_one(tmp_path: Path) -> None:
    assert selected(tmp_path, "hmm_migration_request_size_bytes").series == 28
    assert selected(tmp_path, "hmm_migrations_started_total").series == 1
