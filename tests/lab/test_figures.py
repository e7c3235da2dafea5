# SPDX-License-Identifier: Apache-2.0
"""Tier 3: the figures of every one of the kernel's hmm-tests, on a real kernel, are the predicted ones.

By fentry and fexit, and once more by kprobe and kretprobe; with huge pages never and always.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import pytest

from tests.exposition import Labels, Samples, buckets, cumulative, labels
from tests.lab import guest, prediction, prediction_moves
from tests.lab.conftest import GuestExporter
from tests.lab.prediction import Prediction
from tests.lab.vm import VirtualMachine

PREDICTIONS = prediction.read()
BYTES_BOUNDS = [2**exponent for exponent in range(12, 37)]
# Which owner or intent it is is tested where it matters; a prediction does not tell them.
UNPREDICTED = frozenset({"pgmap_owner", "intent"})
# Predicted where pages arrive or leave; that all else is booked to the same device, the books show.
BY_DEVICE = frozenset(
    {
        "hmm_migration_moved_bytes_total",
        "hmm_migration_moved_huge_bytes_total",
        "hmm_migration_zero_filled_bytes_total",
        "hmm_migration_returned_bytes_total",
        "hmm_device_residency_seconds_count",
        "hmm_device_range_moved_bytes_total",
    }
)


def moved(samples: Samples, metric: str) -> Counter[Labels]:
    """Label sets whose value increased, without labels that predictions do not tell."""
    untold = UNPREDICTED if metric in BY_DEVICE else UNPREDICTED | {"device"}
    return without(samples, metric, untold)


def without(samples: Samples, metric: str, untold: Collection[str]) -> Counter[Labels]:
    counts: Counter[Labels] = Counter()
    for its, value in samples.nonzero(metric).items():
        if ("device", prediction_moves.THIRD) in its:
            its = its - {("device", prediction_moves.THIRD)} | {("device", prediction_moves.DEVICES["@new"])}
        counts[frozenset(pair for pair in its if pair[0] not in untold)] += int(value)
    return counts


def test_all_probes_of_this_kernel_are_attached_as_told(exporter: GuestExporter) -> None:
    info = [dict(its) for its in exporter.scrape().named("hmm_exporter_probe_info")]
    allowed = {"fentry": {"fentry", "fexit"}, "kprobe": {"kprobe", "kretprobe"}}[exporter.attach] | {"tracepoint"}
    present = [probe for probe in info if probe["state"] != "absent"]
    assert {probe["probe"] for probe in info if probe not in present} == prediction.ABSENT
    assert {probe["state"] for probe in present} == {"attached"}
    # fexit and kretprobe stand alone where a probe has no entry, which those of 6.x all have.
    assert {exporter.attach, "tracepoint"} <= {probe["kind"] for probe in present} <= allowed


def test_no_test_of_the_kernel_is_left_out(machine: VirtualMachine) -> None:
    known = {each.test for each in PREDICTIONS}
    assert set(guest.list_hmm_tests(machine)) == known


@pytest.mark.parametrize("of", PREDICTIONS, ids=lambda of: f"{of.huge_pages}-{of.test.rpartition('.')[2]}")
def test_figures_are_the_predicted_ones(exporter: GuestExporter, machine: VirtualMachine, of: Prediction) -> None:
    guest.transparent_hugepages(machine, "always" if of.huge_pages == "always" else "never")
    outcome, after, since = exporter.measured(of.test, lambda: guest.hmm_test(machine, of.test))

    assert outcome.ended == of.outcome, outcome.output
    if of.test in prediction.RACES:
        assert {dict(its)["errno"] for its in moved(since, "hmm_range_fault_failures_total")} <= {"EFAULT", "EBUSY"}
        check_books(after, since)
        return
    of = prediction.with_lost_races(of, int(since.sum("hmm_range_fault_failures_total", errno="EBUSY")))
    for metric, counts in (prediction.counters(of) | prediction_moves.counters(of)).items():
        assert moved(since, metric) == counts, metric
    for metric, word in (("set", "pte_set"), ("removed", "pte_removed")):
        assert since.sum(f"hmm_migration_ptes_{metric}_total", context="hmm") == of.number(word), metric
    check_histograms(since, of)
    check_returns(since, of)
    check_books(after, since)


def check_returns(since: Samples, of: Prediction) -> None:
    """Thrash. What comes back at an address or in a process where it did not arrive has no known arrival, unless an
    earlier test's process had one at this address, and its struct mm_struct was at the same place: it may then count.
    """
    returned, stays = prediction_moves.returned(of), prediction_moves.by_device(of, "residency")
    strayed = prediction_moves.by_device(of, "fault_back.strayed")
    for device in prediction_moves.DEVICES.values():
        its = labels(device=device)
        pages = moved(since, "hmm_migration_returned_bytes_total")[its] // prediction.PAGE
        regions = moved(since, "hmm_device_residency_seconds_count")[its]
        assert 0 <= pages - returned.get(device, 0) <= strayed.get(device, 0)
        assert 0 <= regions - stays.get(device, 0) <= strayed.get(device, 0)
    assert since.sum("hmm_process_returned_bytes_total", comm="hmm-tests") == since.sum(
        "hmm_migration_returned_bytes_total"
    )
    if not strayed:
        assert since.sum("hmm_exporter_residency_misses_total") == 0


def check_histograms(since: Samples, of: Prediction) -> None:
    for metric, sizes in prediction.histogram_counts(of).items():
        summed: Counter[str] = Counter()
        for les in buckets(since, metric).values():
            summed.update({le: int(value) for le, value in les.items()})
        nothing_yet = [0] * (len(BYTES_BOUNDS) + 1)
        assert (list(summed.values()) or nothing_yet) == cumulative(sizes.items(), BYTES_BOUNDS), metric
        assert since.sum(f"{metric}_sum") == sum(size * calls for size, calls in sizes.items()), metric
    migrations, copied = prediction_moves.moved_sizes(of)
    assert since.sum("hmm_migration_moved_size_bytes_count") == migrations
    assert since.sum("hmm_migration_moved_size_bytes_sum") == copied
    faults = since.sum("hmm_range_faults_total")
    assert since.sum("hmm_range_fault_size_bytes_count") == faults
    assert since.sum("hmm_range_fault_duration_seconds_count") == faults
    completed = since.sum("hmm_migrations_completed_total")
    assert since.sum("hmm_migration_duration_seconds_count") == completed
    # test_hmm always calls migrate_vma_pages, so that the five phases are the whole of the duration.
    assert since.sum("hmm_migration_phase_seconds_total") == pytest.approx(
        since.sum("hmm_migration_duration_seconds_sum"), abs=1e-6
    )


def check_books(after: Samples, since: Samples) -> None:
    assert after.get("hmm_exporter_books_balanced") == 1
    assert after.get("hmm_exporter_migrations_in_flight") == 0
    assert after.get("hmm_exporter_map_entries", map="thread") == 0
    assert since.sum("hmm_migrations_started_total") == since.sum("hmm_migrations_empty_total") + since.sum(
        "hmm_migrations_completed_total"
    )
    # By device and owner, too, and trigger, for what moved has a direction and no class.
    requested, moved, filled, unmoved = (
        without(since, f"hmm_migration_{name}_bytes_total", {"class", "direction", "reason"})
        for name in ("requested", "moved", "zero_filled", "unmoved")
    )
    assert requested == moved + filled + unmoved


def test_each_device_of_test_hmm_is_an_owner_of_its_own_name(exporter: GuestExporter, machine: VirtualMachine) -> None:
    guest.transparent_hugepages(machine, "never")
    guest.reload_test_hmm(machine)
    before = exporter.scrape()
    guest.hmm_test(machine, "hmm2.hmm2_device_private.migrate_mixed")
    since = exporter.scrape().since(before)
    owners = {dict(its)["pgmap_owner"] for its in since.nonzero("hmm_migrations_started_total")}
    assert owners <= {"test_hmm-0", "test_hmm-1", "test_hmm-2", "test_hmm-3"}
    assert len(owners) == 2


def test_memory_of_the_daemon_holds_no_compiler(exporter: GuestExporter, machine: VirtualMachine) -> None:
    maps = machine.run(f"cat /proc/{exporter.process.pid}/maps").stdout
    assert "python3" in maps
    for library in ("libLLVM", "libclang", "libbcc", "libbpf"):
        assert library not in maps
