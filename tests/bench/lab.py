# SPDX-License-Identifier: Apache-2.0
"""What watching costs a workload: the kernel's hmm-tests in a lab machine, watched by the script and by the exporter.

Belongs here: who watches, the rounds, what is measured in the guest. Does not belong here: medians and tables
(document.py), what needs no machine (scrape.py, programs.py).
"""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hmm_exporter.bpf.attach import wanted_programs
from hmm_exporter.bpf.resource_walk import PROGRAM as RESOURCE_WALK
from hmm_exporter.catalog.probes import GROUPS, PROBES
from tests.bench.programs import Run
from tests.lab import guest, hmm_snoop
from tests.lab.command import GuestProcess
from tests.lab.image import ensure_image
from tests.lab.recipe import chosen
from tests.lab.vm import VirtualMachine
from tests.process import ROOT

CONFIGURATION = "probes: {{attach: {attach}, groups: {{per_page: {per_page}}}}}\n"
ATTACH_SECONDS = 300.0
WORKLOAD_SECONDS = 1200.0
#: The workload takes three seconds, of which the machine's own moods are a tenth.
TIMED = 3
STATISTICS = "/proc/sys/kernel/bpf_stats_enabled"
#: Measured in the guest. What a failing test of 6.1 says has no end.
WORKLOAD = """begin=$(date +%s%N)
for test in {tests}; do hmm-tests -r $test 2>&1 | head -c 65536 >/dev/null; done
echo $(($(date +%s%N) - begin))"""
#: A name in the kernel has 15 characters (BPF_OBJ_NAME_LEN, include/uapi/linux/bpf.h).
NAME_LENGTH = 15
#: What bpftool calls each program that has a function of its own beside it (hmm_exporter/bpf/code.py).
WITH_CALLBACK = "program"


@dataclass(frozen=True)
class Watcher:
    """Who watches the workload: nobody, the script, or the exporter with these options."""

    name: str
    attach: str = ""
    per_page: bool = False


ALONE = Watcher("alone")
SCRIPT = Watcher("hmm-snoop.bt")
#: Per page is what the script watches, too.
EXPORTERS = (
    Watcher("fentry", "fentry"),
    Watcher("fentry, per_page", "fentry", per_page=True),
    Watcher("kprobe", "kprobe"),
    Watcher("kprobe, per_page", "kprobe", per_page=True),
)


@dataclass(frozen=True)
class Round:
    """One watcher over one workload; of ALONE the times of the workload only."""

    watcher: Watcher
    seconds: float
    """The workload's, the median of TIMED, while the kernel's BPF statistics are off."""
    runs: tuple[Run, ...] = ()
    """Of the same workload once more, with them on."""
    ready_seconds: float = 0.0
    ready_rss: float = 0.0
    """Resident memory in MB (10^6 bytes): once ready, after the workload, and the most there ever was."""
    rss: float = 0.0
    peak_rss: float = 0.0


@dataclass(frozen=True)
class Measured:
    """All rounds in one machine."""

    kernel: str
    huge_pages: str
    tests: int
    rounds: tuple[Round, ...]
    loader_peak_rss: float
    script_missing: str


def measure(rounds: int, say: Callable[[str], None]) -> Measured:
    """Every watcher once a round, so that what changes in the machine meanwhile meets all alike."""
    script = hmm_snoop.find()
    missing = "" if script else "there is no hmm-snoop.bt: name it in HMM_SNOOP to compare with it"
    watchers = (ALONE, *((SCRIPT,) if script else ()), *EXPORTERS)
    with VirtualMachine(ensure_image(chosen())) as machine:
        _install(machine, script)
        guest.transparent_hugepages(machine, "always")
        tests = guest.list_hmm_tests(machine)
        _workload(machine, tests)  # the first reads the tests from the disk
        done = []
        for number in range(1, rounds + 1):
            for watcher in watchers:
                done.append(_round(machine, tests, watcher))
                say(f"round {number} of {rounds}: {_summary(done[-1])}")
        return Measured(
            machine.run("uname -r").stdout.strip(), "always", len(tests), tuple(done), _loader_peak(machine), missing
        )


def _install(machine: VirtualMachine, script: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "hmm_exporter"
        shutil.copytree(ROOT / "hmm_exporter", copy, ignore=shutil.ignore_patterns("__pycache__"))
        machine.push(Path(folder), "/opt/hmm-exporter")
    machine.run("python3 -m compileall -q /opt/hmm-exporter", timeout=120)  # as an installed package is
    if script:
        machine.push(script, "/tmp/hmm-snoop.bt")


def _round(machine: VirtualMachine, tests: list[str], watcher: Watcher) -> Round:
    if watcher is ALONE:
        return Round(watcher, _timed(machine, tests))
    with _watching(machine, watcher) as (process, ready_seconds):
        ready_rss, _ = _memory(machine, process.pid)
        seconds = _timed(machine, tests)
        with _statistics(machine):
            before = _programs(machine)
            _workload(machine, tests)
            after = _programs(machine)
        names = _program_names(watcher, machine) if watcher.attach else None
        rss, peak = _memory(machine, process.pid)
        return Round(watcher, seconds, _runs(before, after, names), ready_seconds, ready_rss, rss, peak)


@contextlib.contextmanager
def _watching(machine: VirtualMachine, watcher: Watcher) -> Iterator[tuple[GuestProcess, float]]:
    """The watcher's process, and how long it took until it watched."""
    if watcher is SCRIPT:
        # Quiet but for its reports: what BEGIN prints comes when everything is attached.
        command, ready, end = "exec bpftrace /tmp/hmm-snoop.bt 0 0", "hmm-snoop: tracing", "INT"
    else:
        configuration = CONFIGURATION.format(attach=watcher.attach, per_page=str(watcher.per_page).lower())
        machine.run("cat > /tmp/hmm-exporter.yaml", stdin=configuration.encode())
        command = "cd /opt/hmm-exporter; exec python3 -m hmm_exporter --config.file /tmp/hmm-exporter.yaml"
        ready, end = "msg=ready", "TERM"  # written when /-/ready says 200
    begun = time.monotonic()
    process = machine.start(command)
    try:
        process.wait_for_output(ready, timeout=ATTACH_SECONDS)
        yield process, time.monotonic() - begun
    finally:
        process.stop(end, timeout=120)


def _timed(machine: VirtualMachine, tests: list[str]) -> float:
    return statistics.median(_workload(machine, tests) for _ in range(TIMED))


def _workload(machine: VirtualMachine, tests: list[str]) -> float:
    guest.reload_test_hmm(machine)
    answer = machine.run(WORKLOAD.format(tests=" ".join(tests)), timeout=WORKLOAD_SECONDS)
    return int(answer.stdout) / 1e9


@contextlib.contextmanager
def _statistics(machine: VirtualMachine) -> Iterator[None]:
    machine.run(f"echo 1 > {STATISTICS}")
    yield
    machine.run(f"echo 0 > {STATISTICS}")


def _programs(machine: VirtualMachine) -> dict[int, dict[str, Any]]:
    """What the kernel says of each program, by its number."""
    shown: list[dict[str, Any]] = json.loads(machine.run("bpftool prog show -j").stdout)
    return {program["id"]: program for program in shown}


def _runs(
    before: dict[int, dict[str, Any]], after: dict[int, dict[str, Any]], names: list[str] | None
) -> tuple[Run, ...]:
    programs = [after[number] for number in sorted(before) if after[number]["type"] != "cgroup_device"]
    programs = [program for program in programs if program.get("name") != RESOURCE_WALK[:NAME_LENGTH]]
    kernel_names = [program.get("name", "") for program in programs]
    if names is None:
        names = kernel_names
    elif len(kernel_names) != len(names) or not all(map(_is_called, names, kernel_names)):
        raise AssertionError(f"the kernel has {kernel_names} in place of {names}")

    def since(program: dict[str, Any], field: str) -> int:
        return int(program.get(field, 0)) - int(before[program["id"]].get(field, 0))

    return tuple(
        Run(name, since(program, "run_cnt"), since(program, "run_time_ns")) for name, program in zip(names, programs)
    )


def _is_called(program: str, kernel_name: str) -> bool:
    return kernel_name in (WITH_CALLBACK, program.partition("_")[2][:NAME_LENGTH])


def _program_names(watcher: Watcher, machine: VirtualMachine) -> list[str]:
    """The exporter's programs in the order in which it loads them: the kernel cuts their names."""
    page = machine.run("curl -s localhost:10466/metrics | grep hmm_exporter_probe_info").stdout
    refused = [line for line in page.splitlines() if 'state="error"' in line or 'state="denied"' in line]
    if refused:  # figures without it would be too good
        raise AssertionError(f"not attached: {refused}")
    attached = {
        line.partition('probe="')[2].partition('"')[0] for line in page.splitlines() if 'state="attached"' in line
    }
    groups = frozenset(
        group.name for group in GROUPS if group.default or (watcher.per_page and group.name == "per_page")
    )
    return [
        name
        for probe in reversed(PROBES)
        if probe.name in attached
        for name in reversed(wanted_programs(probe, groups))
    ]


def _memory(machine: VirtualMachine, pid: int) -> tuple[float, float]:
    """Resident memory now, and the most there was, in MB."""
    lines = machine.run(f"grep -E '^Vm(RSS|HWM):' /proc/{pid}/status").stdout.splitlines()
    kilobytes = {line.split()[0]: int(line.split()[1]) for line in lines}
    return kilobytes["VmRSS:"] * 1024 / 1e6, kilobytes["VmHWM:"] * 1024 / 1e6


def _loader_peak(machine: VirtualMachine) -> float:
    """The largest process that `--check` starts: the one that compiles."""
    program = (
        "import resource, subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'hmm_exporter', '--check'], check=True, stdout=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    answer = machine.run("cd /opt/hmm-exporter; exec python3 -", timeout=ATTACH_SECONDS, stdin=program.encode())
    return int(answer.stdout) * 1024 / 1e6


def _summary(one: Round) -> str:
    bpf, runs = sum(run.nanoseconds for run in one.runs) / 1e6, sum(run.runs for run in one.runs)
    return (
        f"{one.watcher.name:18} workload {one.seconds:6.2f} s, BPF {bpf:8.2f} ms in {runs} runs,"
        f" ready after {one.ready_seconds:5.2f} s, {one.rss:5.1f} MB"
    )
