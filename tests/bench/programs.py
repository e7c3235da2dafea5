# SPDX-License-Identifier: Apache-2.0
"""What the programs themselves cost here: time of a run on the simulator, and what the verifier has to look at.

Instructions that the verifier processed are kept in verifier.json: too many, and a kernel refuses a program (a million,
BPF_COMPLEXITY_LIMIT_INSNS). `python3 -m tests.bench.programs --keep` writes those of today there (as root).
Does not belong here: what the programs cost a workload (lab.py).
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hmm_exporter.bpf import attach, load, syscall
from hmm_exporter.bpf.code import link
from hmm_exporter.bpf.compiler import compile_source
from hmm_exporter.bpf.maps import MapSet
from hmm_exporter.bpf.plan import choose
from hmm_exporter.bpf.source import text
from hmm_exporter.catalog.probes import GROUPS, PROBES
from hmm_exporter.config import Config, Probes
from hmm_exporter.kernel.simulated import simulated_kernel
from hmm_exporter.metrics.exporter import program_runs
from tests.process import SIMULATOR, issue_exactly

KEPT = Path(__file__).with_name("verifier.json")
EVERYTHING = Config(probes=Probes(groups={group.name: True for group in GROUPS}))
EVENTS = 20_000
_STATISTICS = Path("/proc/sys/kernel/bpf_stats_enabled")


@dataclass(frozen=True)
class Run:
    """All runs of one program."""

    program: str
    runs: int
    nanoseconds: int


def runs() -> list[Run]:
    """Of the uprobe build, over the simulator's exact events; the most time first."""
    kernel = simulated_kernel(SIMULATOR)
    plan, _ = choose(kernel, EVERYTHING)
    attachments = attach.attach(kernel, EVERYTHING, plan)
    try:
        attachments.learn_devices(kernel.page_size)
        with _statistics():
            issue_exactly(EVENTS)
        counted = [(program.name, program_runs(program.fd)) for program in attachments.programs]
    finally:
        attachments.close()
    found = [Run(name, run.runs, run.nanoseconds) for name, run in counted]
    return sorted(found, key=lambda run: -run.nanoseconds)


def instructions() -> dict[str, int]:
    """That the verifier of this kernel processed, by program of the kprobe build with everything on."""
    plan, _ = choose(simulated_kernel(SIMULATOR), EVERYTHING)
    compiled = compile_source(text(plan, "kprobe"), EVERYTHING.loader.python, EVERYTHING.loader.timeout)
    maps = MapSet(EVERYTHING.limits, EVERYTHING.maps, plan.shards, compiled.maps)
    code = link(compiled, maps.fds)
    found = {}
    try:
        for probe in PROBES:
            kind = syscall.PROG_RAW_TRACEPOINT if probe.tracepoint else syscall.PROG_KPROBE
            for name in probe.programs:
                fd = load.load(kind, code[name], probe.name)
                found[name] = _verified(fd)
                os.close(fd)
    finally:
        maps.close()
    return found


def kept() -> tuple[str, Mapping[str, int]]:
    """The kernel that the kept numbers are of, and the numbers by program."""
    fields = json.loads(KEPT.read_text())
    return fields["kernel"], fields["instructions"]


def keep(found: Mapping[str, int]) -> None:
    KEPT.write_text(json.dumps({"kernel": platform.release(), "instructions": dict(found)}, indent=2) + "\n")


@contextmanager
def _statistics() -> Iterator[None]:
    before = _STATISTICS.read_text()
    _STATISTICS.write_text("1")
    try:
        yield
    finally:
        _STATISTICS.write_text(before)


def _verified(fd: int) -> int:
    """verified_insns, since 5.16 (kernel/bpf/syscall.c, bpf_prog_show_fdinfo)."""
    lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("verified_insns:"))


def main() -> None:
    found = instructions()
    if "--keep" in sys.argv[1:]:
        keep(found)
    kernel, before = kept()
    print(f"instructions that the verifier processed, {platform.release()}; kept: {kernel}")
    for name, number in found.items():
        print(f"{name:44} {number:8} {number / before.get(name, number):6.2f}")
    for run in runs():
        if run.runs:
            print(f"{run.program:44} {run.runs:8} runs {run.nanoseconds / run.runs:8.0f} ns each")


if __name__ == "__main__":
    main()
