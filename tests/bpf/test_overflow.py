# SPDX-License-Identifier: Apache-2.0
"""What finds no row is booked as `other`: totals stay exact, and it is said how much it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bpf import expected
from tests.exposition import Labels, Samples
from tests.process import Exporter, issue_exactly

EVENTS = 5000
OPEN_LABELS = ("pgmap_owner", "device", "driver", "comm", "caller")
LIMITS = {"owners": 2, "drivers": 3, "processes": 4, "callers": 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], Samples]]:
    settings = {"probes": {"groups": {"per_page": True}}, "limits": LIMITS}
    with Exporter(tmp_path_factory.mktemp("overflow"), settings) as exporter:
        yield issue_exactly(EVENTS), exporter.scrape()


def _without_open_labels(counts: dict[Labels, float] | Counter[Labels]) -> Counter[Labels]:
    summed: Counter[Labels] = Counter()
    for its, value in counts.items():
        summed[frozenset((name, text) for name, text in its if name not in OPEN_LABELS)] += int(value)
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
