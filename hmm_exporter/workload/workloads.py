# SPDX-License-Identifier: Apache-2.0
"""Names of cgroups, as labels: learnt when a cgroup first counts something, kept while it has rows.

A name once given stays, so that nothing moves between series. How much is remembered is bounded
by the rows of processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path

from hmm_exporter.catalog.values import UNKNOWN
from hmm_exporter.config import Config
from hmm_exporter.workload import container_logs
from hmm_exporter.workload.cgroups import Cgroups
from hmm_exporter.workload.container_logs import Pod
from hmm_exporter.workload.placement import placement


@dataclass(frozen=True)
class Workload:
    """Values of labels. Empty, which to Prometheus is no label, for a process that has no such thing."""

    namespace: str = ""
    pod: str = ""
    container: str = ""
    slurm_job: str = ""
    path: str = ""
    """Of the cgroup, below the root of the hierarchy; empty if it was not found."""


UNKNOWN_WORKLOAD = Workload(UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN)
_UNKNOWN_POD = Workload(UNKNOWN, UNKNOWN, UNKNOWN)


class Workloads:
    """Cgroups that have rows, by number."""

    def __init__(self, config: Config, simulated: bool = False) -> None:
        self._config = config
        self._cgroups = Cgroups(Path(config.host.cgroup), whole=not simulated)
        self._logs = Path(config.host.container_logs)
        self._known: dict[int, Workload] = {}

    def problems(self) -> Iterator[tuple[str, str, str]]:
        """(source of names, what its want leads to, reason)"""
        if self._config.process_labels and self._cgroups.problem:
            yield "cgroups", f"{', '.join(self._config.process_labels)} will be unknown", self._cgroups.problem
        if self._config.kubernetes.enabled and (problem := container_logs.problem(self._logs)):
            yield "pods", "pods will be called unknown", problem

    def learn(self, numbers: Set[int]) -> None:
        """Name those of these cgroups that are new, and forget all others."""
        for number in self._known.keys() - numbers:
            del self._known[number]
        new = numbers - self._known.keys()
        if not new:
            return
        # Where this is no hierarchy of version 2, the numbers mean something else.
        paths = {} if self._cgroups.problem else self._cgroups.paths(new)
        pods = container_logs.pods(self._logs) if self._config.kubernetes.enabled else {}
        for number in new:
            self._known[number] = _workload(paths[number], pods) if number in paths else UNKNOWN_WORKLOAD

    def of(self, number: int) -> Workload:
        return self._known.get(number, UNKNOWN_WORKLOAD)

    def is_over(self, number: int) -> bool:
        """Whether that cgroup, which has rows, is no more: nothing can count in it again."""
        if number not in self._known or self._cgroups.problem:
            return False
        path = self._known[number].path
        return not (path and self._cgroups.exists(number, path))


def _workload(path: str, pods: Mapping[str, Pod]) -> Workload:
    where = placement(path)
    if not where.pod_uid:
        return Workload(slurm_job=where.slurm_job, path=path)
    pod = pods.get(where.pod_uid)
    if pod is None:
        return replace(_UNKNOWN_POD, slurm_job=where.slurm_job, path=path)
    container = pod.containers.get(where.container_id, UNKNOWN) if where.container_id else ""
    return Workload(pod.namespace, pod.name, container, where.slurm_job, path)
