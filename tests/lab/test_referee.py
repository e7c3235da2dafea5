# SPDX-License-Identifier: Apache-2.0
"""The bpftrace script watches the same tests in the same machine: equal where it is right, else wrong as known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.exposition import Samples
from tests.lab import guest, hmm_snoop, prediction
from tests.lab.conftest import GuestExporter
from tests.lab.hmm_snoop import HmmSnoop, events, total
from tests.lab.vm import VirtualMachine

# One kind of probe is enough here: test_figures.py shows that both count the same.
pytestmark = pytest.mark.parametrize("exporter", ["fentry"], indirect=True, scope="session")

CLASSES = {
    "cpu->dev (prefetch) ": "prefetch",
    "dev->cpu (fault-back) ": "fault_back",
    "dev->cpu (driver evict)": "evict",
    "unclassified ": "unclassified",
}


@dataclass(frozen=True)
class Seen:
    """What both saw of the same tests."""

    script: dict[str, Any]
    ours: Samples

    def scalar(self, name: str) -> int:
        return total(self.script.get(name, 0))


@pytest.fixture(scope="module", params=["always", "never"])
def seen(request: pytest.FixtureRequest, machine: VirtualMachine, exporter: GuestExporter) -> Iterator[Seen]:
    script = hmm_snoop.find()
    if script is None:
        pytest.skip("no hmm-snoop.bt: name it in HMM_SNOOP to compare with it")
    guest.transparent_hugepages(machine, request.param)
    guest.reload_test_hmm(machine)
    with HmmSnoop(machine, script) as snoop:
        before = exporter.scrape()
        for test in dict.fromkeys(each.test for each in prediction.read()):
            guest.hmm_test(machine, test)
        after = exporter.scrape()
        yield Seen(snoop.stop(), after.since(before))


def test_migrations_by_class_are_the_same(seen: Seen) -> None:
    by_class = {CLASSES[name]: count for name, count in seen.script["mig_setup_by_class"].items()}
    for name in CLASSES.values():
        assert seen.ours.sum("hmm_migrations_started_total", **{"class": name}) == by_class.get(name, 0)
    assert by_class["prefetch"] > 50


def test_requests_are_the_same(seen: Seen) -> None:
    assert seen.ours.sum("hmm_migration_request_size_bytes_count") == events(seen.script["mig_setup_pages_requested"])


def test_finalizes_are_the_same_but_for_empty_migrations_that_the_script_counts_too(seen: Seen) -> None:
    # It keeps a migration that collected nothing, and finalize of test_hmm comes all the same.
    empty = seen.ours.sum("hmm_migrations_empty_total")
    assert seen.ours.sum("hmm_migrations_completed_total") + empty == seen.scalar("mig_finalize_total")
    assert empty > 0


def test_processes_are_the_same(seen: Seen) -> None:
    # test_hmm works in the process that owns the memory, so `current` is right here.
    for name, its_class in (
        ("mig_cpu2dev_by_proc", "prefetch"),
        ("mig_dev2cpu_flt_by_proc", "fault_back"),
        ("mig_dev2cpu_drv_by_proc", "evict"),
    ):
        ours = seen.ours.sum("hmm_process_migrations_total", comm="hmm-tests", **{"class": its_class})
        assert ours == seen.scalar(name), name


def test_range_faults_are_the_same_without_the_function_that_the_script_does_not_know(seen: Seen) -> None:
    assert seen.ours.sum("hmm_range_faults_total", function="hmm_range_fault") == seen.scalar("hrf_total")
    unknown = "hmm_range_fault_unlocked_timeout"
    assert (seen.ours.sum("hmm_range_faults_total", function=unknown) > 0) == (unknown not in prediction.ABSENT)
    assert seen.ours.sum("hmm_range_faults_total", intent="write") == seen.scalar("hrf_write")
    assert seen.ours.sum("hmm_range_fault_duration_seconds_count", function="hmm_range_fault") == events(
        seen.script["hrf_latency_us"]
    )


def test_errors_of_range_faults_are_the_same(seen: Seen) -> None:
    returned = {int(result): count for result, count in seen.script["hrf_ret"].items()}
    for result, errno in ((-16, "EBUSY"), (-14, "EFAULT"), (-1, "EPERM")):
        ours = seen.ours.sum("hmm_range_fault_failures_total", function="hmm_range_fault", errno=errno)
        assert ours == returned.get(result, 0), errno
        assert ours > 0
    assert seen.ours.sum("hmm_range_fault_ebusy_callers_total") == seen.scalar("hrf_ebusy_stacks")


def test_the_rest_is_the_same(seen: Seen) -> None:
    for metric, labels, name in (
        ("hmm_device_range_migrations_total", {"function": "migrate_device_range"}, "bulk_teardown_range"),
        ("hmm_device_range_migrations_total", {"function": "migrate_device_pfns"}, "bulk_teardown_pfns"),
        ("hmm_device_exclusive_total", {}, "dev_exclusive_total"),
        ("hmm_device_exclusive_restores_total", {}, "dev_exclusive_restore"),
        ("hmm_interval_notifier_inserts_total", {}, "mmu_interval_insert"),
        ("hmm_interval_notifier_removes_total", {}, "mmu_interval_remove"),
        ("hmm_mmu_notifier_invalidations_total", {"event": "migrate"}, "mmu_notify_migrate"),
        ("hmm_mmu_notifier_invalidations_total", {"event": "exclusive"}, "mmu_notify_exclusive"),
        ("hmm_migration_ptes_set_total", {}, "pte_set_migration"),
        ("hmm_migration_ptes_removed_total", {}, "pte_remove_migration"),
    ):
        assert seen.ours.sum(metric, **labels) == seen.scalar(name), name


def test_huge_faults_are_half_of_what_the_script_counts_because_each_runs_twice(seen: Seen) -> None:
    handled = seen.ours.sum("hmm_huge_faults_total")
    assert handled + seen.ours.sum("hmm_huge_fault_retries_total") == seen.scalar("cpu_fault_thp")
    assert seen.scalar("cpu_fault_thp") == 2 * handled
    assert (handled > 0) == ("do_huge_pmd_device_private" not in prediction.ABSENT)
