# SPDX-License-Identifier: Apache-2.0
"""One scrape: read all tables, name what is new, add up, and say how the exporter itself is.

The one object that the registry asks. Reads are serialised; nothing is kept between scrapes but
names and what must not go backwards.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence

from prometheus_client.metrics_core import Metric as Family

from hmm_exporter.bpf.attach import Attachments
from hmm_exporter.bpf.maps import MapSet, Row, Thread
from hmm_exporter.bpf.plan import ABSENT, ATTACHED, reads_pages
from hmm_exporter.catalog import tables
from hmm_exporter.catalog.metric import Metric
from hmm_exporter.catalog.metrics import METRICS
from hmm_exporter.catalog.tables import Table
from hmm_exporter.config import Config
from hmm_exporter.kernel import modules
from hmm_exporter.kernel.features import Kernel
from hmm_exporter.metrics import books, exporter
from hmm_exporter.metrics.collector import Collector
from hmm_exporter.metrics.idle import Idle
from hmm_exporter.metrics.labels import Names


class Scrape:
    """A prometheus_client collector over one set of attachments."""

    def __init__(
        self,
        kernel: Kernel,
        config: Config,
        attachments: Attachments,
        ready_seconds: float,
        metrics: Sequence[Metric] = METRICS,
    ) -> None:
        self._attachments = attachments
        self._maps = attachments.maps
        self._limits = config.limits
        self._ready_seconds = ready_seconds
        self._lock = threading.Lock()
        stack = self._maps.stack if self._maps else lambda stack_id: ()
        # The simulator's modules are not this machine's.
        module_users = (lambda module: ()) if kernel.simulated else modules.users
        self.names = Names(kernel.symbols, stack, module_users, config.limits.callers, attachments.devices.name)
        self._page_size = kernel.page_size
        self._pages = reads_pages(kernel)
        there = frozenset(_there(attachments, config, self._pages))
        self._collector = Collector(there, self.names, config.limits.series, metrics)
        self._runs = exporter.ProbeRuns(attachments.programs)
        self._facts = list(exporter.build_and_kernel(kernel, attachments.bcc))
        self._facts += exporter.probes(attachments.outcomes)
        self._idle = Idle(self._maps, config.limits.idle_ttl, time.monotonic) if self._maps else None

    def collect(self) -> Iterable[Family]:
        """All families; the whole list at once, so that an error never leaves half an exposition."""
        with self._lock:
            begun = time.monotonic()
            families = list(self._facts)
            if self._maps and self._idle:
                families += self._families(self._maps, self._idle)
            elapsed = time.monotonic() - begun
            families += exporter.scrape(self._collector.series, self._limits.series, elapsed, self._ready_seconds)
            return families

    def learn(self) -> None:
        """Name what is new, while it is there: a module that is unloaded takes its symbols with it."""
        with self._lock:
            if self._maps:
                self._attachments.learn_devices(self._page_size)
                self._learn({table: self._maps.read(table) for table in (tables.EBUSY, tables.DRIVER, tables.OWNER)})

    def sweep(self) -> None:
        """End idle rows and lost threads. To be called now and then, also when nobody scrapes."""
        with self._lock:
            if not (self._maps and self._idle):
                return
            self._attachments.learn_devices(self._page_size)
            self._idle.sweep_threads(self._maps.read_threads())
            self._idle.sweep_arrivals()
            ended = self._idle.sweep_rows(self._read(self._maps))
            self.names.forget(
                [owner for owner in ended.get(tables.OWNER, ()) if isinstance(owner, int)],
                [ops for ops in ended.get(tables.DRIVER, ()) if isinstance(ops, int)],
            )

    def _families(self, maps: MapSet, idle: Idle) -> list[Family]:
        self._attachments.learn_devices(self._page_size)
        rows = self._read(maps)
        threads = maps.read_threads()
        calls_after = maps.read(tables.PROBE_CALL)
        self._learn(rows)
        families = list(self._collector.families(rows))
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


def _there(attachments: Attachments, config: Config, pages: bool) -> Iterable[str]:
    """Attached probes, options that are on, and needs that are met: what a metric's source may ask for."""
    states = {outcome.probe.name: outcome.state for outcome in attachments.outcomes}
    yield from (probe for probe, state in states.items() if state == ATTACHED)
    if config.histograms.migration_phases:
        yield "histograms.migration_phases"
    if pages:
        yield "pages"
    if attachments.knows_devices:
        yield "devices"
    # To 7.2 each call of hmm_range_fault is an attempt; where the other function is, only what both call is.
    newer = {states.get(name) for name in ("hmm_range_fault_locked", "hmm_range_fault_unlocked_timeout")}
    if states.get("hmm_range_fault_locked") == ATTACHED or newer == {ABSENT}:
        yield "range_attempts"
