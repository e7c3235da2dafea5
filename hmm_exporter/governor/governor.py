# SPDX-License-Identifier: Apache-2.0
"""Sheds groups of probes where watching costs more than it may, and takes them back: what ``policy`` decides is done.

A group goes in two steps, so that no call is counted by halves. First nothing new begins: what begins its calls is not
watched any more. When no thread is inside of them, or after `GRACE_SECONDS`, the rest follows, and threads that are
still inside are forgotten: nobody will see them return.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

from hmm_exporter import log
from hmm_exporter.bpf.attach import Attachments
from hmm_exporter.bpf.plan import ATTACHED, SHED, Outcome
from hmm_exporter.catalog import tables
from hmm_exporter.catalog.probes import GROUPS, PROBES
from hmm_exporter.governor.estimate import ASSUMED_NANOSECONDS, Counted, Estimate
from hmm_exporter.governor.policy import Decision, Policy
from hmm_exporter.metrics.exporter import program_runs, statistics_are_on
from hmm_exporter.metrics.scrape import Scrape
from hmm_exporter.privileged.message import Busy, Refused
from hmm_exporter.probing import begins, bits

ROUND_SECONDS = 15.0
TIMED_SECONDS = 1.0
BETWEEN_SECONDS = 60.0
"""From one second that is timed to the next."""
GRACE_SECONDS = 60.0
"""Then a call that was under way is not waited for any more."""

_log = log.Logger(__name__)
_NUMBERS = {probe.name: number for number, probe in enumerate(PROBES)}
_GROUPS = {group.name: group for group in GROUPS}


class Probes(Protocol):
    """What attaches and detaches: ``hmm_exporter.probing.Probing``."""

    @property
    def outcomes(self) -> Sequence[Outcome]: ...

    @property
    def can_attach(self) -> bool: ...

    def statistics(self) -> int | None: ...

    def shed(self, probes: Collection[str], reason: str) -> None: ...

    def take_back(self, probes: Collection[str]) -> None: ...


class Governor:
    """To be asked for a `round` by one thread; a collector of what watching costs, for all others."""

    def __init__(
        self,
        limit: float,
        probing: Probes,
        attachments: Attachments,
        scrape: Scrape,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """``limit``: the part of one CPU that watching may take, 0 for whatever it takes.

        ``changed`` is called when other probes are attached than before; the scrape knows it by then.
        """
        self._policy = Policy(GROUPS, limit)
        self._probing = probing
        self._attachments = attachments
        self._scrape = scrape
        self._changed = changed
        self._one = threading.Lock()
        self._estimate = Estimate()
        self._timing: int | None = None
        self._switch_at = 0.0
        """When the next second begins to be timed, or this one ends."""
        self._may_time = True
        self._told_of_helper = False
        self._draining: dict[str, float] = {}
        """Groups with calls under way, until when those are waited for."""
        self._sheds = dict.fromkeys(_GROUPS, 0)

    def limit(self, cpu: float) -> None:
        """So much it may take from now on."""
        self._policy.limit = cpu

    def round(self, now: float) -> float:
        """Look, and do what there is to be done; never waits. ``now``: seconds of a clock that does not jump.

        In how many seconds, at the latest, it wants to be asked again.
        """
        try:
            self._time(now)
            self._observe()
            self._drain(now)
            self._policy.keep({each.probe.group for each in self._probing.outcomes if each.state == SHED})
            decision = self._policy.round(now, self._by_group())
            if decision and self._may_decide():
                self._shed(decision, now) if decision.shed else self._take_back(decision, now)
        except Busy:
            return TIMED_SECONDS
        except OSError as error:  # the kernel has no memory to copy a map to; the next round may find some
            _log.error("cannot see what watching costs", reason=error.strerror)
        if self._draining:
            return TIMED_SECONDS
        return min(max(self._switch_at - now, 0.0), ROUND_SECONDS) if self._may_time else ROUND_SECONDS

    def collect(self) -> Iterator[Family]:
        self._observe()
        yield CounterMetricFamily(
            "hmm_exporter_bpf_cpu_seconds",
            "CPU time of the exporter's BPF programs, an estimate: all their runs, times what a run took when it was"
            f" last timed, for a second in sixty, or always where kernel.bpf_stats_enabled is 1; {ASSUMED_NANOSECONDS}"
            " ns where it never was. Without what it takes to get into a program.",
            value=sum(self._seconds().values()),
        )
        yield GaugeMetricFamily(
            "hmm_exporter_bpf_cpu_measured",
            "1 if hmm_exporter_bpf_cpu_seconds_total is from runs that were timed; 0 if not even some may be, which"
            " takes CAP_SYS_ADMIN or kernel.bpf_stats_enabled=1.",
            value=int(self._may_time or statistics_are_on()),
        )
        yield GaugeMetricFamily(
            "hmm_exporter_helper_up",
            "1 while the helper is there, without which no probe can be attached again but by a restart.",
            value=int(self._probing.can_attach),
        )
        shed = GaugeMetricFamily(
            "hmm_exporter_group_shed",
            "1 while the probes of a group are detached because watching took more than limits.cpu. Its metrics are"
            " absent then, all others exact; without range_fault or device_exclusive no migration is nested.",
            labels=("group",),
        )
        sheds = CounterMetricFamily(
            "hmm_exporter_sheds",
            "How often the probes of a group were detached because watching took more than limits.cpu.",
            labels=("group",),
        )
        there = {each.probe.group for each in self._probing.outcomes if each.state in (ATTACHED, SHED)}
        for group in (name for name in _GROUPS if name in there):
            shed.add_metric((group,), int(group in self._policy.shed))
            sheds.add_metric((group,), self._sheds[group])
        yield shed
        yield sheds

    def close(self) -> None:
        if self._timing is not None:
            os.close(self._timing)
            self._timing = None

    def _time(self, now: float) -> None:
        """Begin a second that is timed, or end it."""
        if now < self._switch_at or not self._may_time:
            return
        self._switch_at = now + BETWEEN_SECONDS
        if self._timing is not None:
            self.close()
        elif not statistics_are_on():
            try:
                self._timing = self._probing.statistics()
            except Busy:
                self._switch_at = now + TIMED_SECONDS
                return
            except Refused as refusal:
                _log.debug("BPF programs are not timed", reason=str(refusal))
                return
            if self._timing is not None:
                self._switch_at = now + TIMED_SECONDS
            else:
                self._may_time = False
                _log.info(
                    "the time of BPF programs is assumed, not measured: that takes CAP_SYS_ADMIN, or"
                    " kernel.bpf_stats_enabled=1",
                    nanoseconds_a_run=ASSUMED_NANOSECONDS,
                )

    def _observe(self) -> None:
        with self._one, self._scrape.paused():
            self._estimate.observe(counted(self._attachments))

    def _seconds(self) -> Mapping[str, float]:
        with self._one:
            return self._estimate.seconds()

    def _by_group(self) -> Mapping[str, float]:
        groups = dict.fromkeys(_GROUPS, 0.0)
        for probe, seconds in self._seconds().items():
            groups[PROBES[_NUMBERS[probe]].group] += seconds
        return groups

    def _may_decide(self) -> bool:
        """Not without the helper: what is let go of could not be taken back."""
        if not self._probing.can_attach and not self._told_of_helper:
            self._told_of_helper = True
            _log.error("the helper has ended: no group is shed or taken back, no probe attached, until a restart")
        return not self._told_of_helper

    def _shed(self, decision: Decision, now: float) -> None:
        self._probing.shed(
            [name for name in self._probes(decision.group, ATTACHED) if begins(name)], _reason(self._policy.limit)
        )
        self._policy.done(decision, now)
        self._draining[decision.group] = now + GRACE_SECONDS
        self._sheds[decision.group] += 1
        meanwhile = _GROUPS[decision.group].meanwhile
        _log.warning(
            "group of probes shed: watching takes more than limits.cpu",
            group=decision.group,
            cpu=_percent(decision.total),
            group_cpu=_percent(decision.cost),
            limit=_percent(self._policy.limit),
            **({"meanwhile": meanwhile} if meanwhile else {}),
        )
        self._tell()

    def _drain(self, now: float) -> None:
        """Let go of what only calls under way needed, when there are none, or were for too long."""
        for group, until in list(self._draining.items()):
            if not self._probes(group, SHED):  # a reload wants none of them any more
                del self._draining[group]
                continue
            probes = [probe.name for probe in PROBES if probe.group == group]
            if now >= until or not self._scrape.are_inside(bits(probes)):
                self._detach_all(group)
        gone = [
            each.probe.name
            for each in self._probing.outcomes
            if each.state != ATTACHED and each.probe.group not in self._draining
        ]
        self._scrape.end_threads(bits(gone))

    def _detach_all(self, group: str) -> None:
        for state in (ATTACHED, SHED):  # first what follows in a call, then all returns
            self._probing.shed(self._probes(group, state), _reason(self._policy.limit))
        del self._draining[group]
        self._tell()

    def _take_back(self, decision: Decision, now: float) -> None:
        if decision.group in self._draining:
            self._detach_all(decision.group)
        probes = self._probes(decision.group, SHED)
        # A bit that was left by a call that nobody saw return would be taken for one that is under way.
        self._scrape.end_threads(bits(probes))
        if self._scrape.are_inside(bits(probes)):
            return
        try:
            self._probing.take_back(probes)
        except Busy:
            raise
        except Refused as refusal:
            self._policy.failed()
            _log.error("group of probes not taken back", group=decision.group, reason=str(refusal))
            return
        self._policy.done(decision, now)
        _log.info(
            "group of probes taken back",
            group=decision.group,
            cpu=_percent(decision.total),
            group_cpu=_percent(decision.cost),
            limit=_percent(self._policy.limit),
        )
        self._tell()

    def _probes(self, group: str, state: str) -> Sequence[str]:
        return [each.probe.name for each in self._probing.outcomes if each.probe.group == group and each.state == state]

    def _tell(self) -> None:
        self._scrape.watch(self._probing.outcomes)
        self._changed()


def counted(attachments: Attachments) -> Mapping[str, Counted]:
    """What the programs of each probe have counted, and what the kernel has timed."""
    timed: dict[str, tuple[int, int]] = {}
    for program in attachments.programs:
        its = program_runs(program.fd)
        runs, nanoseconds = timed.get(program.probe, (0, 0))
        timed[program.probe] = runs + its.runs, nanoseconds + its.nanoseconds
    rows = attachments.maps.read(tables.PROBE_CALL) if attachments.maps else ()
    words = dict(zip(_NUMBERS, (row.words for row in rows)))
    return {probe: Counted(words[probe][_RUNS], *its) for probe, its in timed.items()}


_RUNS = [value.name for value in tables.PROBE_CALL.values].index("runs")


def _reason(limit: float) -> str:
    return f"watching took more than limits.cpu ({_percent(limit)} of a CPU)"


def _percent(part: float) -> str:
    return f"{100 * part:.3g}%"
