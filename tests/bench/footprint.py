# SPDX-License-Identifier: Apache-2.0
"""What the exporter takes on this machine: ``python3 -m tests.bench.footprint`` (as root).

Runs it on the simulator's scenarios several times and prints medians and extremes: time to ready, memory of the daemon
once ready and after many scrapes, CPU of a scrape, series; then the loader's peak, and kernel memory of the maps.
"""

from __future__ import annotations

import dataclasses
import gzip
import os
import platform
import resource
import statistics
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

from hmm_exporter.bpf.compiler import compile_source
from hmm_exporter.bpf.maps import MapSet
from hmm_exporter.bpf.plan import choose
from hmm_exporter.bpf.source import text
from hmm_exporter.config import Config
from hmm_exporter.kernel.simulated import simulated_kernel
from tests.process import SIMULATOR, Exporter, play_scenarios

RUNS = 5
SCRAPES = 200
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0", "Accept-Encoding": "gzip"}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        print(f"{platform.release()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, {RUNS} runs")
        runs = [one_run(Path(folder)) for _ in range(RUNS)]
    for name in runs[0]:
        values = sorted(run[name] for run in runs)
        print(f"{name:42} {statistics.median(values):10.2f}   ({values[0]:.2f} to {values[-1]:.2f})")
    print(f"{'loader: peak memory, MB':42} {loader_peak():10.2f}")
    for shards in (1, 8):
        print(f"{f'maps: kernel memory, {32 * shards} CPUs, MiB':42} {maps_memory(shards) / 2**20:10.2f}")


def one_run(folder: Path) -> dict[str, float]:
    """Figures of one start, with the drivers and processes of all scenarios."""
    with Exporter(folder) as exporter:
        pid = exporter.process.pid
        figures = {"ready after, s": exporter.scrape().get("hmm_exporter_ready_duration_seconds")}
        figures["memory once ready, MB RSS"] = memory(pid)
        play_scenarios(seconds=5)
        samples = exporter.scrape()
        figures["series"] = samples.get("hmm_exporter_series")

        def scrape() -> None:
            request = urllib.request.Request(exporter.url + "/metrics", headers=OPENMETRICS)
            with urllib.request.urlopen(request, timeout=30) as response:
                gzip.decompress(response.read())

        figures["scrape (OpenMetrics, gzip), ms of CPU"] = 1000 * cpu_of(pid, scrape)
        figures[f"memory after {SCRAPES} scrapes, MB RSS"] = memory(pid)
    return figures


def memory(pid: int) -> float:
    """Resident memory in MB (10^6 bytes)."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024 / 1e6


def cpu_of(pid: int, scrape: Callable[[], None]) -> float:
    """CPU seconds of the process for one scrape: an average over many, because its clock ticks 100 times a second."""

    def used() -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before = used()
    for _ in range(SCRAPES):
        scrape()
    return (used() - before) / SCRAPES


def loader_peak() -> float:
    """The largest resident size of all children so far, in MB: that was a loader."""
    source, python = _kernel_build(1)
    compile_source(source, python, 60)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6


def maps_memory(shards: int) -> int:
    """Bytes that the kernel accounts for all maps at the default limits."""
    source, python = _kernel_build(shards)
    config = Config()
    maps = MapSet(config.limits, config.maps, shards, compile_source(source, python, 60).maps)
    try:
        return maps.memory_bytes()
    finally:
        maps.close()


def _kernel_build(shards: int) -> tuple[str, str]:
    config = Config()
    plan, _ = choose(simulated_kernel(SIMULATOR), config)
    return text(dataclasses.replace(plan, shards=shards), "kprobe"), config.loader.python


if __name__ == "__main__":
    main()
