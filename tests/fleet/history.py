# SPDX-License-Identifier: Apache-2.0
"""Half an hour of a node, made up: what happens, what is scraped, and what each scrape ought to have added.

Behind the exposition is all of the exporter but its BPF programs, for which `Programs` stands, over maps in memory.
Belongs here: what happens when, and the truth about it. Does not belong here: what Prometheus makes of it.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from hmm_exporter.bpf.attach import Attachments
from hmm_exporter.bpf.plan import ATTACHED, Outcome
from hmm_exporter.catalog import tables
from hmm_exporter.catalog.metrics import METRICS
from hmm_exporter.catalog.probes import PROBES
from hmm_exporter.catalog.values import DEVICE_NONE, Class, Failure, Intent, RangeFunction, Trigger
from hmm_exporter.config import Config, Limits, Seconds
from hmm_exporter.kernel.symbols import Symbols
from hmm_exporter.metrics.beginnings import looking
from hmm_exporter.metrics.scrape import Scrape
from tests.exposition import Labels, labels
from tests.fleet.programs import Programs
from tests.unit.bpf import kernels
from tests.unit.bpf.in_memory import map_set
from tests.unit.metrics.exposed import KALLSYMS, comm, openmetrics

STEP = 15
"""Seconds from one sweep to the next, as in the daemon, and between two scrapes of which none is left out."""
STEPS = 120
MOST_LEFT_OUT = 2
FROM_ZERO = 60.0
"""Longer than there is no scrape."""
QUIET_STEPS = 8
"""Longer than that, and than until the next scrape."""
PAGE = 4096

STARTED = "hmm_migrations_started_total"
DURATIONS = "hmm_migration_duration_seconds_count"
FAILED = "hmm_migration_failures_total"
FAULTS = "hmm_range_faults_total"
OF_PROCESSES = "hmm_process_migrations_total"
BYTES_OF_PROCESSES = "hmm_process_requested_bytes_total"
FAILED_OF_PROCESSES = "hmm_process_migration_failures_total"
FAULTS_OF_PROCESSES = "hmm_process_range_faults_total"
WATCHED = frozenset(
    {STARTED, DURATIONS, FAILED, FAULTS, OF_PROCESSES, BYTES_OF_PROCESSES, FAILED_OF_PROCESSES, FAULTS_OF_PROCESSES}
)
_EXPOSED = [metric for metric in METRICS if {metric.name, f"{metric.name}_count"} & WATCHED]

#: By the names that they get from tests/unit/metrics/exposed.py's symbols: several have the same.
_OWNERS = {
    0: "none",
    **{0xFFFFFFFFC0600000 + 8 * number: "out_of_tree-somebodys_pgmap" for number in range(3)},
    **{0xFFFFFFFFC0510000 + 64 * number: f"test_hmm-{number}" for number in range(2)},
    **{0xFFFF888104A30000 + 4096 * number: f"heap object {number}" for number in range(3)},
}
_DRIVERS = {0xFFFFFFFFC0110000: "amdgpu", 0xFFFFFFFFC0210000: "xe", 0xFFFFFFFFC0210008: "xe"}
_COMMS = {comm(f"process-{number}"): f"process-{number}" for number in range(9)}
_LIMITS = Limits(owners=4, drivers=2, processes=4)
_ROOM = (10, 60, 2000)
"""Series that limits.series leaves beside those that always exist."""
_TTLS = (60.0, 120.0, 0.0)

Truth = Counter[tuple[str, Labels]]
"""Events by metric, and by the labels whose values are known beforehand."""


@dataclass(frozen=True)
class Scraped:
    at: int
    exposition: str
    truth: Truth
    """What has happened since the scrape before; after a restart, since that."""
    restarted: bool
    """Whether there was a restart since the scrape before."""


@dataclass(frozen=True)
class History:
    scrapes: list[Scraped] = field(default_factory=list)
    happened: Counter[str] = field(default_factory=Counter)
    """How often there was what shall be in a history."""


class Daemon:
    """From a start to its end, with a clock that the test moves."""

    def __init__(self, folder: Path, clock: Callable[[], float], from_zero: float) -> None:
        self._stack = contextlib.ExitStack()
        bpf, self.maps = self._stack.enter_context(map_set(_LIMITS))
        self.programs = Programs(bpf)
        (folder / "kallsyms").write_text(KALLSYMS)
        kernel = replace(kernels.kernel(), symbols=Symbols(folder / "kallsyms"))
        attachments = Attachments()
        attachments.maps = self.maps
        attachments.outcomes = [Outcome(probe, probe.name, ATTACHED, "fentry") for probe in PROBES]
        self._config = Config(limits=_LIMITS, series_from_zero=Seconds(from_zero))
        self.scrape = Scrape(kernel, self._config, attachments, ready_seconds=1, metrics=_EXPOSED, clock=clock)
        self.collector = self.scrape._collector
        assert self.scrape._idle
        self.idle = self.scrape._idle
        with looking():
            self.exposition()
        held_back = _LIMITS.series - self.collector.series_limit
        self._always = self.collector.series + held_back
        self.reload(_ROOM[1], _TTLS[0])

    def exposition(self) -> str:
        return openmetrics(self.scrape.collect())

    def reload(self, room: int, ttl: float) -> None:
        """Other limits.series and limits.idle_ttl."""
        limits = replace(_LIMITS, series=self._always + room, idle_ttl=Seconds(ttl))
        self.scrape.limit(replace(self._config, limits=limits))

    def admitted(self) -> set[int | bytes]:
        """Owners, drivers and processes that have rows of their own."""
        return {row.key[0] for table in (tables.OWNER, tables.DRIVER, tables.PROCESS) for row in self.maps.read(table)}

    def close(self) -> None:
        self._stack.close()


class _Node:
    """What happens on it, by the dice; and the truth about it."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._awake: list[int | bytes] = []
        self.truth: Truth = Counter()

    def act(self, programs: Programs, back: Collection[int | bytes] = ()) -> None:
        """Some do something, of whom are awake, and of those who are *back*."""
        if not self._awake or self._dice.random() < 0.15:
            self._awake = [*self._some(_OWNERS, 3), *self._some(_DRIVERS, 2), *self._some(_COMMS, 4)]
        self._awake += sorted(back, key=repr)
        for _ in range(self._dice.choice((0, 1, 5, 20))):
            self._dice.choice((self._migrate, self._migrate, self._mirror))(programs)

    def _some(self, names: dict[int, str] | dict[bytes, str], most: int) -> list[int | bytes]:
        chosen: list[int | bytes] = self._dice.sample(list(names), self._dice.randint(1, most))
        return chosen

    def _who(self, names: dict[int, str] | dict[bytes, str]) -> int | bytes | None:
        there = [each for each in self._awake if each in names]
        return self._dice.choice(there) if there else None

    def _migrate(self, programs: Programs) -> None:
        owner, who = self._who(_OWNERS), self._who(_COMMS)
        kind, trigger = self._dice.choice(list(Class)), self._dice.choice(list(Trigger))
        pages = self._dice.randint(1, 8)
        if owner is None or who is None:
            return
        subject, *_ = programs.count(tables.MIGRATION, (owner, kind, trigger, DEVICE_NONE), started=1)
        programs.count(tables.PROCESS_MIGRATION, (who, owner, kind), started=1)
        its = {"class": kind.name}
        self._happened(STARTED, 1, trigger=trigger.name, **its)
        self._happened(OF_PROCESSES, 1, **its)
        if self._dice.random() < 0.2:
            programs.count(tables.FAILURE, (subject, 22, Failure.migration, kind, trigger), calls=1)
            programs.count(tables.PROCESS_FAILURE, (who, 22, Failure.migration, kind), calls=1)
            self._happened(FAILED, 1, trigger=trigger.name, errno="EINVAL", **its)
            self._happened(FAILED_OF_PROCESSES, 1, errno="EINVAL", **its)
            return
        programs.count(tables.MIGRATION, (owner, kind, trigger, DEVICE_NONE), completed=1)
        slots = [0] * self._dice.randint(0, 10)
        programs.count(tables.MIGRATION_HISTOGRAM, (owner, kind), duration=[*slots, 1])
        programs.count(tables.PROCESS_MIGRATION, (who, owner, kind), requested_bytes=pages * PAGE)
        self._happened(DURATIONS, 1, **its)
        self._happened(BYTES_OF_PROCESSES, pages * PAGE, **its)

    def _mirror(self, programs: Programs) -> None:
        driver, who, intent = self._who(_DRIVERS), self._who(_COMMS), self._dice.choice(list(Intent))
        if driver is None or who is None:
            return
        programs.count(tables.RANGE_FAULT, (driver, RangeFunction.hmm_range_fault, intent), calls=1)
        programs.count(tables.PROCESS, (who,), range_faults=1)
        self._happened(FAULTS, function="hmm_range_fault", intent=intent.name)
        self._happened(FAULTS_OF_PROCESSES)

    def _happened(self, metric: str, amount: int = 1, **its: str) -> None:
        self.truth[metric, labels(**its)] += amount


class _Life:
    """What `live` does, as its steps."""

    def __init__(self, folder: Path, seed: int, start: int, from_zero: float, spoil: Callable[[Daemon], None]) -> None:
        self._folder, self._from_zero, self._spoil = folder, from_zero, spoil
        self._dice, self._now = random.Random(seed), float(start)
        self._node = _Node(self._dice)
        self.history = History()
        self._start()

    def _start(self) -> None:
        self._daemon = Daemon(self._folder, lambda: self._now, self._from_zero)
        self._spoil(self._daemon)
        self._node.truth = Counter()
        self._ended: set[int | bytes] = set()  # since the latest scrape
        self._restarted = True

    def _end(self) -> None:
        for _ in range(QUIET_STEPS if self._from_zero else 0):
            self._sweep()
            self._scrape()
        self.history.happened["overflow"] += self._daemon.programs.overflow
        self._daemon.close()

    def _scrape(self) -> None:
        exposition = self._daemon.exposition()
        self.history.scrapes.append(Scraped(int(self._now), exposition, self._node.truth, self._restarted))
        self.history.happened["anew"] += len(self._ended & self._daemon.admitted())
        self._node.truth, self._restarted = Counter(), False
        self._ended.clear()

    def _sweep(self) -> None:
        self._now += STEP
        before = self._daemon.admitted()
        self._daemon.scrape.sweep()
        ended = before - self._daemon.admitted()
        self._ended |= ended
        self.history.happened["ended"] += len(ended)

    def live(self) -> None:
        dice, happened, left_out = self._dice, self.history.happened, 0
        self._scrape()
        for _ in range(STEPS):
            self._node.act(self._daemon.programs)
            self._sweep()
            if dice.random() < 0.3:
                self._node.act(self._daemon.programs, self._ended)
            if dice.random() < 0.05:
                self._daemon.reload(dice.choice(_ROOM), dice.choice(_TTLS))
                happened["reload"] += 1
            if dice.random() < 0.02:
                self._end()
                self._now += STEP
                self._start()
                happened["restart"] += 1
                self._node.act(self._daemon.programs)
            if left_out < MOST_LEFT_OUT and dice.random() < 0.15:
                left_out += 1
                continue
            self._scrape()
            left_out = 0
        self._end()


def live(
    folder: Path, seed: int, start: int, from_zero: float = 0.0, spoil: Callable[[Daemon], None] = lambda daemon: None
) -> History:
    """A history, by the clock from *start* on. *spoil* plants a fault in each daemon.

    With *from_zero*, for which new series are shown at 0, it is quiet before each daemon's end.
    """
    life = _Life(folder, seed, start, from_zero, spoil)
    life.live()
    return life.history
