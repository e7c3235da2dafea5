# SPDX-License-Identifier: Apache-2.0
"""Rows end when they were idle for the TTL, on real maps: series vanish, nothing moves, books balance."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from hmm_exporter.bpf.attach import Attachments, attach
from hmm_exporter.bpf.plan import choose
from hmm_exporter.catalog.probes import GROUPS
from hmm_exporter.config import Config, Probes
from hmm_exporter.kernel.simulated import simulated_kernel
from hmm_exporter.metrics.idle import Idle
from hmm_exporter.metrics.scrape import Scrape
from tests.exposition import Samples
from tests.process import SIMULATOR, issue_exactly

CONFIG = Config(probes=Probes(groups={group.name: True for group in GROUPS}))
TTL = CONFIG.limits.idle_ttl


class Clock:
    """Monotonic seconds that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Watched:
    """The exporter's inside on the simulator, with a clock of the test's."""

    def __init__(self, attachments: Attachments, scrape: Scrape, clock: Clock) -> None:
        self.attachments = attachments
        self.scraper = scrape
        self.clock = clock
        self._registry = CollectorRegistry()
        self._registry.register(scrape)

    def scrape(self) -> Samples:
        return Samples.parse(generate_latest(self._registry).decode())


@pytest.fixture
def watched() -> Iterator[Watched]:
    kernel = simulated_kernel(Path(SIMULATOR))
    plan, left_out = choose(kernel, CONFIG)
    attachments = attach(kernel, CONFIG, plan)
    attachments.outcomes += left_out
    assert attachments.maps
    clock = Clock()
    scrape = Scrape(kernel, CONFIG, attachments, ready_seconds=0)
    scrape._idle = Idle(attachments.maps, TTL, clock)
    yield Watched(attachments, scrape, clock)
    attachments.close()


def started(samples: Samples) -> float:
    return samples.sum("hmm_migrations_started_total")


def test_rows_stay_until_they_were_idle_for_the_ttl_and_then_their_series_end(watched: Watched) -> None:
    issue_exactly(2000)
    before = watched.scrape()
    assert started(before) == 2000
    watched.scraper.sweep()
    watched.clock.now += TTL - 1
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
        watched.clock.now += TTL / 2
        issue_exactly(500)
        watched.scraper.sweep()
    assert started(watched.scrape()) == 3500


def test_who_comes_back_begins_a_new_series_at_zero_and_owners_get_new_numbers(watched: Watched) -> None:
    issue_exactly(2000)
    names = {dict(its)["pgmap_owner"] for its in watched.scrape().nonzero("hmm_migrations_started_total")}
    watched.scraper.sweep()
    watched.clock.now += TTL
    watched.scraper.sweep()
    issue_exactly(2000)
    samples = watched.scrape()
    again = {dict(its)["pgmap_owner"] for its in samples.nonzero("hmm_migrations_started_total")}
    assert {"amdgpu-1", "amdgpu-2"} <= names
    assert {"amdgpu-3", "amdgpu-4"} <= again
    assert not {"amdgpu-1", "amdgpu-2"} & again
    assert samples.get("hmm_exporter_books_balanced") == 1
    assert samples.nonzero("hmm_exporter_label_overflow_events_total") == {}
