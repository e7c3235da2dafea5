# SPDX-License-Identifier: Apache-2.0
"""How the exporter itself is: whether its figures are whole, how near its limits are, what it costs and may do.

From its metrics about itself, but for the rights of the process, which the kernel tells in /proc/self/status.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hmm_exporter.report.snapshot import Number, Snapshot
from hmm_exporter.report.units import Unit
from hmm_exporter.web.page.figures import Figures, percent, written
from hmm_exporter.web.page.markup import Html, element

_STATUS = Path("/proc/self/status")
_SETS = ("CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd")
_SECCOMP = {"0": "no seccomp filter", "1": "strict seccomp", "2": "a seccomp filter"}
_NEARLY_FULL = 0.9  # as HmmExporterMapNearlyFull has it, deploy/prometheus/alerts.yaml
_MISSED, _OVERFLOW = "hmm_exporter_probe_missed_total", "hmm_exporter_label_overflow_events_total"


@dataclass(frozen=True)
class Fact:
    """``problem``: what to say of it at the top of the page; empty where all is well."""

    title: str
    text: str
    problem: str = ""


def facts(figures: Figures, status: Path = _STATUS) -> list[Fact]:
    """Most important first."""
    return [
        *_whole(figures),
        *_limits(figures.total),
        *_cost(figures),
        *_configuration(figures.total),
        *_rights(status),
        *_made_of(figures.total),
    ]


def section(its: list[Fact]) -> Html:
    return element(
        "dl",
        *(
            element(
                "div", element("dt", fact.title), element("dd", fact.text), class_="alarming" if fact.problem else None
            )
            for fact in its
        ),
        class_="health",
    )


def _whole(figures: Figures) -> Iterator[Fact]:
    total = figures.total
    if total.has("hmm_exporter_books_balanced"):
        balanced = bool(total.total("hmm_exporter_books_balanced"))
        in_flight = written(total.total("hmm_exporter_migrations_in_flight"), Unit.count)
        abandoned = written(total.total("hmm_exporter_migrations_abandoned_total"), Unit.count)
        text = f"{'balanced' if balanced else 'not balanced'}; {in_flight} in flight, {abandoned} abandoned"
        yield Fact("Books of migrations", text, "" if balanced else "the books of migrations do not balance")
    yield from _lost(figures, _MISSED, "probe", "Events missed", "events are missed by")
    yield from _lost(figures, _OVERFLOW, "map", "Booked as other", "events find no room in")


def _lost(figures: Figures, sample: str, label: str, title: str, problem: str) -> Iterator[Fact]:
    """What is lost now is a problem; what was lost once is told."""
    if not figures.total.has(sample):
        return
    total, new = figures.total.sums(sample, (label,)), figures.new.sums(sample, (label,))
    where = ", ".join(f"{each} {written(count, Unit.count)}" for (each,), count in _largest(total))
    lost = figures.seconds and sum(new.values())
    what = (
        f"{figures.rate(lost, Unit.count)} {problem} {', '.join(each for (each,), _ in _largest(new))}" if lost else ""
    )
    yield Fact(title, where or "none", what)


def _limits(total: Snapshot) -> Iterator[Fact]:
    entries, capacity = (total.sums(f"hmm_exporter_map_{each}", ("map",)) for each in ("entries", "capacity"))
    filled = {its[0]: entries.get(its, 0) / room for its, room in capacity.items()}
    if filled:
        fullest = sorted(filled, key=lambda each: (-filled[each], each))[:3]
        text = ", ".join(f"{each} {percent(filled[each])}" for each in fullest)
        full = [each for each in fullest if filled[each] > _NEARLY_FULL]
        yield Fact("Fullest BPF maps", text, f"nearly full: {', '.join(full)}" if full else "")
    series, limit = total.total("hmm_exporter_series"), total.total("hmm_exporter_series_limit")
    if limit:
        text = f"{written(series, Unit.count)} of {written(limit, Unit.count)}"
        yield Fact("Series", text, "nearly as many series as there may be" if series / limit > _NEARLY_FULL else "")


def _cost(figures: Figures) -> Iterator[Fact]:
    total = figures.total
    took = total.total("hmm_exporter_collect_duration_seconds")
    if took:
        ready = written(total.total("hmm_exporter_ready_duration_seconds"), Unit.seconds)
        yield Fact("Reading the maps", f"{written(took, Unit.seconds)}; ready {ready} after the start")
    if total.has("hmm_exporter_bpf_cpu_seconds_total"):
        yield Fact("CPU of the probes", f"about {_cpu('hmm_exporter_bpf_cpu_seconds_total', figures)}")
    if total.has("process_resident_memory_bytes"):
        memory = written(total.total("process_resident_memory_bytes"), Unit.bytes)
        files = written(total.total("process_open_fds"), Unit.count)
        yield Fact("Process", f"{memory} of memory, {_cpu('process_cpu_seconds_total', figures)}, {files} open files")


def _cpu(sample: str, figures: Figures) -> str:
    spent: Number = figures.new.total(sample)
    return (
        f"{percent(spent / figures.seconds)} of a CPU" if figures.seconds else f"{written(spent, Unit.seconds)} of CPU"
    )


def _configuration(total: Snapshot) -> Iterator[Fact]:
    if not total.has("hmm_exporter_config_last_reload_successful"):
        return
    at = total.total("hmm_exporter_config_last_reload_success_timestamp_seconds")
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))
    if total.total("hmm_exporter_config_last_reload_successful"):
        yield Fact("Configuration", f"read {when}")
    else:
        yield Fact(
            "Configuration", f"the one read {when}", "the configuration was refused when read again; see the log"
        )


def _rights(status: Path) -> Iterator[Fact]:
    try:
        lines = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
        held = [f"{each} {int(lines[each], 16):x}" for each in _SETS if int(lines[each], 16)]
        kept = f"capabilities: {', '.join(held)}" if held else "no capability in any set"
        privileges = "no_new_privs" if lines["NoNewPrivs"] == "1" else "may gain privileges by exec"
        yield Fact("Rights", f"{kept}; {privileges}; {_SECCOMP[lines['Seccomp']]}")
    except (OSError, KeyError, ValueError):
        yield Fact("Rights", "/proc/self/status does not tell")


def _made_of(total: Snapshot) -> Iterator[Fact]:
    for release, lockdown, btf in total.sums("hmm_exporter_kernel_info", ("release", "lockdown", "btf")):
        yield Fact("Kernel", f"{release}; lockdown {lockdown}; {'BTF' if btf == 'yes' else 'no BTF'}")
    for python, bcc in total.sums("hmm_exporter_build_info", ("python", "bcc")):
        yield Fact("Made with", f"Python {python}, bcc {bcc}")


def _largest(sums: dict[tuple[str, ...], Number]) -> list[tuple[tuple[str, ...], Number]]:
    return sorted(((its, count) for its, count in sums.items() if count), key=lambda each: (-each[1], each[0]))[:3]
