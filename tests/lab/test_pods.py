# SPDX-License-Identifier: Apache-2.0
"""Real cgroups, called as kubelet, the container runtimes and Slurm call them, around the kernel's own HMM workload."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import pytest

from tests.exposition import Samples
from tests.host_files import LLAMA, TRAINERS, VLLM, Container
from tests.lab import guest
from tests.lab.conftest import GuestExporter, booted, build_mirror, serving
from tests.lab.prediction import PAGE
from tests.lab.vm import VirtualMachine

SETTINGS = "kubernetes: {enabled: true}\nslurm: {enabled: true}\n"
MIRROR = "/run/mirror"
NOTHING = {"namespace": "", "pod": "", "container": "", "slurm_job": ""}


@dataclass(frozen=True)
class Place:
    """A cgroup, and the labels of what runs in it."""

    path: str
    labels: dict[str, str]


def _of(container: Container, path: str) -> Place:
    names = {"namespace": container.namespace, "pod": container.pod, "container": container.name}
    return Place(path, NOTHING | names)


PLACES = {
    "containerd-systemd": _of(LLAMA, LLAMA.systemd()),
    "containerd-cgroupfs": _of(TRAINERS[0], TRAINERS[0].cgroupfs()),
    "crio-crun": _of(VLLM, VLLM.systemd("crio", quality="") + "/container"),
    "slurm": Place("system.slice/slurmstepd.scope/job_4217/step_0/user/task_0", NOTHING | {"slurm_job": "4217"}),
    "service": Place("system.slice/ollama.service", NOTHING),
    "no-log": Place(TRAINERS[1].systemd(), NOTHING | dict.fromkeys(("namespace", "pod", "container"), "unknown")),
}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualMachine]:
    """One of its own: an exporter serves on the others' all the time."""
    with booted(tmp_path_factory.mktemp("package")) as vm:
        vm.push(build_mirror(tmp_path_factory.mktemp("mirror")), MIRROR)
        yield vm


@pytest.fixture(scope="module", params=["fentry", "kprobe"])
def exporter(request: pytest.FixtureRequest, machine: VirtualMachine) -> Iterator[GuestExporter]:
    machine.run("mkdir -p /var/log/containers")
    for container in (LLAMA, TRAINERS[0], VLLM):
        name, target = container.link
        machine.run(f"ln -sf {target} /var/log/containers/{name}")
    guest.transparent_hugepages(machine, "never")
    with serving(machine, cast(str, request.param), settings=SETTINGS) as running:
        yield running


def within(place: Place, command: str) -> str:
    """The command, to be run in that cgroup."""
    folder = f"/sys/fs/cgroup/{place.path}"
    return f"mkdir -p {folder} && echo $$ > {folder}/cgroup.procs && {command}"


def _in(since: Samples, name: str, place: Place, **labels: str) -> float:
    return since.sum(f"hmm_process_{name}_total", **place.labels, **labels)


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_kernels_test_counts_in_the_pod_that_it_runs_in(exporter: GuestExporter, place: Place) -> None:
    run = within(place, "hmm-tests -r hmm.hmm_device_private.migrate")
    _, after, since = exporter.measured(run, lambda: exporter.machine.run(run))
    assert _in(since, "migrations", place) == since.sum("hmm_migrations_started_total") > 0
    assert _in(since, "moved_bytes", place) == since.sum("hmm_migration_moved_bytes_total") > 0
    assert since.sum("hmm_process_migrations_total") == _in(since, "migrations", place)
    assert after.get("hmm_exporter_books_balanced") == 1


def test_pods_are_told_apart_to_the_page(exporter: GuestExporter) -> None:
    """One after another: at the same time, 7.3 loses events to preemption, and says so (test_storm.py)."""
    pages = {name: 64 + 3 * number for number, name in enumerate(PLACES)}
    jobs = [within(PLACES[name], f"{MIRROR} warm={count} migrate back") for name, count in pages.items()]
    run = "; ".join(f"sh -c {shlex.quote(job)}" for job in jobs)
    _, _, since = exporter.measured("pods", lambda: exporter.machine.run(run))
    for name, place in PLACES.items():
        for direction in ("host_to_device", "device_to_host"):
            assert _in(since, "moved_bytes", place, direction=direction, comm="mirror") == pages[name] * PAGE, name


def test_memory_is_its_owners_pods_also_when_another_pods_process_asks(exporter: GuestExporter) -> None:
    """The worker leaves for another cgroup before it works on its parent's memory."""
    theirs = f"/sys/fs/cgroup/{PLACES['slurm'].path}"
    exporter.machine.run(f"mkdir -p {theirs}")
    deeds = f"name=owner cgroup={theirs} warm=64 process=worker migrate process=worker back"
    run = within(PLACES["containerd-systemd"], f"{MIRROR} {deeds}")
    _, _, since = exporter.measured(deeds, lambda: exporter.machine.run(run))
    its = PLACES["containerd-systemd"]
    assert _in(since, "moved_bytes", its) == since.sum("hmm_migration_moved_bytes_total") == 2 * 64 * PAGE
    assert _in(since, "migrations", PLACES["slurm"]) == 0
