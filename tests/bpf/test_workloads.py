# SPDX-License-Identifier: Apache-2.0
"""Whose pod and job it was: cgroups of the simulator's processes, read in BPF programs, named by folders and links."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.bpf import expected
from tests.exposition import Labels, Samples, labels
from tests.host_files import LLAMA, TRAINERS, VLLM, Container, simulated_node
from tests.process import Exporter, issue_exactly

EVENTS = 5000
BOTH = {"kubernetes": {"enabled": True}, "slurm": {"enabled": True}}
WORKLOAD_LABELS = ("namespace", "pod", "container", "slurm_job")
# Roomier than the default: python3 is two processes here, and none shall be in `other`.
ROOM = {"probes": {"groups": {"per_page": True}}, "limits": {"processes": 128}}


@dataclass(frozen=True)
class Run:
    issued: dict[str, Any]
    samples: Samples
    log: str


def _run(folder: Path, settings: Mapping[str, Any]) -> Run:
    files, cgroups = simulated_node(folder)
    with Exporter(folder, {**ROOM, **files.options, **settings}) as exporter:
        issued = issue_exactly(EVENTS, arguments=["--cgroups", str(cgroups)])
        return Run(issued, exporter.scrape(), exporter.log)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return _run(tmp_path_factory.mktemp("workloads"), BOTH)


def _pod(container: Container) -> dict[str, str]:
    names = {"namespace": container.namespace, "pod": container.pod, "container": container.name}
    return {**names, "slurm_job": ""}


NOTHING = dict.fromkeys(WORKLOAD_LABELS, "")
WORKLOADS = {
    "llama-server": [_pod(LLAMA)],
    "VLLM::EngineCor": [_pod(VLLM)],
    "python3": [_pod(trainer) for trainer in TRAINERS],
    "train.py": [{**NOTHING, "slurm_job": "4217"}],
    "ollama": [NOTHING],
    # In the root of the hierarchy, which on this tree of folders has another number.
}


def _of(labels: Labels, names: tuple[str, ...]) -> Labels:
    return frozenset((name, value) for name, value in labels if name in names)


def test_every_process_is_in_its_pod_or_job(run: Run) -> None:
    seen: dict[str, set[Labels]] = {}
    for (name, its), value in run.samples.values.items():
        if name.startswith("hmm_process_") and value:
            seen.setdefault(dict(its)["comm"], set()).add(_of(its, WORKLOAD_LABELS))
    for comm, workloads in WORKLOADS.items():
        assert seen[comm] == {labels(**each) for each in workloads}, comm


def test_what_is_in_no_folder_is_unknown(run: Run) -> None:
    unknown = dict.fromkeys(WORKLOAD_LABELS, "unknown")
    assert run.samples.sum("hmm_process_migrations_total", comm="dying", **unknown) > 0


def test_the_figures_of_each_process_add_up_to_what_was_issued(run: Run) -> None:
    names = expected.owner_names(run.issued, run.samples)
    compared = 0
    for name, counts in expected.counters(run.issued, names):
        if name.startswith("hmm_process_"):
            summed: Counter[Labels] = Counter()
            for its, value in run.samples.nonzero(name).items():
                summed[its - _of(its, WORKLOAD_LABELS)] += int(value)
            assert summed == counts, name
            compared += len(counts)
    assert compared > 100


def test_two_processes_of_one_name_in_two_pods_are_two(run: Run) -> None:
    calls = [run.samples.sum("hmm_process_range_faults_total", comm="python3", pod=pod.pod) for pod in TRAINERS]
    assert min(calls) > 0


def test_the_node_tier_has_none_of_these_labels(run: Run) -> None:
    for name, its in run.samples.values:
        if not name.startswith("hmm_process_"):
            assert not _of(its, WORKLOAD_LABELS), name


def test_only_the_labels_that_were_asked_for_are_there(tmp_path: Path) -> None:
    run = _run(tmp_path, {"kubernetes": {"enabled": True, "labels": ["namespace"]}})
    of_python = run.samples.named("hmm_process_range_faults_total")
    assert {_of(its, ("comm", *WORKLOAD_LABELS)) for its in of_python if ("comm", "python3") in its} == {
        labels(comm="python3", namespace="training")
    }


def test_pods_whose_names_cannot_be_read_are_unknown_and_the_log_says_why(tmp_path: Path) -> None:
    run = _run(
        tmp_path,
        {"kubernetes": {"enabled": True}, "host": {"cgroup": str(tmp_path / "cgroup"), "container_logs": "/nowhere"}},
    )
    assert (
        run.samples.sum("hmm_process_range_faults_total", comm="llama-server", pod="unknown", namespace="unknown") > 0
    )
    assert run.samples.sum("hmm_process_range_faults_total", comm="ollama", pod="", namespace="") > 0
    (line,) = [line for line in run.log.splitlines() if "level=warning" in line and "called unknown" in line]
    assert "/nowhere: No such file or directory: host.container_logs must name" in line
