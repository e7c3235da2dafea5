# SPDX-License-Identifier: Apache-2.0
"""A whole summary, and a whole report: head, sections, and what it does not know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hmm_exporter.bpf.plan import ATTACHED, Outcome
from hmm_exporter.report.blocks import Column, Section, Table
from hmm_exporter.report.sections import FINAL
from hmm_exporter.report.snapshot import Snapshot
from hmm_exporter.report.stacks import Stack
from hmm_exporter.report.summary_sections import SUMMARY
from hmm_exporter.report.text import Page, cut, section, wrapped
from hmm_exporter.report.units import Unit, figure

_MISSED = Section(
    "What this report missed",
    (
        Table(
            "events that a probe did not see, or not to the end",
            ("probe",),
            (Column("events", "hmm_exporter_probe_missed_total"),),
        ),
        Table(
            "events without a row of their own: they are in other",
            ("map",),
            (Column("events", "hmm_exporter_label_overflow_events_total"),),
        ),
        Table(
            "",
            (),
            (
                Column("migrations without end", "hmm_exporter_migrations_abandoned_total"),
                Column("in flight", "hmm_exporter_migrations_in_flight"),
                Column("faults on pages of unknown arrival", "hmm_exporter_residency_misses_total"),
            ),
        ),
    ),
)


@dataclass(frozen=True)
class Subject:
    """What a report is about."""

    version: str
    kernel: str
    pids: tuple[int, ...] = ()
    comms: tuple[str, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    command: tuple[str, ...] = ()
    command_pid: int | None = None

    @property
    def who(self) -> str:
        """``processes 4302 and 4417 named train.py``"""
        pids = " and ".join(map(str, self.pids))
        comms = " or ".join(self.comms)
        if not pids and not comms:
            return "all processes"
        only = f"process{'es' * (len(self.pids) > 1)} {pids}" if pids else "processes"
        return f"{only} named {comms}" if comms else only


def start(subject: Subject, interval: float, page: Page) -> list[str]:
    """Once all is attached: what is watched, and what is not. Why not is said at the end."""
    often = f"a summary every {figure(interval, Unit.seconds)}; " if interval else ""
    lines = wrapped(f"hmm-exporter: watching {subject.who}; {often}Ctrl-C ends with the report", page.width)
    missing = [outcome.probe.name for outcome in subject.outcomes if outcome.state != ATTACHED]
    if missing:
        text = f"{len(missing)} of {len(subject.outcomes)} probes are not attached: {', '.join(missing)}"
        lines += [page.style.warning(line) for line in wrapped(text, page.width)]
    return lines


def summary(
    now: Snapshot, earlier: Snapshot, seconds: float, elapsed: float, subject: Subject, page: Page
) -> list[str]:
    """What happened in the last ``seconds``, and since the start in all."""
    when, last = f"t = {figure(elapsed, Unit.seconds)}", f"the last {figure(seconds, Unit.seconds)}"
    sections = [line for its in SUMMARY for line in section(its, now.since(earlier), (), page)]
    if not sections:
        return [cut(f"{when}: nothing in {last}, {subject.who}", page.width)]
    started = figure(now.total("hmm_migrations_started_total"), Unit.count)
    moved = figure(now.total("hmm_migration_moved_size_bytes_sum"), Unit.bytes)
    faults = figure(now.total("hmm_range_faults_total"), Unit.count)
    busy = figure(now.total("hmm_range_fault_failures_total", errno="EBUSY"), Unit.count)
    text = f"since the start: {started} migrations" + f" moved {moved}" * now.has("hmm_migration_moved_size_bytes_sum")
    text += f"; {faults} hmm_range_fault, {busy} of them EBUSY"
    head = ["", *_banner(f"{when}: {last}, {subject.who}", page)]
    return [*head, *sections, "", *(f"  {line}" for line in wrapped(text, page.width - 2)), ""]


def report(
    now: Snapshot, stacks: Sequence[Stack], elapsed: float, status: int | None, subject: Subject, page: Page
) -> list[str]:
    """Everything since the start. ``status`` is COMMAND's exit status, if it ended."""
    lines = ["", *_banner(f"hmm-exporter report: {figure(elapsed, Unit.seconds)}, {subject.who}", page)]
    lines += [f"  {line}" for text in _head(status, subject) for line in wrapped(text, page.width - 2)]
    sections = [line for its in FINAL for line in section(its, now, stacks, page)]
    lines += sections or ["", "  Nothing happened."]
    return [*lines, *_tail(now, subject, page), ""]


def _banner(title: str, page: Page) -> Iterator[str]:
    yield page.style.heading("=" * page.width)
    yield page.style.heading(f" {cut(title, page.width - 1)}")
    yield page.style.heading("=" * page.width)


def _head(status: int | None, subject: Subject) -> Iterator[str]:
    yield f"{subject.kernel}, hmm-exporter {subject.version}"
    if subject.command:
        name = cut(" ".join(subject.command), 160)
        ended = "ended by this report" if status is None else f"exit status {status}"
        yield f"command: {name} (process {subject.command_pid}), {ended}"


def _tail(now: Snapshot, subject: Subject, page: Page) -> Iterator[str]:
    missed = section(_MISSED, now, (), page)
    nothing = wrapped("Nothing was missed: no event was skipped, and each has a row of its own.", page.width - 2)
    yield from missed or ["", *(f"  {line}" for line in nothing)]
    if now.has("hmm_exporter_books_balanced") and not now.total("hmm_exporter_books_balanced"):
        text = "The books do not balance: migrations, or their bytes, are missing from what is shown."
        yield from ["", *(f"  {page.style.warning(line)}" for line in wrapped(text, page.width - 2))]
    attached = sum(outcome.state == ATTACHED for outcome in subject.outcomes)
    yield ""
    yield f"  Watched: {attached} of {len(subject.outcomes)} probes."
    for outcome in subject.outcomes:
        if outcome.state != ATTACHED:
            first, *more = wrapped(f"{outcome.probe.name}: {outcome.state}: {outcome.reason}", page.width - 6)
            yield f"    {page.style.warning(first)}"
            yield from (f"      {page.style.warning(line)}" for line in more)
