# SPDX-License-Identifier: Apache-2.0
"""The exporter's inside on the simulator, in this process, with a clock that the test moves.

For what takes an hour by the clock. What a running daemon does is asked of `tests.process.Exporter`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest

from hmm_exporter.bpf.attach import attach
from hmm_exporter.bpf.plan import choose
from hmm_exporter.catalog.probes import GROUPS
from hmm_exporter.config import Config, Probes, Seconds
from hmm_exporter.kernel.simulated import simulated_kernel
from hmm_exporter.metrics.idle import Idle
from hmm_exporter.metrics.scrape import Scrape
from tests.exposition import Samples
from tests.process import SIMULATOR


class Clock:
    """Monotonic seconds that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Watched:
    scraper: Scrape
    clock: Clock
    ttl: float
    registry: CollectorRegistry

    def scrape(self) -> Samples:
        return Samples.parse(generate_latest(self.registry).decode())

    def end_what_is_idle(self) -> None:
        self.scraper.sweep()
        self.clock.now += self.ttl
        self.scraper.sweep()


@contextlib.contextmanager
def watched_simulator(config: Config | None = None) -> Iterator[Watched]:
    """With every group of probes, and else as configured."""
    groups = Probes(groups={group.name: True for group in GROUPS})
    config = replace(config or Config(), probes=groups, series_from_zero=Seconds(0.0))
    kernel = simulated_kernel(Path(SIMULATOR))
    plan, left_out = choose(kernel, config)
    attachments = attach(kernel, config, plan)
    attachments.outcomes += left_out
    assert attachments.maps
    clock, ttl = Clock(), config.limits.idle_ttl
    scrape = Scrape(kernel, config, attachments, ready_seconds=0)
    scrape._idle = Idle(attachments.maps, ttl, clock, ended=scrape._collector.end)
    registry = CollectorRegistry()
    registry.register(scrape)
    try:
        yield Watched(scrape, clock, ttl, registry)
    finally:
        attachments.close()
