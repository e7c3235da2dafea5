# SPDX-License-Identifier: Apache-2.0
"""One scrape: read all tables, name what is new, add up, and say how the exporter itself is.

The one object that the registry asks. Reads are serialised; nothing is kept between scrapes but
names and what must not go backwards.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client.metrics_core import Metric as Family

from hmm_exporter.bpf.attach import Attachments
from hmm_exporter.bpf.maps import MapSet, Row, Thread
from hmm_exporter.bpf.plan import ABSENT, ATTACHED, Outcome, reads_pages
from hmm_exporter.catalog import tables
from hmm_exporter.catalog.metric import Metric, with_process_labels
from hmm_exporter.catalog.metrics import METRICS
from hmm_exporter.catalog.tables import Table
from hmm_exporter.config import Config
from hmm_exporter.kernel import clock as kernel_clock
from hmm_exporter.kernel import modules
from hmm_exporter.kernel.features import Kernel
from hmm_exporter.metrics import books, exporter, labels
from hmm_exporter.metrics.beginnings import Beginnings
from hmm_exporter.metrics.collector import Collector
from hmm_exporter.metrics.idle import Idle
from hmm_exporter.metrics.labels import Names
from hmm_exporter.workload.workloads import Workloads


class Scrape:
    """A prometheus_client collector over one set of attachments."""

    def __init__(
        self,
        kernel: Kernel,
        config: Config,
        attachments: Attachments,
        ready_seconds: float,
        metrics: Sequence[Metric] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """``metrics``: others than the catalogue's, with the labels that the configuration adds. ``clock``: seconds."""
        self._clock = clock or kernel_clock.monotonic()
        self._attachments = attachments
        self._maps = attachments.maps
        self._config = config
        self._ready_seconds = ready_seconds
        self._lock = threading.Lock()
        stack = self._maps.stack if self._maps else lambda stack_id: ()
        # The simulator's modules are not this machine's.
        module_users = (lambda module: ()) if kernel.simulated else modules.users
        self._workloads = Workloads(config, simulated=kernel.simulated is not None)
        devices, workload = attachments.devices.name, self._workloads.of
        self.names = Names(kernel.symbols, stack, module_users, config.limits.callers, devices, workload)
        self._page_size = kernel.page_size
        self._pages = reads_pages(kernel)
        there = self._there(attachments.outcomes)
        metrics = metrics or with_process_labels(METRICS, config.process_labels)
        self._beginnings = Beginnings(config.series_from_zero)
        self._collector = Collector(there, self.names, config.limits.series, metrics, self._beginnings)
        self._runs = exporter.ProbeRuns(attachments.programs)
        self._facts = tuple(exporter.build_and_kernel(kernel, attachments.bcc))
        self._probes = tuple(exporter.probes(attachments.outcomes))
        self._idle = None
        if self._maps:
            ttl, ended = config.limits.idle_ttl, self._collector.end
            self._idle = Idle(self._maps, ttl, self._clock, self._is_over, ended, config.thrash_window)

    def collect(self) -> Iterable[Family]:
        """All families; the whole list at once, so that an error never leaves half an exposition."""
        with self._lock:
            begun = time.monotonic()
            families = [*self._facts, *self._probes]
            if self._maps and self._idle:
                families += self._families(self._maps, self._idle)
            elapsed = time.monotonic() - begun
            limit = self._collector.series_limit
            families += exporter.scrape(self._collector.series, limit, elapsed, self._ready_seconds)
            return families

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """No scrape, and no sweep, is under way in the block."""
        with self._lock:
            yield

    def watch(self, outcomes: Sequence[Outcome]) -> None:
        """Other probes are attached from now on.

        What none of them feeds is absent until one does again, and then goes on from where it was.
        """
        with self._lock:
            self._collector.watch(self._there(outcomes))
            self._probes = tuple(exporter.probes(outcomes))

    def limit(self, config: Config) -> None:
        """Other limits of series, callers, idle rows and new series from now on. Nothing moves between series."""
        with self._lock:
            self._collector.limit(config.limits.series)
            self._beginnings.seconds = config.series_from_zero
            self.names.limit(config.limits.callers)
            if self._idle:
                self._idle.limit(config.limits.idle_ttl)

    def are_inside(self, bits: int) -> bool:
        """Whether any thread is inside of one of these functions."""
        with self._lock:
            return any(each.inside & bits for each in self._maps.read_threads()) if self._maps else False

    def end_threads(self, unwatched: int) -> None:
        """Forget threads that are inside of nothing but functions of these bits, which nobody watches any more."""
        with self._lock:
            if self._maps and self._idle:
                self._idle.end_threads(self._maps.read_threads(), unwatched)

    def forget_arrivals(self) -> None:
        """Nobody has seen for a while what arrived on a device and what came back."""
        if self._idle:
            self._idle.forget_arrivals()

    def learn(self) -> None:
        """Name what is new, while it is there: a module that is unloaded takes its symbols with it."""
        with self._lock:
            if self._maps:
                self._attachments.learn_devices(self._page_size)
                self._learn({table: self._maps.read(table) for table in (tables.EBUSY, tables.DRIVER, tables.OWNER)})

    def sweep(self) -> None:
        """End idle rows and lost threads. To be called now and then, also when nobody scrapes."""
        if not (self._maps and self._idle):
            return
        with self._lock:
            self._attachments.learn_devices(self._page_size)
            self._idle.sweep_threads(self._maps.read_threads())
            rows = self._read(self._maps)
            self._learn(rows)
            ended = self._idle.sweep_rows(rows)
            self.names.forget(
                [owner for owner in ended.get(tables.OWNER, ()) if isinstance(owner, int)],
                [ops for ops in ended.get(tables.DRIVER, ()) if isinstance(ops, int)],
            )
            if any(ended.values()):
                self._collector.forget_ended(self._read(self._maps))
        self._idle.sweep_arrivals()  # with many of them it takes seconds, and no scrape has to wait for that

    def _families(self, maps: MapSet, idle: Idle) -> list[Family]:
        self._attachments.learn_devices(self._page_size)
        rows = self._read(maps)
        threads = maps.read_threads()
        calls_after = maps.read(tables.PROBE_CALL)
        self._learn(rows)
        families = list(self._collector.families(rows, self._clock()))
        families += exporter.owners(self.names.owners())
        families += exporter.devices(self._attachments.devices.info())
        families += self._runs.families(rows, threads, calls_after)
        families += exporter.maps(maps, rows, threads, idle.arrivals)
        families += self._migrations(maps, rows, threads, idle)
        return families

    def _migrations(
        self, maps: MapSet, rows: Mapping[Table, Sequence[Row]], threads: Sequence[Thread], idle: Idle
    ) -> Iterable[Family]:
        abandoned = books.totals(rows).plus(idle.gone).abandoned
        balanced = books.balanced(maps, rows, threads, idle.gone, self._pages)
        return exporter.migrations(books.in_flight(threads), abandoned, balanced)

    def _read(self, maps: MapSet) -> Mapping[Table, Sequence[Row]]:
        # Admissions come first in TABLES and are read last: whoever has a row by then has a name.
        return {table: maps.read(table) for table in reversed(tables.TABLES)}

    def _learn(self, rows: Mapping[Table, Sequence[Row]]) -> None:
        stack_at = next(at for at, key in enumerate(tables.EBUSY.keys) if key.name == "stack")
        self.names.learn(
            {int(row.key[0]): row.words[0] for row in rows[tables.OWNER]},
            [int(row.key[0]) for row in rows[tables.DRIVER]],
            [int(row.key[stack_at]) for row in rows[tables.EBUSY]],
        )
        if self._config.process_labels and tables.PROCESS in rows:
            self._workloads.learn({labels.cgroup(comm) for comm in _comms(rows)} - {0})

    def _there(self, outcomes: Iterable[Outcome]) -> frozenset[str]:
        """Attached probes, options that are on, and needs that are met: what a metric's source may ask for."""
        states = {outcome.probe.name: outcome.state for outcome in outcomes}
        there = {probe for probe, state in states.items() if state == ATTACHED}
        if self._config.histograms.migration_phases:
            there.add("histograms.migration_phases")
        if self._pages:
            there.add("pages")
        if self._attachments.knows_devices:
            there.add("devices")
        # To 7.2 each call of hmm_range_fault is an attempt; where the other function is, only what both call is.
        newer = {states.get(name) for name in ("hmm_range_fault_locked", "hmm_range_fault_unlocked_timeout")}
        if states.get("hmm_range_fault_locked") == ATTACHED or newer == {ABSENT}:
            there.add("range_attempts")
        return frozenset(there)

    def _is_over(self, admission: Table, value: int | bytes) -> bool:
        """Whether a value counts no more: a process is over with its cgroup."""
        by_cgroup = admission is tables.PROCESS and isinstance(value, bytes) and bool(self._config.process_labels)
        return by_cgroup and self._workloads.is_over(labels.cgroup(value))  # type: ignore[arg-type]


def _comms(rows: Mapping[Table, Sequence[Row]]) -> Iterable[bytes]:
    """Of all rows of processes: one that counts while its admission is removed is there without it."""
    for table in (tables.PROCESS, tables.PROCESS_MIGRATION, tables.PROCESS_FAILURE):
        yield from (row.key[0] for row in rows.get(table, ()) if isinstance(row.key[0], bytes))
