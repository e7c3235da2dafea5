# SPDX-License-Identifier: Apache-2.0
"""The daemon's scrape, as a report needs it: with process ids, everything on, nothing ended while it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from hmm_exporter.bpf.attach import Attachments
from hmm_exporter.bpf.plan import ATTACHED, Outcome
from hmm_exporter.catalog.metric import with_process_labels
from hmm_exporter.catalog.metrics import METRICS
from hmm_exporter.catalog.probes import GROUPS
from hmm_exporter.config import Config, Histograms, Kubernetes, Seconds, Slurm
from hmm_exporter.errors import StartError
from hmm_exporter.kernel.features import Kernel
from hmm_exporter.metrics.scrape import Scrape
from hmm_exporter.report.snapshot import Snapshot, snapshot
from hmm_exporter.report.stacks import Stack, Stacks

_SERIES = 1 << 30
"""No limit: nobody has to store them."""
_PROCESSES = 256
"""At least: a process counts by its id, so that each child of a script is one."""

_METRICS = with_process_labels(METRICS, ["pid"])


def for_report(config: Config) -> Config:
    """``config`` with all groups of probes, all histograms, and rows that stay to the end, by process id.

    A person reads it, and reads it once: nothing is 0 first.
    """
    limits = dataclasses.replace(
        config.limits, processes=max(config.limits.processes, _PROCESSES), series=_SERIES, idle_ttl=Seconds(0.0)
    )
    probes = dataclasses.replace(config.probes, groups={group.name: True for group in GROUPS})
    histograms = Histograms(migration_phases=True)
    return dataclasses.replace(
        config,
        limits=limits,
        probes=probes,
        histograms=histograms,
        series_from_zero=Seconds(0.0),
        kubernetes=Kubernetes(),
        slurm=Slurm(),
    )


class Observation:
    """Everything that attached probes have counted so far."""

    def __init__(self, kernel: Kernel, config: Config, attachments: Attachments, outcomes: Sequence[Outcome]) -> None:
        """Raises StartError when nothing is watched: a report of it would tell nothing."""
        if attachments.maps is None or not any(outcome.state == ATTACHED for outcome in outcomes):
            reason = next((outcome.reason for outcome in outcomes if outcome.reason), "no probe is wanted")
            probe = next((outcome.probe.name for outcome in outcomes if outcome.reason), "probes")
            raise StartError(f"nothing can be watched here: {probe}: {reason}; hmm-exporter --check shows them all")
        self._scrape = Scrape(kernel, config, attachments, ready_seconds=0, metrics=_METRICS)
        self._stacks = Stacks(attachments.maps, kernel.symbols, self._scrape.names)

    def learn(self) -> None:
        """Name what is new, while its module is there."""
        self._scrape.learn()
        self._stacks.learn()

    def sweep(self) -> None:
        """Forget what threads and regions have been at for too long."""
        self._scrape.sweep()

    def snapshot(self) -> Snapshot:
        return snapshot(self._scrape.collect())

    def stacks(self) -> list[Stack]:
        return self._stacks.found()
