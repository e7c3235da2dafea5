# SPDX-License-Identifier: Apache-2.0
"""Every figure of stage 1 against what the simulator issued: 4 threads, 100,000 of each main kind."""

from __future__ import annotations

from tests.bpf import expected
from tests.bpf.exact_run import EVENTS, Run
from tests.exposition import Labels, buckets, cumulative, labels


def test_every_probe_is_attached(run: Run) -> None:
    attached = run.after.named("hmm_exporter_probe_attached")
    assert len(attached) == 24
    assert set(attached.values()) == {1.0}


def test_every_counter_equals_what_was_issued(run: Run) -> None:
    compared = 0
    for name, counts in expected.counters(run.issued, run.owners):
        assert run.after.nonzero(name) == counts, name
        compared += len(counts)
    assert compared > 300


def test_each_main_kind_was_issued_often_enough(run: Run) -> None:
    for kind in ("migrations", "range_faults", "device_exclusives", "notifier_inserts", "dma_maps", "migration_ptes"):
        assert sum(event["count"] for event in run.issued[kind]) >= EVENTS, kind


def test_every_bucket_and_sum_of_the_size_histograms_equals_what_was_issued(run: Run) -> None:
    for name, sizes_by_labels in expected.size_histograms(run.issued, run.owners):
        exposed = {its: les for its, les in buckets(run.after, name).items() if les["+Inf"]}
        assert set(exposed) == set(sizes_by_labels), name
        for its, sizes in sizes_by_labels.items():
            counts = cumulative(sizes.items(), expected.BYTES_BOUNDS)
            assert list(exposed[its].values()) == counts, (name, its)
            assert run.after.get(f"{name}_sum", **dict(its)) == sum(size * n for size, n in sizes.items())
            assert run.after.get(f"{name}_count", **dict(its)) == counts[-1]


def _durations(run: Run, name: str) -> dict[Labels, tuple[float, float]]:
    return {
        its: (les["+Inf"], run.after.get(f"{name}_sum", **dict(its)))
        for its, les in buckets(run.after, name).items()
        if les["+Inf"]
    }


def test_durations_lie_between_what_the_simulator_measured_inside_and_outside(run: Run) -> None:
    measured = _durations(run, "hmm_migration_duration_seconds")
    timed = run.issued["timing"]["migrations"]
    assert len(measured) == len(timed)
    for timing in timed:
        its = frozenset({("class", timing["class"]), ("pgmap_owner", run.owners[timing["owner"]])})
        count, seconds = measured[its]
        assert count == timing["count"]
        assert timing["inner_ns"] / 1e9 <= seconds <= timing["outer_ns"] / 1e9


def test_range_fault_durations_are_within_what_the_simulator_measured_outside(run: Run) -> None:
    measured = _durations(run, "hmm_range_fault_duration_seconds")
    timed = run.issued["timing"]["range_faults"]
    assert len(measured) == len(timed)
    for timing in timed:
        its = frozenset({("function", timing["function"]), ("driver", timing["driver"])})
        count, seconds = measured[its]
        assert count == timing["count"]
        assert 0 < seconds <= timing["outer_ns"] / 1e9


def test_the_phases_add_up_to_the_duration_where_pages_ran(run: Run) -> None:
    seconds = run.after.sum("hmm_migration_phase_seconds_total")
    without_pages = sum(
        event["count"] for event in run.issued["migrations"] if event["outcome"] == "completed_without_pages"
    )
    total = run.after.sum("hmm_migration_duration_seconds_sum")
    assert without_pages > 0
    # Where pages never ran, the time between setup and finalize belongs to no phase.
    assert 0 < seconds < total
    for phase in ("setup", "finalize"):
        assert run.after.sum("hmm_migration_phase_duration_seconds_count", phase=phase) == run.after.sum(
            "hmm_migrations_completed_total"
        )
    for phase in ("driver_prepare", "commit", "driver_complete"):
        assert (
            run.after.sum("hmm_migration_phase_duration_seconds_count", phase=phase)
            == run.after.sum("hmm_migrations_completed_total") - without_pages
        )


def test_stalls_are_the_time_of_migrations_that_a_cpu_fault_triggered(run: Run) -> None:
    stalled = {
        expected.comm(event)
        for event in run.issued["migrations"]
        if event["trigger"] == "cpu_fault" and event["outcome"] in expected.COMPLETED
    }
    exposed = run.after.nonzero("hmm_process_fault_stall_seconds_total")
    assert {dict(its)["comm"] for its in exposed} == stalled
    assert sum(exposed.values()) <= run.after.sum("hmm_migration_duration_seconds_sum")


def test_the_books_balance_and_nothing_is_in_flight(run: Run) -> None:
    started = run.after.sum("hmm_migrations_started_total")
    failed = run.after.sum("hmm_migration_failures_total")
    empty = run.after.sum("hmm_migrations_empty_total")
    completed = run.after.sum("hmm_migrations_completed_total")
    abandoned = run.after.get("hmm_exporter_migrations_abandoned_total")
    assert abandoned == sum(e["count"] for e in run.issued["migrations"] if e["outcome"] == "abandoned") > 0
    assert run.after.get("hmm_exporter_migrations_in_flight") == 0
    assert run.after.get("hmm_exporter_map_entries", map="thread") == 0
    assert started == failed + empty + completed + abandoned
    assert run.after.get("hmm_exporter_books_balanced") == 1


def test_nothing_was_missed_but_the_ends_of_the_longest_device_ranges_and_nothing_overflowed(run: Run) -> None:
    too_long = expected.device_ranges_not_read_whole(run.issued)
    assert too_long > 0
    assert run.after.nonzero("hmm_exporter_probe_missed_total") == {labels(probe="migrate_device_pages"): too_long}
    assert run.after.nonzero("hmm_exporter_label_overflow_events_total") == {}


def test_all_counters_start_at_zero(run: Run) -> None:
    for (name, _), value in run.before.values.items():
        if name.startswith("hmm_") and not name.startswith(
            ("hmm_exporter_", "hmm_pgmap_owner_info", "hmm_device_info")
        ):
            assert value == 0, name
