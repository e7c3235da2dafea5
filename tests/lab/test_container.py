# SPDX-License-Identifier: Apache-2.0
"""The image as Kubernetes runs it: containerd's CRI, and the DaemonSet's own security context, limit and mounts.

Of a kubelet's doing only the pod's network is left out: without a CNI plugin the pod has the node's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import pytest

from hmm_exporter.capabilities import WANTED
from hmm_exporter.catalog.probes import PROBES
from tests.host_files import LLAMA
from tests.lab import pods
from tests.lab.builder import ImageError
from tests.lab.conftest import GuestExporter, build_mirror
from tests.lab.container_image import ContainerImage, ensure_container_image
from tests.lab.pods import Node, Pod
from tests.lab.prediction import PAGE
from tests.lab.recipe import chosen
from tests.lab.test_mirror import Deeds, process_pages
from tests.lab.test_pods import Place, within
from tests.lab.vm import VirtualMachine

KERNEL = "7.3"
pytestmark = pytest.mark.skipif(
    chosen().kernel != KERNEL, reason=f"containerd is in the image of {KERNEL} alone, and one kernel is enough"
)
CHECK = ("--check", "--strict")
#: What the tests' processor, which is emulated, would take its time for.
SLOWLY: dict[str, Any] = {"loader": {"timeout": "300s"}}
#: One with an entry and an exit, and one on a tracepoint: enough where the question is what is permitted.
FEW = ("hmm_range_fault", "remove_migration_pte")
CAPABILITIES = sum(1 << number for number in WANTED)


@pytest.fixture(scope="module")
def image() -> ContainerImage:
    try:
        built = ensure_container_image()
    except ImageError as error:
        # Where these are the tests that have to pass (.ci/run), none of them may be left out unseen.
        pytest.fail(str(error)) if os.environ.get("CI") or os.geteuid() == 0 else pytest.skip(str(error))
    print(f"layers of {' + '.join(f'{each / 1e6:.1f}' for each in built.layer_bytes)} MB")
    return built


@pytest.fixture(scope="module")
def node(image: ContainerImage) -> Iterator[Node]:
    with VirtualMachine(disks=[image.disk]) as machine:
        node = Node(machine)
        others = [probe.name for probe in PROBES if probe.name not in FEW]
        at_once = {"series_from_zero": 0}
        node.configure(pods.configuration() | SLOWLY | at_once | {"probes": {"groups": {"per_page": True}}})
        node.configure(SLOWLY | {"probes": {"attach": "fentry"}}, "fentry.yaml")
        node.configure(SLOWLY | {"probes": {"exclude": others}}, "few.yaml")
        yield node


@pytest.fixture(scope="module")
def daemon_set() -> dict[str, Any]:
    return pods.manifest()


@pytest.fixture(scope="module")
def pod(node: Node, daemon_set: dict[str, Any]) -> Iterator[Pod]:
    """One of the DaemonSet, ready, on a node where nothing of the image was read before."""
    node.machine.run("echo 3 > /proc/sys/vm/drop_caches")
    started = node.start(daemon_set)
    log = started.wait_for_log("msg=ready")
    (ready,) = re.findall("msg=ready.*", log)
    print(ready)
    yield started
    node.machine.run(f"kill -TERM {started.pid}")
    assert started.wait() == 0, started.log()


def status_of(node: Node, pid: int) -> dict[str, str]:
    lines = node.machine.run(f"cat /proc/{pid}/status").stdout.splitlines()
    return {name: " ".join(words.split()) for name, words in (line.split(":", 1) for line in lines)}


@pytest.fixture(scope="module")
def exporter_in_pod(pod: Pod, node: Node, tmp_path_factory: pytest.TempPathFactory) -> GuestExporter:
    node.machine.push(build_mirror(tmp_path_factory.mktemp("mirror")), "/run/mirror")
    return GuestExporter(node.machine, "in a pod", node.containerd)


def test_it_starts_within_the_memory_limit_of_the_daemon_set(pod: Pod) -> None:
    """The compiler's peak and the maps count against the same limit."""
    events = dict(line.split() for line in pod.memory("events").splitlines())
    peak, limit = int(pod.memory("peak")), int(pod.memory("max"))
    now = {name: int(value) >> 20 for name, value in map(str.split, pod.memory("stat").splitlines())}
    kinds = ", ".join(f"{name} {now[name]}" for name in ("anon", "file", "kernel"))
    print(f"memory.peak {peak >> 20} MiB of {limit >> 20} MiB; when ready, in MiB: {kinds}")
    assert peak <= limit
    assert (events["oom"], events["oom_kill"]) == ("0", "0")


def test_every_probe_is_attached(pod: Pod, exporter_in_pod: GuestExporter) -> None:
    info = [dict(its) for its in exporter_in_pod.scrape().named("hmm_exporter_probe_info")]
    assert {its["probe"] for its in info} == {probe.name for probe in PROBES}
    assert {its["state"] for its in info} == {"attached"}
    assert "level=warning" not in pod.log()


def test_the_process_has_no_capability_and_no_means_to_one(pod: Pod, node: Node) -> None:
    lines = node.machine.run(f"cat /proc/{pod.pid}/status").stdout.splitlines()
    status = {name: words.split() for name, words in (line.split(":", 1) for line in lines)}
    for name in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
        assert status[name] == ["0" * 16], name
    assert status["CapBnd"] == [f"{CAPABILITIES:016x}"]  # to empty it takes CAP_SETPCAP
    assert status["Uid"] == status["Gid"] == ["65532"] * 4
    assert (status["NoNewPrivs"], status["Seccomp"]) == (["1"], ["2"])
    assert status["Groups"] in ([], ["65532"])
    written = pod.execute("/usr/bin/python3", "-c", "open('/tmp/file', 'w')")
    assert "Read-only file system" in written["stderr"]


def test_there_is_no_shell_no_compiler_and_no_package_manager(pod: Pod, node: Node) -> None:
    root = f"{pod.folder}/rootfs"
    programs = set(node.machine.run(f"find {root} -xdev -type f -perm /111 -printf '%f\\n'").stdout.split())
    assert {"hmm-exporter", "python3"} <= programs
    assert programs.isdisjoint({"sh", "dash", "bash", "busybox", "perl", "gcc", "cc", "clang", "ld", "apt-get", "dpkg"})
    headers = f"find {root}/usr/src {root}/usr/include {root}/usr/lib/modules -type f"
    assert node.machine.run(headers, check=False).stdout == ""


def test_the_figures_are_the_drivers_own(exporter_in_pod: GuestExporter) -> None:
    done = Deeds(exporter_in_pod, "never", "name=owner warm=64 migrate back warm=1000 migrate touch=8")
    assert done.driver("migrate") == done.pages("moved", direction="host_to_device") == 1064
    assert done.driver("back") + 8 == done.pages("moved", direction="device_to_host") == 72
    moved = {dict(its)["pgmap_owner"] for its in done.since.nonzero("hmm_migration_moved_bytes_total")}
    devices = {dict(its)["device"] for its in done.since.nonzero("hmm_migration_moved_bytes_total")}
    assert (moved, devices) == ({"test_hmm-0"}, {"hmm_dmirror-0"})
    assert process_pages(done.since, "moved", comm="owner") == done.pages("moved")


def test_another_pod_is_named_by_what_the_daemon_set_mounts(exporter_in_pod: GuestExporter, node: Node) -> None:
    link, target = LLAMA.link
    node.machine.run(f"ln -s {target} /var/log/containers/{link}")
    its = {"namespace": LLAMA.namespace, "pod": LLAMA.pod, "container": LLAMA.name}
    run = within(Place(LLAMA.systemd(), its), "/run/mirror warm=64 migrate back")
    _, _, since = exporter_in_pod.measured(run, lambda: node.machine.run(run))
    assert process_pages(since, "moved", **its) == int(since.sum("hmm_migration_moved_bytes_total")) // PAGE == 128


def test_a_check_that_is_executed_in_the_pod_attaches_every_probe_by_fentry_too(pod: Pod) -> None:
    done = pod.execute("/usr/bin/hmm-exporter", *CHECK, "--config.file=/etc/hmm-exporter/fentry.yaml")
    assert (done["status"], done["stderr"]) == (0, "")
    lines = [line.split()[:3] for line in done["stdout"].splitlines()]
    assert [line[:2] for line in lines] == [[probe.name, "attached"] for probe in PROBES]
    assert {line[2] for line in lines} <= {"fentry", "fexit", "tracepoint"}


@pytest.mark.parametrize("missing", WANTED.values())
def test_without_one_of_the_capabilities_it_runs_and_says_which(
    node: Node, daemon_set: dict[str, Any], missing: str
) -> None:
    names = [name.removeprefix("CAP_") for name in WANTED.values() if name != missing]
    status, log = check_few(node, pods.with_capabilities(daemon_set, *names))
    assert f"{missing} is missing" in log or f"give {missing}" in log, log
    assert not [name for name in WANTED.values() if name != missing and f"{name} is missing" in log]
    # Names are a comfort; without one of the others there is nothing to serve.
    assert status == int(missing != "CAP_SYSLOG"), log


def test_root_with_the_same_capabilities_can_do_the_same(node: Node, daemon_set: dict[str, Any]) -> None:
    status, log = check_few(node, pods.changed(daemon_set, runAsUser=0, runAsGroup=0, runAsNonRoot=False))
    assert status == 0, log
    attached = {line.split()[0] for line in log.splitlines() if line.split()[1] == "attached"}
    assert attached == set(FEW)


def check_few(node: Node, daemon_set: dict[str, Any]) -> tuple[int, str]:
    """Status and output of a check in a pod of its own."""
    pod = node.start(daemon_set, [*CHECK, "--config.file=/etc/hmm-exporter/few.yaml"])
    return pod.wait(), pod.log()
