# SPDX-License-Identifier: Apache-2.0
"""The life of a report: attach, run COMMAND, sum up at every interval, and report at the end.

How each step is done belongs to its own room.
"""

from __future__ import annotations

import dataclasses
import io
import signal
import sys
import time

from hmm_exporter import __version__
from hmm_exporter.bpf.watch import attach_probes, watched_kernel
from hmm_exporter.config import Config
from hmm_exporter.daemon import SWEEP_SECONDS
from hmm_exporter.report.command import Waiter
from hmm_exporter.report.command_line import Options
from hmm_exporter.report.document import document
from hmm_exporter.report.observation import Observation, for_report
from hmm_exporter.report.pages import Subject, report, start, summary
from hmm_exporter.report.snapshot import Snapshot
from hmm_exporter.report.terminal import Terminal
from hmm_exporter.report.text import Page

_TICK_SECONDS = 1.0
_LEARN_SECONDS = 5.0
_STDERR = 2


def run(config: Config, options: Options) -> int:
    """Returns the exit status. Raises StartError."""
    config = for_report(config)
    # From here on there is something to put away, if only a line on the terminal.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a command's name may be anything
    terminal = Terminal(sys.stdout)
    # COMMAND's output and the line that lives would get into each other.
    quiet = options.json or bool(options.command)
    attachments = None
    try:
        if not options.json:
            terminal.show("attaching the probes ...")
        kernel = watched_kernel(config)
        attachments, outcomes = attach_probes(kernel, config, pids=True)
        observation = Observation(kernel, config, attachments, outcomes)
        terminal.erase()
        subject = Subject(
            __version__,
            kernel.release if kernel.simulated else f"Linux {kernel.release}",
            config.filter.tgids,
            config.filter.comms,
            tuple(outcomes),
            options.command,
        )
        if not options.json:
            terminal.write(start(subject, options.interval, Page(terminal.width, terminal.style)))
        with Waiter(options.command, _STDERR if options.json else None) as waiter:
            subject = dataclasses.replace(subject, command_pid=waiter.pid)
            return _Run(options, observation, subject, terminal, quiet).watch(waiter)
    finally:
        terminal.erase()
        if attachments:
            attachments.close()


@dataclasses.dataclass
class _Run:
    """Between the attaching and the end."""

    options: Options
    observation: Observation
    subject: Subject
    terminal: Terminal
    quiet: bool
    begun: float = dataclasses.field(default_factory=time.monotonic)

    def watch(self, waiter: Waiter) -> int:
        end = self.begun + (self.options.duration or float("inf"))
        interval = self.options.interval or float("inf")
        earlier, summed_up = Snapshot({}, {}), self.begun
        learned = swept = now = self.begun
        ended = False
        while not ended and now < end:
            self._live(now)
            ended = waiter.wait(min(end, summed_up + interval, now + _TICK_SECONDS))
            now = time.monotonic()
            if now >= learned + _LEARN_SECONDS or ended:
                self.observation.learn()
                learned = now
            if now >= swept + SWEEP_SECONDS:
                self.observation.sweep()
                swept = now
            if now >= summed_up + interval and not ended and now < end:
                latest = self.observation.snapshot()
                self._summarise(latest, earlier, now - summed_up, now - self.begun)
                earlier, summed_up = latest, now
        status = None if waiter.interrupted or not ended else waiter.status
        waiter.stop()
        self._report(now - self.begun, status)
        return status or 0

    def _live(self, now: float) -> None:
        if not self.quiet:
            seconds = int(now - self.begun)
            self.terminal.show(f"{seconds // 60}:{seconds % 60:02} {self.subject.who}; Ctrl-C ends with the report")

    def _summarise(self, now: Snapshot, earlier: Snapshot, seconds: float, elapsed: float) -> None:
        if self.options.json:
            line = document(now, self.observation.stacks(), elapsed, None, self.subject, final=False)
            self.terminal.write([line])
        else:
            self.terminal.write(summary(now, earlier, seconds, elapsed, self.subject, self._page()))

    def _report(self, elapsed: float, status: int | None) -> None:
        now, stacks = self.observation.snapshot(), self.observation.stacks()
        if self.options.json:
            self.terminal.write([document(now, stacks, elapsed, status, self.subject, final=True)])
        else:
            self.terminal.write(report(now, stacks, elapsed, status, self.subject, self._page()))

    def _page(self) -> Page:
        return Page(self.terminal.width, self.terminal.style)
