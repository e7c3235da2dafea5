# SPDX-License-Identifier: Apache-2.0
"""docs/benchmark.md: medians and spread of what was measured, beside the bounds of the design.

Belongs here: words, tables, which figure meets which bound. Does not belong here: measuring (lab.py, scrape.py,
programs.py).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.bench.lab import ALONE, EXPORTERS, SCRIPT, Measured, Round, Watcher
from tests.bench.programs import Run
from tests.bench.scrape import PROCESSES, Cost

#: The one that the bounds are for: by the kind that `auto` chooses on 6.12, and with all that the script watches, too.
COMPARED = next(watcher for watcher in EXPORTERS if watcher.attach == "fentry" and watcher.per_page)
TOP = 12

METHOD = """\
# What it costs to watch

Written by `make bench`. Nothing here is asserted by a test.

## Method

**In the lab** ([tests/lab](../tests/lab/README.md)), one machine for everything: the kernel's own hmm-tests in order,
without their benchmarks, watched in turn by nobody, by the bpftrace script hmm-snoop.bt, and by the exporter by fentry
and by kprobe, each at its defaults and with the group `per_page`, which is off by default and which the script watches,
too. All of them once a round, so that what changes meanwhile meets all alike; each is started anew. Huge pages are
`always`; `test_hmm` is loaded anew before each run. In a round the tests run four times for each watcher: three
times with the kernel's BPF statistics off, for the time of the workload; once with them on, for the run time of the
programs (`bpftool prog show`). They do not see what it takes to get into a program: a breakpoint, a trampoline.
*Ready* is from the start of the process until the script's BEGIN says that it traces, or the exporter logs that
`/-/ready` says 200. Figures are medians; in brackets the least and the most. The processor is **emulated**
(QEMU, TCG): shares of each other are meaningful, times are not those of a real machine.

**On the simulator** ([tests/simulator](../tests/simulator/README.md)), on this machine itself, not emulated: the same
programs as uprobes, over known events; and a node of 8 GPUs (one owner, `nvidia_uvm`) whose rows are written into the
maps, scraped as OpenMetrics and compressed. The maps are those of the number of CPUs named. Memory is in MB (10^6
bytes) resident, maps are in MiB as the kernel accounts them.
"""


_VERDICTS = {True: "met", False: "**missed**", None: "undecided"}


@dataclass(frozen=True)
class Machine:
    """Where it was measured."""

    processor: str
    cores: int
    kernel: str
    python: str


@dataclass(frozen=True)
class Bound:
    """What the design allows, and what was measured."""

    what: str
    limit: str
    measured: str
    met: bool | None
    """None where what was measured cannot tell."""


def text(
    machine: Machine,
    lab: Measured,
    costs: Sequence[Cost],
    maps: Mapping[int, int],
    runs: Sequence[Run],
    instructions: Mapping[str, int],
    kept: tuple[str, Mapping[str, int]],
) -> str:
    """The whole document."""
    emulated = f"emulated, 1 CPU, Linux {lab.kernel}, huge pages {lab.huge_pages}, {_rounds(lab)} rounds"
    parts = [
        METHOD,
        f"Machine: {machine.processor}, {machine.cores} cores, Linux {machine.kernel}, Python {machine.python}."
        f" The lab's: {emulated}, {lab.tests} tests.\n",
        "## Bounds\n",
        _table(
            ("what", "bound", "measured", ""),
            ((b.what, b.limit, b.measured, _VERDICTS[b.met]) for b in _bounds(lab, costs, maps)),
        ),
        "## A workload that is watched\n",
        *([f"Left out: the script. {lab.script_missing}.\n"] if lab.script_missing else []),
        _table(
            ("watched by", "workload, s", "slower by", "BPF run time, ms", "runs", "ns a run", "ready after, s",
             "MB ready", "MB after", "MB at most"),
            _watched(lab),
        ),
        f"The loader, a process of its own that has ended by then, takes {lab.loader_peak_rss:.0f} MB at most.\n",
        *_programs_of(lab),
        "## Programs on the simulator\n",
        _table(
            ("program", "runs", "ms", "ns a run"),
            ((f"`{r.program}`", str(r.runs), f"{r.nanoseconds / 1e6:.1f}", _each(r)) for r in runs[:TOP] if r.runs),
        ),
        "## A scrape\n",
        _table(
            ("processes", "possible CPUs", "HMM series", "ms of CPU", "ms", "kB sent", "MB before", "MB after"),
            (
                (str(c.processes), str(c.cpus), str(c.series), f"{c.cpu_milliseconds:.1f}", f"{c.milliseconds:.1f}",
                 f"{c.bytes / 1e3:.0f}", f"{c.rss_before:.1f}", f"{c.rss_after:.1f}")
                for c in costs
            ),
        ),
        "Kernel memory of all maps: "
        + ", ".join(f"{size / 2**20:.1f} MiB on {cpus} CPUs" for cpus, size in maps.items())
        + ".\n",
        f"## What the verifier looks at\n\nInstructions processed, kprobe build, Linux {machine.kernel}; growth against"
        f" `tests/bench/verifier.json` (Linux {kept[0]}). A million is the limit.\n",
        _table(
            ("program", "instructions", "growth"),
            (
                (f"`{name}`", str(number), f"{number / kept[1][name]:.2f}" if name in kept[1] else "new")
                for name, number in sorted(instructions.items(), key=lambda pair: -pair[1])[:TOP]
            ),
        ),
    ]  # fmt: skip
    return "\n".join(parts)


def bpf_ratio(lab: Measured, watcher: Watcher) -> float:
    """The watcher's BPF run time as a share of the script's."""
    return _median(lab, watcher, _bpf_ms) / _median(lab, SCRIPT, _bpf_ms)


def _bounds(lab: Measured, costs: Sequence[Cost], maps: Mapping[int, int]) -> Iterator[Bound]:
    if not lab.script_missing:
        ratio = bpf_ratio(lab, COMPARED)
        default = next(watcher for watcher in EXPORTERS if watcher.attach == "fentry" and not watcher.per_page)
        yield Bound(
            f"BPF run time, {COMPARED.name}, against the script's",
            "0.30 (aim: 0.15)",
            f"{ratio:.2f}; at the defaults {bpf_ratio(lab, default):.2f}",
            ratio <= 0.30,
        )
        ours, theirs, noise = _slowdown(lab, COMPARED), _slowdown(lab, SCRIPT), _noise(lab)
        yield Bound(
            f"slowdown of the workload, {COMPARED.name}",
            f"half of the script's, {theirs / 2:.0%} (aim: 5 %)",
            f"{ours:.0%}; unwatched, it varies by {noise:.0%}",
            # A difference that is smaller than what the machine does by itself says nothing.
            ours < theirs / 2 if noise < theirs / 2 else None,
        )
        ready, script = (_median(lab, each, lambda one: one.ready_seconds) for each in (COMPARED, SCRIPT))
        yield Bound("from start to ready", f"the script's, {script:.1f} s", f"{ready:.1f} s", ready < script)
    node = next(c for c in costs if c.processes == PROCESSES and c.cpus == 2)
    large = next(c for c in costs if c.processes == PROCESSES and c.cpus == 256)
    ready_rss = max(_median(lab, each, lambda one: one.ready_rss) for each in EXPORTERS)
    rss = max(node.rss_after, large.rss_after, ready_rss)
    yield Bound(
        "the daemon's memory",
        "32 MB",
        f"{ready_rss:.1f} MB once ready (lab), {node.rss_after:.1f} after scrapes, {large.rss_after:.1f} on 256 CPUs",
        rss <= 32,
    )
    yield Bound(
        f"a scrape of 8 GPUs and {PROCESSES} processes",
        "45 ms of CPU, the same on 256 CPUs",
        f"{node.cpu_milliseconds:.0f} ms; on 256 CPUs {large.cpu_milliseconds:.0f} ms",
        # Within a quarter is the same: the process's clock has ticks of 10 ms, and nothing is counted finer.
        max(node.cpu_milliseconds, large.cpu_milliseconds) <= 45
        and large.cpu_milliseconds <= 1.25 * node.cpu_milliseconds,
    )
    yield Bound(
        "kernel memory of the maps on 256 CPUs", "32 MiB", f"{maps[256] / 2**20:.1f} MiB", maps[256] <= 32 << 20
    )
    yield Bound(
        f"HMM series of 8 GPUs and {PROCESSES} processes (30 pods have no series yet)",
        "1,500",
        f"{node.series:,}",
        node.series <= 1500,
    )


def _watched(lab: Measured) -> Iterator[tuple[str, ...]]:
    for watcher in _watchers(lab):
        seconds = _spread(lab, watcher, lambda one: one.seconds, "{:.2f}")
        if watcher == ALONE:
            yield (watcher.name, seconds, *("",) * 8)
            continue
        runs = _median(lab, watcher, lambda one: sum(run.runs for run in one.runs))
        yield (
            watcher.name,
            seconds,
            f"{_slowdown(lab, watcher):.0%}",
            _spread(lab, watcher, _bpf_ms, "{:.0f}"),
            f"{runs:.0f}",
            f"{1e6 * _median(lab, watcher, _bpf_ms) / runs:.0f}",
            _spread(lab, watcher, lambda one: one.ready_seconds, "{:.1f}"),
            f"{_median(lab, watcher, lambda one: one.ready_rss):.1f}",
            f"{_median(lab, watcher, lambda one: one.rss):.1f}",
            f"{_median(lab, watcher, lambda one: one.peak_rss):.1f}",
        )


def _programs_of(lab: Measured) -> Iterator[str]:
    for watcher in (each for each in (SCRIPT, COMPARED) if each in _watchers(lab)):
        last = [one for one in lab.rounds if one.watcher == watcher][-1]
        yield f"Programs of {watcher.name}, the last round, the most time first:\n"
        yield _table(
            ("program", "runs", "ms", "ns a run"),
            (
                (f"`{run.program}`", str(run.runs), f"{run.nanoseconds / 1e6:.1f}", _each(run))
                for run in sorted(last.runs, key=lambda run: -run.nanoseconds)[:TOP]
                if run.runs
            ),
        )


def _watchers(lab: Measured) -> list[Watcher]:
    return list(dict.fromkeys(one.watcher for one in lab.rounds))


def _rounds(lab: Measured) -> int:
    return sum(one.watcher == ALONE for one in lab.rounds)


def _slowdown(lab: Measured, watcher: Watcher) -> float:
    return _median(lab, watcher, lambda one: one.seconds) / _median(lab, ALONE, lambda one: one.seconds) - 1


def _noise(lab: Measured) -> float:
    """How far the times of the workload alone lie apart."""
    alone = [one.seconds for one in lab.rounds if one.watcher == ALONE]
    return (max(alone) - min(alone)) / statistics.median(alone) if len(alone) > 1 else 1.0


def _bpf_ms(one: Round) -> float:
    return sum(run.nanoseconds for run in one.runs) / 1e6


def _each(run: Run) -> str:
    return f"{run.nanoseconds / run.runs:.0f}"


def _median(lab: Measured, watcher: Watcher, figure: Callable[[Round], float]) -> float:
    return statistics.median(figure(one) for one in lab.rounds if one.watcher == watcher)


def _spread(lab: Measured, watcher: Watcher, figure: Callable[[Round], float], form: str) -> str:
    figures = [figure(one) for one in lab.rounds if one.watcher == watcher]
    least, most = form.format(min(figures)), form.format(max(figures))
    return f"{form.format(statistics.median(figures))} ({least} to {most})"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
