# SPDX-License-Identifier: Apache-2.0
"""The probes while they are watched: detached here, attached by the helper, and what became of each.

When that is done is the reload's, and the governor's, to say.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from hmm_exporter.bpf.attach import Attachments, wanted_programs
from hmm_exporter.bpf.plan import ATTACHED, DENIED, DISABLED, ERROR, SHED, Outcome, why_disabled
from hmm_exporter.catalog.probe import Probe
from hmm_exporter.catalog.probes import PROBES
from hmm_exporter.config import Config
from hmm_exporter.metrics.books import IN_MIGRATION
from hmm_exporter.metrics.scrape import Scrape
from hmm_exporter.privileged.client import Client
from hmm_exporter.privileged.message import Attach, Busy, Refused

RETURN_SECONDS = 0.5
"""Most calls that are under way have returned by then, so that they are seen to the end. A reload waits for them."""

_PROBES = {probe.name: probe for probe in PROBES}
_NUMBERS = {probe.name: number for number, probe in enumerate(PROBES)}


class Probing:
    """Attachments and the helper; the set of attached probes changes only here."""

    def __init__(self, config: Config, attachments: Attachments, helper: Client, scrape: Scrape) -> None:
        self._config = config
        self._attachments = attachments
        self._helper = helper
        self._scrape = scrape
        self._one = threading.Lock()

    @property
    def outcomes(self) -> Sequence[Outcome]:
        return self._attachments.outcomes

    @property
    def can_attach(self) -> bool:
        """Whether what is detached can be attached again."""
        return self._helper.alive

    def statistics(self) -> int | None:
        """A fd: while it is open, programs' runs are counted, and the time in them. None where that is forbidden.

        Raises Refused; of these three calls, which do not wait, each raises Busy while a reload is under way.
        """
        with self._at_once():
            return self._helper.statistics()

    def shed(self, probes: Collection[str], reason: str) -> None:
        """Detach probes; their entries first, and the returns when `shed` is called for them again. Raises Busy."""
        with self._at_once():
            again = all(each.state == SHED for each in self.outcomes if each.probe.name in probes)
            self._attachments.detach(probes, entries_only=not again)
            self._become(
                replace(each, state=SHED, kind="none", reason=reason)
                for each in self.outcomes
                if each.probe.name in probes and each.state == ATTACHED
            )

    def take_back(self, probes: Collection[str]) -> None:
        """Attach probes that were shed, as far as they are wanted. Raises Refused, Busy."""
        with self._at_once():
            shed = [each.probe.name for each in self.outcomes if each.state == SHED and each.probe.name in probes]
            self._attach(shed, self._config, soon=True)

    def regroup(self, config: Config) -> None:
        """Attach and detach what the configuration wants otherwise than before, and try again what failed.

        Raises Refused: nothing is changed.
        """
        with self._one:
            if config.probes == self._config.probes:
                self._config = config
                return
            state = {each.probe.name: each.state for each in self.outcomes}
            wanted, loaded = _wanted(config), self._loaded()
            # Those that are shed, too: to take them back must not take compiling.
            stale = [name for name in wanted & loaded.keys() if loaded[name] != _programs(name, config)]
            changed = [name for name in stale if state[name] == ATTACHED]
            missing = [name for name in wanted if state[name] in (DISABLED, DENIED, ERROR)]
            if stale:  # before anything is let go of
                self._helper.attach(_request(stale, config, load_only=True))
            self._attach(missing, config)
            self._config = config
            self._exchange(changed, config)
            self._let_go([name for name, its in state.items() if name not in wanted and its in (ATTACHED, SHED)])
            self._become(
                replace(each, state=DISABLED, kind="none", reason=_why_not_wanted(each.probe, config))
                for each in self.outcomes
                if each.probe.name not in wanted
            )

    def close(self) -> None:
        """Detach everything, and end the helper. Whatever is under way ends first, or is refused."""
        self._helper.close()
        with self._one:
            self._attachments.close()

    def _exchange(self, probes: Sequence[str], config: Config) -> None:
        """Attach the new programs of probes in place of the old ones; for a moment there is neither."""
        if not probes:
            return
        self._attachments.detach(probes)
        try:
            self._attach(probes, config, soon=True)
        except Refused as refusal:  # it was there a moment ago
            self._become(
                replace(each, state=ERROR, kind="none", reason=str(refusal))
                for each in self.outcomes
                if each.probe.name in probes
            )

    def _let_go(self, probes: Collection[str]) -> None:
        """Detach for good: first what begins calls, then, when those under way have returned, the rest."""
        self._attachments.detach([name for name in probes if begins(name)], entries_only=True)
        deadline = time.monotonic() + RETURN_SECONDS
        while self._scrape.are_inside(bits(probes)) and time.monotonic() < deadline:
            time.sleep(RETURN_SECONDS / 10)
        self._attachments.detach(probes)
        self._scrape.end_threads(bits(probes))

    @contextlib.contextmanager
    def _at_once(self) -> Iterator[None]:
        if not self._one.acquire(blocking=False):
            raise Busy("a reload is under way")
        try:
            yield
        finally:
            self._one.release()

    def _loaded(self) -> dict[str, frozenset[str]]:
        """Programs that are loaded, by probe."""
        names: dict[str, set[str]] = {}
        for program in self._attachments.programs:
            names.setdefault(program.probe, set()).add(program.name)
        return {probe: frozenset(programs) for probe, programs in names.items()}

    def _attach(self, probes: Sequence[str], config: Config, soon: bool = False) -> None:
        if not probes:
            return
        # Nobody has seen who left these functions, nor what left a device.
        self._scrape.end_threads(bits(probes))
        if "migrate_vma_setup" in probes:
            self._scrape.forget_arrivals()
        reply = self._helper.attach(_request(probes, config), soon)
        with self._scrape.paused():  # nobody is just reading what is counted of a program
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


def _request(probes: Sequence[str], config: Config, load_only: bool = False) -> Attach:
    return Attach(probes, _groups(config), config.probes.exclude, load_only)


def _why_not_wanted(probe: Probe, config: Config) -> str:
    return why_disabled(probe, config) or f"needs {probe.requires}"


def begins(probe: str) -> bool:
    """Whether it watches the beginning of a call; the others follow in that call (or are what it ends with)."""
    requires = _PROBES[probe].requires
    return not requires or _NUMBERS[requires] > _NUMBERS[probe]


def bits(probes: Collection[str]) -> int:
    """What a thread that is inside of these functions has in its row (program/thread.c)."""
    found = sum(1 << _NUMBERS[probe] for probe in probes)
    # A migration is over when nobody sees its end.
    return found | IN_MIGRATION if "migrate_vma_finalize" in probes else found


def _programs(probe: str, config: Config) -> frozenset[str]:
    return frozenset(wanted_programs(_PROBES[probe], frozenset(_groups(config))))


def _wanted(config: Config) -> frozenset[str]:
    """Probes that are not disabled, nor need one that is."""
    wanted = {probe.name for probe in PROBES if not why_disabled(probe, config)}
    while alone := {name for name in wanted if _PROBES[name].requires not in {"", *wanted}}:
        wanted -= alone
    return frozenset(wanted)
