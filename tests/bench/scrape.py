# SPDX-License-Identifier: Apache-2.0
"""What a scrape costs, by the number of series and of possible CPUs: ``python3 -m tests.bench.scrape`` (as root).

Belongs here: scraping a node of node.py, and what it takes of CPU, time and memory. Does not belong here: tables
(document.py), the cost of watching (lab.py, programs.py).
"""

from __future__ import annotations

import gzip
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.footprint import OPENMETRICS, cpu_of, maps_memory, memory
from tests.exposition import Samples
from tests.process import ROOT

#: The node of the budget: 50 processes, which share 30 pods, on 8 GPUs.
PROCESSES = 50
#: Processes that make 100 to 20,000 series, with what else the node has.
SIZES = (0, PROCESSES, 200, 500, 1000, 1500)
CPUS = (2, 32, 256)


@dataclass(frozen=True)
class Cost:
    """One node, scraped many times: OpenMetrics, compressed."""

    processes: int
    cpus: int
    series: int
    lines: int
    cpu_milliseconds: float
    milliseconds: float
    bytes: int
    rss_before: float
    rss_after: float


def measure(say: Callable[[str], None]) -> list[Cost]:
    """By the number of series on two CPUs, then by that of CPUs."""
    nodes = [(processes, CPUS[0]) for processes in SIZES] + [(PROCESSES, cpus) for cpus in CPUS[1:]]
    costs = []
    for processes, cpus in nodes:
        costs.append(_one(processes, cpus))
        say(f"scrape: {costs[-1]}")
    return costs


def maps_bytes() -> dict[int, int]:
    """Kernel memory of all maps at the default limits, by the number of CPUs."""
    return {2: maps_memory(1), 32: maps_memory(1), 256: maps_memory(8)}


def _one(processes: int, cpus: int) -> Cost:
    command = [sys.executable, "-m", "tests.bench.node", str(processes), str(cpus)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as node:
        assert node.stdin
        assert node.stdout
        url = f"http://127.0.0.1:{int(node.stdout.readline())}/metrics"
        before = memory(node.pid)
        times: list[float] = []
        sizes: list[int] = []

        def scrape() -> None:
            begun = time.monotonic()
            with urllib.request.urlopen(urllib.request.Request(url, headers=OPENMETRICS), timeout=60) as response:
                body = response.read()
            times.append(time.monotonic() - begun)
            sizes.append(len(body))
            gzip.decompress(body)

        cpu = cpu_of(node.pid, scrape)
        after = memory(node.pid)
        with urllib.request.urlopen(url, timeout=60) as response:
            text = response.read().decode()
        node.stdin.close()
    return Cost(
        processes,
        cpus,
        int(Samples.parse(text).get("hmm_exporter_series")),
        sum(not line.startswith("#") for line in text.splitlines()),
        1000 * cpu,
        1000 * statistics.median(times),
        sizes[-1],
        before,
        after,
    )


if __name__ == "__main__":
    measure(print)
    print({cpus: round(size / 2**20, 2) for cpus, size in maps_bytes().items()})
