# SPDX-License-Identifier: Apache-2.0
"""Every figure of stage 2 against what the simulator issued: what moved, what did not, what came back."""

from __future__ import annotations

from tests.bpf import expected, expected_moves
from tests.bpf.exact_run import Run
from tests.exposition import buckets, cumulative, labels


def test_every_counter_of_what_moved_equals_what_was_issued(run: Run) -> None:
    compared = 0
    for name, counts in expected_moves.counters(run.issued, run.owners):
        assert run.after.nonzero(name) == counts, name
        compared += len(counts)
    assert compared > 300


def test_every_direction_and_every_reason_occurs(run: Run) -> None:
    for direction in expected_moves.DIRECTIONS:
        assert run.after.sum("hmm_migration_moved_bytes_total", direction=direction) > 0
        assert run.after.sum("hmm_migration_moved_huge_bytes_total", direction=direction) > 0
    for reason in expected_moves.REASONS:
        assert run.after.sum("hmm_migration_unmoved_bytes_total", reason=reason) > 0


def test_requested_is_moved_and_zero_filled_and_unmoved(run: Run) -> None:
    assert run.after.sum("hmm_migration_requested_bytes_total") == (
        run.after.sum("hmm_migration_moved_bytes_total")
        + run.after.sum("hmm_migration_zero_filled_bytes_total")
        + run.after.sum("hmm_migration_unmoved_bytes_total")
    )
    assert run.after.get("hmm_exporter_books_balanced") == 1


def test_every_bucket_and_sum_of_the_moved_sizes_equals_what_was_issued(run: Run) -> None:
    for name, sizes_by_labels in expected_moves.size_histograms(run.issued, run.owners):
        exposed = {its: les for its, les in buckets(run.after, name).items() if les["+Inf"]}
        assert set(exposed) == set(sizes_by_labels), name
        for its, sizes in sizes_by_labels.items():
            assert list(exposed[its].values()) == cumulative(sizes.items(), expected.BYTES_BOUNDS), (name, its)
            assert run.after.get(f"{name}_sum", **dict(its)) == sum(size * number for size, number in sizes.items())


def test_residencies_are_counted_and_lie_between_what_the_simulator_measured_inside_and_outside(run: Run) -> None:
    name = "hmm_device_residency_seconds"
    exposed = {its: les["+Inf"] for its, les in buckets(run.after, name).items() if les["+Inf"]}
    residencies = expected_moves.residencies(run.issued)
    assert exposed == {its: count for its, (count, _, _) in residencies.items()}
    for its, (_, least, most) in residencies.items():
        assert least <= run.after.get(f"{name}_sum", **dict(its)) <= most


def test_each_device_that_moved_pages_is_described(run: Run) -> None:
    described = {dict(its)["device"] for its in run.after.named("hmm_device_info")}
    moved = {dict(its)["device"] for its in run.after.nonzero("hmm_migration_moved_bytes_total")}
    assert moved - {"none"} <= described
    assert run.after.get("hmm_device_info", device="0000:c1:00.0", driver="", pci_bus_id="00000000:C1:00.0") == 1


def test_nothing_was_left_out_of_the_arrivals(run: Run) -> None:
    assert run.after.get("hmm_exporter_label_overflow_events_total", map="arrival") == 0
    assert labels(map="arrival") in run.after.named("hmm_exporter_label_overflow_events_total")
