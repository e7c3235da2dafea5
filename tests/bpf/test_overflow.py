# SPDX-License-Identifier: Apache-2.0
"""What finds no row is booked as `other`: totals stay exact, and it is said how much it was.

The same where a map is full: of failures, stacks, arrivals, threads.
"""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bpf import expected
from tests.exposition import Labels, Samples
from tests.process import SIMULATOR, Exporter, issue_exactly

EVENTS = 5000
OPEN_LABELS = ("pgmap_owner", "device", "driver", "comm", "caller")
LIMITS = {"owners": 2, "drivers": 3, "processes": 4, "callers": 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], Samples]]:
    settings = {"probes": {"groups": {"per_page": True}}, "limits": LIMITS}
    with Exporter(tmp_path_factory.mktemp("overflow"), settings) as exporter:
        yield issue_exactly(EVENTS), exporter.scrape()


def _without_open_labels(
    counts: dict[Labels, float] | Counter[Labels], labels: tuple[str, ...] = OPEN_LABELS
) -> Counter[Labels]:
    summed: Counter[Labels] = Counter()
    for its, value in counts.items():
        summed[frozenset((name, text) for name, text in its if name not in labels)] += int(value)
    return summed


def test_every_total_is_exact_although_most_labels_found_no_room(run: tuple[dict[str, Any], Samples]) -> None:
    issued, samples = run
    owners = dict.fromkeys({event["owner"] for event in issued["migrations"]}, "any")
    for name, counts in expected.counters(issued, owners):
        assert _without_open_labels(samples.nonzero(name)) == _without_open_labels(counts), name


@pytest.mark.parametrize(
    ("metric", "label", "limit", "always"),
    [
        ("hmm_migrations_started_total", "pgmap_owner", "owners", {"other", "none"}),
        ("hmm_interval_notifier_inserts_total", "driver", "drivers", {"other"}),
        ("hmm_process_migrations_total", "comm", "processes", {"other"}),
        ("hmm_process_range_faults_total", "comm", "processes", {"other"}),
        ("hmm_range_fault_ebusy_callers_total", "caller", "callers", {"other"}),
    ],
)
def test_no_more_values_than_the_limit_have_a_name_and_the_rest_is_other(
    run: tuple[dict[str, Any], Samples], metric: str, label: str, limit: str, always: set[str]
) -> None:
    values = {dict(its)[label] for its in run[1].nonzero(metric)}
    assert "other" in values
    assert len(values - always) <= LIMITS[limit]


def test_the_overflow_metric_counts_the_events_in_the_overflow_rows(run: tuple[dict[str, Any], Samples]) -> None:
    _, samples = run
    for table, metric, label in (
        ("migration", "hmm_migrations_started_total", "pgmap_owner"),
        ("range_fault", "hmm_range_faults_total", "driver"),
        ("process_migration", "hmm_process_migrations_total", "comm"),
    ):
        others = samples.sum(metric, **{label: "other"})
        assert samples.get("hmm_exporter_label_overflow_events_total", map=table) == others > 0, table


def test_the_books_balance(run: tuple[dict[str, Any], Samples]) -> None:
    assert run[1].get("hmm_exporter_books_balanced") == 1


def test_above_the_limit_of_series_new_label_sets_are_booked_as_other(tmp_path: Path) -> None:
    settings = {"limits": {"series": 2000}, "probes": {"groups": {"per_page": True}}}
    with Exporter(tmp_path, settings) as exporter:
        always = exporter.scrape().get("hmm_exporter_series")
        issued = issue_exactly(EVENTS)
        samples = exporter.scrape()
        again = exporter.scrape()
    assert always < 2000
    assert samples.get("hmm_exporter_series") <= 2000
    owners = dict.fromkeys({event["owner"] for event in issued["migrations"]}, "any")
    for name, counts in expected.counters(issued, owners):
        if name in samples.names():
            assert _without_open_labels(samples.nonzero(name)) == _without_open_labels(counts), name
    for name in samples.names():
        if name.startswith("hmm_") and not name.startswith("hmm_exporter_"):
            assert again.named(name) == samples.named(name), "nothing moves between series"


# The least that there may be.
CAPACITIES = {"threads": 64, "arrivals": 1024, "stacks": 16, "failures": 64}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], Samples, int, Samples]]:
    """What was issued and exposed; how many migrations of too many threads came then, and what they added."""
    with Exporter(tmp_path_factory.mktemp("full"), {"maps": CAPACITIES}) as exporter:
        issued, first = issue_exactly(EVENTS), exporter.scrape()
        # Each lasts some 40 ms, so that twice as many threads as there is room for are inside of one.
        options = {"--threads": 256, "--rate": 3000, "--seconds": 2, "--scenario": "warm-up"}
        command = [str(SIMULATOR), "run", *(str(word) for option in options.items() for word in option)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        last = exporter.scrape()
        assert last.get("hmm_exporter_books_balanced") == first.get("hmm_exporter_books_balanced") == 1
        yield issued, first, int(said.partition(" migrations")[0].split()[-1]), last.since(first)


def test_where_the_map_of_failures_is_full_each_is_counted_without_its_errno(
    full: tuple[dict[str, Any], Samples, int, Samples],
) -> None:
    issued, samples, _, _ = full
    assert samples.get("hmm_exporter_label_overflow_events_total", map="failure") > 0
    owners = dict.fromkeys({event["owner"] for event in issued["migrations"]}, "any")
    open_labels = (*OPEN_LABELS, "errno", "fault")
    for name, counts in expected.counters(issued, owners):
        if name in samples.names():
            found = _without_open_labels(samples.nonzero(name), open_labels)
            assert found == _without_open_labels(counts, open_labels), name


def test_where_the_maps_of_stacks_and_of_arrivals_are_full_that_is_counted(
    full: tuple[dict[str, Any], Samples, int, Samples],
) -> None:
    issued, samples, _, _ = full
    lost = samples.get("hmm_exporter_label_overflow_events_total", map="arrival")
    assert lost > 0
    assert samples.sum("hmm_range_fault_ebusy_callers_total", caller="other") > 0
    unknown = sum(each["count"] for each in issued["returns"] if each["result"] == "unknown")
    assert unknown < samples.get("hmm_exporter_residency_misses_total") <= unknown + lost


def test_where_the_map_of_threads_is_full_each_migration_is_counted_as_missed(
    full: tuple[dict[str, Any], Samples, int, Samples],
) -> None:
    _, _, migrations, added = full
    missed = added.sum("hmm_exporter_probe_missed_total", probe="migrate_vma_setup")
    assert 0 < missed < migrations
    assert added.sum("hmm_migrations_started_total") == migrations
    assert added.get("hmm_exporter_migrations_abandoned_total") == missed
