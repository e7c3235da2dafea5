# SPDX-License-Identifier: Apache-2.0
"""The probes while they are watched: detached here, attached by the helper, and what became of each.

When that is done is the reload's, and the governor's, to say.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from hmm_exporter.bpf.attach import Attachments, wanted_programs
from hmm_exporter.bpf.plan import ATTACHED, DENIED, DISABLED, ERROR, SHED, Outcome, why_disabled
from hmm_exporter.catalog.probes import PROBES
from hmm_exporter.config import Config
from hmm_exporter.privileged.client import Client
from hmm_exporter.privileged.message import Refused

RETURN_SECONDS = 0.5
"""Most calls that are under way have returned by then, so that they are seen to the end. A reload waits for them."""

_PROBES = {probe.name: probe for probe in PROBES}


class Probing:
    """Attachments and the helper; the set of attached probes changes only here."""

    def __init__(
        self,
        config: Config,
        attachments: Attachments,
        helper: Client,
        paused: Callable[[], AbstractContextManager[object]],
    ) -> None:
        """``paused``: no scrape is under way in its block."""
        self._config = config
        self._attachments = attachments
        self._helper = helper
        self._paused = paused
        self._one = threading.Lock()

    @property
    def outcomes(self) -> Sequence[Outcome]:
        return self._attachments.outcomes

    @property
    def busy(self) -> bool:
        """Whether a reload is under way, which may have to compile: who must not wait asks later."""
        return self._one.locked()

    def statistics(self) -> int | None:
        """A fd: while it is open, programs' runs are counted, and the time in them. None where that is forbidden."""
        try:
            return self._helper.statistics()
        except Refused:
            return None

    def shed(self, probes: Collection[str], reason: str) -> None:
        """Detach probes; their entries first, and the returns when `shed` is called for them again."""
        with self._one:
            again = all(each.state == SHED for each in self.outcomes if each.probe.name in probes)
            self._attachments.detach(probes, entries_only=not again)
            self._become(
                replace(each, state=SHED, kind="none", reason=reason)
                for each in self.outcomes
                if each.probe.name in probes and each.state == ATTACHED
            )

    def take_back(self, probes: Collection[str]) -> None:
        """Attach probes that were shed, as far as they are wanted. Raises Refused."""
        with self._one:
            shed = [each.probe.name for each in self.outcomes if each.state == SHED and each.probe.name in probes]
            self._attach(shed, self._config)

    def regroup(self, config: Config) -> None:
        """Attach and detach what the configuration wants otherwise than before, and try again what failed.

        A probe whose programs are others in these groups is detached for the moment that this takes. Raises Refused:
        nothing is changed.
        """
        with self._one:
            state = {each.probe.name: each.state for each in self.outcomes}
            wanted, attached = _wanted(config), self._attached()
            changed = [
                name
                for name in wanted & attached.keys()
                # Of one that is being shed, the return may still be there.
                if state[name] != SHED and attached[name] != _programs(name, config)
            ]
            missing = [name for name in wanted - attached.keys() if state[name] in (DISABLED, DENIED, ERROR)]
            self._attachments.detach(changed)
            try:
                self._attach([*changed, *missing], config)
            except Refused:
                self._attach(changed, self._config)
                raise
            self._config = config
            unwanted = attached.keys() - wanted
            if unwanted:
                self._attachments.detach(unwanted, entries_only=True)
                time.sleep(RETURN_SECONDS)
                self._attachments.detach(unwanted)
            self._become(
                replace(each, state=DISABLED, kind="none", reason=why)
                for each in self.outcomes
                if each.probe.name not in wanted and (why := why_disabled(each.probe, config) or each.reason)
            )

    def _attached(self) -> dict[str, frozenset[str]]:
        """Programs that are attached, by probe."""
        names: dict[str, set[str]] = {}
        for program, _ in self._attachments.links:
            names.setdefault(program.probe, set()).add(program.name)
        return {probe: frozenset(programs) for probe, programs in names.items()}

    def _attach(self, probes: Sequence[str], config: Config) -> None:
        if not probes:
            return
        reply = self._helper.attach(probes, _groups(config), config.probes.exclude)
        with self._paused():  # nobody is just reading what is counted of a program
            for probe in {program.probe for program, _ in reply.programs}:
                self._attachments.forget(probe)
            for program, link in reply.programs:
                self._attachments.keep(program, link)
        self._become(reply.outcomes)

    def _become(self, outcomes: Iterable[Outcome]) -> None:
        new = {each.probe.name: each for each in outcomes}
        self._attachments.outcomes = [new.get(each.probe.name, each) for each in self.outcomes]


def _groups(config: Config) -> list[str]:
    return [name for name, on in config.probes.groups.items() if on]


def _programs(probe: str, config: Config) -> frozenset[str]:
    return frozenset(wanted_programs(_PROBES[probe], frozenset(_groups(config))))


def _wanted(config: Config) -> frozenset[str]:
    """Probes that are not disabled, nor need one that is."""
    wanted = {probe.name for probe in PROBES if not why_disabled(probe, config)}
    while alone := {name for name in wanted if _PROBES[name].requires not in {"", *wanted}}:
        wanted -= alone
    return frozenset(wanted)
