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
from tests.host_files import simulated_node
from tests.process import ROOT, SIMULATOR, Exporter

RELEASES = {"sid": "Prometheus 3", "bookworm": "Prometheus 2.42"}
"""Debian's releases whose Prometheus scrapes the fleet."""
#: Everything on, and room for all regions: a model of gigabytes, read in every few seconds, fills the default.
CONFIGURATION = {
    "probes": {"groups": {"per_page": True}},
    "histograms": {"migration_phases": True},
    "maps": {"arrivals": 1 << 20},
}
WORKLOADS = {"kubernetes": {"enabled": True}, "slurm": {"enabled": True}}
#: On the first node whatever is asked for happens, in pods and jobs; on the second always the same, and without.
FIRST, SECOND = "gpu-1", "gpu-2"
ON_SECOND = ("steady", "huge", "rdma")
NODES = (FIRST, SECOND)
EVENTS_PER_SECOND = 200
RULES = sorted((ROOT / "deploy/prometheus").glob("*.yaml"))


@dataclass(frozen=True)
class Fleet:
    servers: Mapping[str, Prometheus]
    """By Debian's release. The first names the cluster, as one among several; the second does not."""
    started: float
    ended: float


@contextlib.contextmanager
def simulated_fleet(
    folder: Path, seconds: int, on_first: Sequence[str] | None = None, releases: Sequence[str] = tuple(RELEASES)
) -> Iterator[Fleet]:
    """Plays for a while, then stands still. Counting begins at 0, with a scrape before the first event.

    *on_first* are scenarios: all at once by default; with none the simulator's day of ten minutes.
    """
    scenes = {FIRST: scenarios() if on_first is None else on_first, SECOND: ON_SECOND}
    with contextlib.ExitStack() as stack:
        programs, urls = {}, {}
        for node in scenes:
            programs[node] = _copy_of_simulator(folder / node)
            configuration = {**CONFIGURATION, "simulator": programs[node][0]}
            if node == FIRST:
                files, cgroups = simulated_node(folder / node)
                programs[node] += ["--cgroups", str(cgroups)]
                configuration |= {**WORKLOADS, **files.options}
            urls[node] = stack.enter_context(Exporter(folder / node, configuration)).url
        servers = {
            release: stack.enter_context(Prometheus(folder, [_scrape_config(urls, release)], RULES, release))
            for release in releases
        }
        for server in servers.values():
            server.wait_until_scraped()
        started = time.time()
        _play(programs, scenes, seconds)
        for server in servers.values():
            server.wait_until_scraped(len(server.query("up[1h]")[0].points) + 2)
        yield Fleet(servers, started, time.time())


def scenarios() -> list[str]:
    listed = subprocess.run([SIMULATOR, "list"], check=True, capture_output=True, text=True).stdout
    return [line.split()[0] for line in listed.splitlines()]


def _copy_of_simulator(folder: Path) -> list[str]:
    """The command that plays. A uprobe belongs to a file, so that a copy is another node."""
    shutil.copytree(SIMULATOR.parent, folder, ignore=shutil.ignore_patterns("*.o", "*btf.*"))
    return [str(folder / SIMULATOR.name), "run"]


def _play(programs: Mapping[str, Sequence[str]], scenes: Mapping[str, Sequence[str]], seconds: int) -> None:
    running = []
    for node, names in scenes.items():
        chosen = [word for name in names for word in ("--scenario", name)]
        command = [*programs[node], "--seconds", str(seconds), "--rate", str(EVENTS_PER_SECOND), *chosen]
        running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
    assert [process.wait() for process in running] == [0] * len(running)


def _scrape_config(urls: Mapping[str, str], release: str) -> dict[str, Any]:
    cluster = {"cluster": "simulated"} if release == next(iter(RELEASES)) else {}
    return {
        "job_name": "hmm-exporter",
        "static_configs": [static(url, node=node, instance=f"{node}:10466", **cluster) for node, url in urls.items()],
    }
