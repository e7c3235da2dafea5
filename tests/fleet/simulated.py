# SPDX-License-Identifier: Apache-2.0
"""A small fleet: two nodes, each a simulator of HMM drivers with an exporter on it, and the servers that scrape them.

Belongs here: what plays on which node, and which labels a scrape gives to it. For tests, and for pictures.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fleet.prometheus import Prometheus, static
from tests.process import SIMULATOR, Exporter

RELEASES = {"sid": "Prometheus 3", "bookworm": "Prometheus 2.42"}
"""Debian's releases whose Prometheus scrapes the fleet."""
CONFIGURATION = {"probes": {"groups": {"per_page": True}}, "histograms": {"migration_phases": True}}
#: On the first node everything happens at once; on the second some things, and not the rest.
NODES: Mapping[str, Sequence[str]] = {
    "gpu-1": (),
    "gpu-2": ("steady", "warm-up", "thrash", "huge", "rdma"),
}
EVENTS_PER_SECOND = 400

# The simulator's processes have no cgroups: what kubernetes.enabled would say of them is written here. python3 and
# llama-server belong to no pod, so they stay without.
PODS = {"train.py": ("research", "train-0", "trainer"), "ollama": ("chat", "ollama-7d9f", "ollama")}
PODS |= {"VLLM::EngineCor": ("chat", "vllm-0", "engine")}
_POD_LABELS = ("namespace", "pod", "container")


@dataclass(frozen=True)
class Fleet:
    servers: Mapping[str, Prometheus]
    """By Debian's release. The first sees a cluster of Kubernetes; the second machines, without cluster and pods."""
    started: float
    ended: float


@contextlib.contextmanager
def simulated_fleet(folder: Path, seconds: int, releases: Sequence[str] = tuple(RELEASES)) -> Iterator[Fleet]:
    """Plays for a while, then stands still. Counting begins at 0, with a scrape before the first event."""
    with contextlib.ExitStack() as stack:
        programs = {node: _copy_of_simulator(folder / node) for node in NODES}
        urls = {
            node: stack.enter_context(Exporter(folder / node, CONFIGURATION | {"simulator": str(program)})).url
            for node, program in programs.items()
        }
        servers = {
            release: stack.enter_context(Prometheus(folder, [_scrape_config(urls, release)], release=release))
            for release in releases
        }
        for server in servers.values():
            server.wait_until_scraped()
        started = time.time()
        _play(programs, seconds)
        for server in servers.values():
            server.wait_until_scraped(len(server.query("up[1h]")[0].points) + 2)
        yield Fleet(servers, started, time.time())


def scenarios() -> list[str]:
    listed = subprocess.run([SIMULATOR, "list"], check=True, capture_output=True, text=True).stdout
    return [line.split()[0] for line in listed.splitlines()]


def _copy_of_simulator(folder: Path) -> Path:
    """A uprobe belongs to a file, so that a copy is another node."""
    shutil.copytree(SIMULATOR.parent, folder, ignore=shutil.ignore_patterns("*.o", "*btf.*"))
    return folder / SIMULATOR.name


def _play(programs: Mapping[str, Path], seconds: int) -> None:
    running = []
    for node, names in NODES.items():
        chosen = [word for name in names or scenarios() for word in ("--scenario", name)]
        command = [str(programs[node]), "run", "--seconds", str(seconds), "--rate", str(EVENTS_PER_SECOND), *chosen]
        running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
    assert [process.wait() for process in running] == [0] * len(running)


def _scrape_config(urls: Mapping[str, str], release: str) -> dict[str, Any]:
    kubernetes = release == next(iter(RELEASES))
    cluster = {"cluster": "simulated"} if kubernetes else {}
    return {
        "job_name": "hmm-exporter",
        "static_configs": [static(url, node=node, instance=f"{node}:10466", **cluster) for node, url in urls.items()],
        "metric_relabel_configs": [
            {
                "source_labels": ["__name__", "comm"],
                "regex": f"hmm_process_.*;{comm}",
                "target_label": label,
                "replacement": value,
            }
            for comm, values in PODS.items()
            for label, value in zip(_POD_LABELS, values)
            if kubernetes
        ],
    }
