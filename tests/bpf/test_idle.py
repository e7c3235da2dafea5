# SPDX-License-Identifier: Apache-2.0
"""Rows end when they were idle for the TTL, on real maps: series vanish, nothing moves, books balance."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bpf.watched import Watched, watched_simulator
from tests.exposition import Samples
from tests.process import issue_exactly


@pytest.fixture
def watched() -> Iterator[Watched]:
    with watched_simulator() as inside:
        yield inside


def started(samples: Samples) -> float:
    return samples.sum("hmm_migrations_started_total")


def test_rows_stay_until_they_were_idle_for_the_ttl_and_then_their_series_end(watched: Watched) -> None:
    issue_exactly(2000)
    before = watched.scrape()
    assert started(before) == 2000
    watched.scraper.sweep()
    watched.clock.now += watched.ttl - 1
    watched.scraper.sweep()
    assert watched.scrape().sum("hmm_migrations_started_total") == 2000
    watched.clock.now += 1
    watched.scraper.sweep()
    after = watched.scrape()
    # NULL is no owner that could go, and the overflow rows are for ever.
    assert {dict(its)["pgmap_owner"] for its in after.named("hmm_migrations_started_total")} == {"none", "other"}
    assert after.named("hmm_process_migrations_total") == {}
    assert after.named("hmm_process_range_faults_total") == {}
    assert {dict(its)["driver"] for its in after.named("hmm_range_faults_total")} == {"other"}
    assert after.get("hmm_exporter_map_entries", map="process") == 1
    assert after.get("hmm_exporter_books_balanced") == 1
    assert after.get("hmm_exporter_migrations_abandoned_total") == before.get("hmm_exporter_migrations_abandoned_total")


def test_what_goes_on_keeps_its_rows(watched: Watched) -> None:
    issue_exactly(2000)
    watched.scraper.sweep()
    for _ in range(3):
        watched.clock.now += watched.ttl / 2
        issue_exactly(500)
        watched.scraper.sweep()
    assert started(watched.scrape()) == 3500


def test_who_comes_back_begins_a_new_series_at_zero_and_owners_get_new_numbers(watched: Watched) -> None:
    issue_exactly(2000)
    names = {dict(its)["pgmap_owner"] for its in watched.scrape().nonzero("hmm_migrations_started_total")}
    watched.end_what_is_idle()
    issue_exactly(2000)
    samples = watched.scrape()
    again = {dict(its)["pgmap_owner"] for its in samples.nonzero("hmm_migrations_started_total")}
    assert {"amdgpu-1", "amdgpu-2"} <= names
    assert {"amdgpu-3", "amdgpu-4"} <= again
    assert not {"amdgpu-1", "amdgpu-2"} & again
    assert samples.get("hmm_exporter_books_balanced") == 1
    assert samples.nonzero("hmm_exporter_label_overflow_events_total") == {}
