# SPDX-License-Identifier: Apache-2.0
"""Labels of cgroups: learnt once, kept while there are rows, forgotten with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hmm_exporter.config import Config, Host, Kubernetes, Slurm
from hmm_exporter.workload.workloads import Workload, Workloads
from tests.host_files import LLAMA, VLLM, HostFiles

UNKNOWN = Workload("unknown", "unknown", "unknown", "unknown")


class Node:
    """Folders of a host, and who names what is in them."""

    def __init__(self, folder: Path, slurm: bool = True) -> None:
        self.files = HostFiles(folder)
        host = Host(str(self.files.cgroup), str(self.files.container_logs))
        self.config = Config(host=host, kubernetes=Kubernetes(enabled=True), slurm=Slurm(enabled=slurm))
        self.workloads = Workloads(self.config, simulated=True)

    def learn(self, *numbers: int) -> list[Workload]:
        self.workloads.learn(set(numbers))
        return [replace(self.workloads.of(number), path="") for number in numbers]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_pods_jobs_and_services_are_named(node: Node) -> None:
    node.files.link(LLAMA)
    pod = node.files.make(LLAMA.systemd())
    job = node.files.make("system.slice/slurmstepd.scope/job_7/step_0")
    service = node.files.make("system.slice/ollama.service")
    assert node.learn(pod, job, service) == [
        Workload("inference", LLAMA.pod, "server"),
        Workload(slurm_job="7"),
        Workload(),
    ]


def test_a_cgroup_that_is_not_found_is_unknown(node: Node) -> None:
    assert node.learn(1 << 40) == [UNKNOWN]
    assert node.workloads.of(4711) == UNKNOWN


def test_a_pod_without_a_log_is_unknown_and_is_in_no_job(node: Node) -> None:
    assert node.learn(node.files.make(LLAMA.cgroupfs())) == [replace(UNKNOWN, slurm_job="")]


def test_a_container_without_a_log_is_unknown_and_its_pod_is_not(node: Node) -> None:
    node.files.link(LLAMA)
    pause = replace(LLAMA, id="e5" * 32)
    assert node.learn(node.files.make(pause.systemd())) == [Workload("inference", LLAMA.pod, "unknown")]


def test_a_name_once_given_stays_as_long_as_there_are_rows(node: Node) -> None:
    number = node.files.make(LLAMA.systemd())
    assert node.learn(number) == [replace(UNKNOWN, slurm_job="")]
    node.files.link(LLAMA)
    assert node.learn(number) == [replace(UNKNOWN, slurm_job="")]
    assert node.learn() == []
    assert node.learn(number) == [Workload("inference", LLAMA.pod, "server")]


def test_no_more_is_remembered_than_has_rows(node: Node) -> None:
    numbers = [node.files.make(f"system.slice/{at}.service") for at in range(50)]
    node.learn(*numbers)
    node.learn(numbers[7])
    assert [node.workloads.of(number) != UNKNOWN for number in numbers] == [at == 7 for at in range(50)]


def test_a_pod_is_over_when_its_cgroup_is_gone(node: Node) -> None:
    node.files.link(VLLM)
    number = node.files.make(VLLM.systemd())
    node.learn(number, 1 << 40)
    assert not node.workloads.is_over(number)
    (node.files.cgroup / VLLM.systemd()).rmdir()
    assert node.workloads.is_over(number)
    assert node.workloads.is_over(1 << 40)
    assert node.workloads.of(number).pod == "vllm-0"


def test_where_there_are_no_cgroups_of_version_2_all_is_unknown_and_nothing_is_over(tmp_path: Path) -> None:
    node = Node(tmp_path)
    number = node.files.make(LLAMA.systemd())
    workloads = Workloads(node.config)  # of a machine, not of a simulator
    workloads.learn({number})
    assert workloads.of(number) == UNKNOWN
    assert not workloads.is_over(number)
    (problem,) = workloads.problems()
    assert problem[:2] == ("cgroups", "namespace, pod, container, slurm_job will be unknown")
    assert "version 1 is not supported" in problem[2]


def test_who_asks_for_nothing_is_told_of_no_problem() -> None:
    assert list(Workloads(Config(host=Host("/nowhere", "/nowhere"))).problems()) == []


def test_logs_are_no_problem_of_who_wants_jobs_only() -> None:
    config = Config(host=Host("/nowhere", "/nowhere"), slurm=Slurm(enabled=True))
    assert [source for source, _, _ in Workloads(config).problems()] == ["cgroups"]
