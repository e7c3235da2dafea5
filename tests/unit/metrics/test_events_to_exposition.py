# SPDX-License-Identifier: Apache-2.0
"""The whole way, from what the programs book to the text that Prometheus reads, against a ledger of events.

Owners with and without a symbol, two of one name, processes of one name, no room for either; time, sweeps, shed
probes, reloads and restarts in any order. The programs' part is played here, over maps in memory.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from prometheus_client.parser import text_string_to_metric_families

from hmm_exporter.bpf.plan import ATTACHED, SHED
from hmm_exporter.catalog import tables
from hmm_exporter.catalog.metric import RANGE_PROBES
from hmm_exporter.catalog.tables import Table
from hmm_exporter.catalog.values import (
    DEVICE_NONE,
    OTHER_COMM,
    OTHER_POINTER,
    Class,
    Event,
    Failure,
    Intent,
    RangeFunction,
    Trigger,
)
from hmm_exporter.config import Config, Limits, Seconds
from hmm_exporter.metrics.books import IN_MIGRATION
from hmm_exporter.metrics.idle import THREAD_SECONDS
from tests.unit.bpf.in_memory import map_set
from tests.unit.metrics.exposed import text
from tests.unit.metrics.ledger import Ledger, Room, Series
from tests.unit.metrics.test_scrape import AMDGPU_FRAME, World

_TTL = 600.0
_PAGE = 4096
_DEVICE = "0000:c1:00.0"

# Owners by exposed.KALLSYMS. Those on the heap are numbered in the order in which they come.
_NAMED = {
    0: "none",
    OTHER_POINTER: "other",
    0xFFFFFFFFC0480000: "nvidia_uvm",
    0xFFFFFFFFC0600000: "out_of_tree-somebodys_pgmap",
    0xFFFFFFFFC0600040: "out_of_tree-somebodys_pgmap",
}
_HEAP = (0xFFFF888104A30000, 0xFFFF888104A31000)
_DRIVERS = {0xFFFFFFFFC0110000: "amdgpu", 0xFFFFFFFFC0210000: "xe", _HEAP[0]: "unknown", OTHER_POINTER: "other"}
_COMMS = {
    b"python3".ljust(24, b"\0"): "python3",
    b"python3".ljust(16, b"\0") + bytes([7] * 8): "python3",
    b"ollama".ljust(24, b"\0"): "ollama",
    b"vllm \xff".ljust(24, b"\0"): "vllm \\xff",
    OTHER_COMM: "other",
}
_owners, _comms = st.sampled_from([*_NAMED, *_HEAP]), st.sampled_from([*_COMMS])
_STACK, _CALLER = 5, 7

_HISTOGRAM = 28
_OF_FAULTS = {
    "hmm_range_faults_total": 1,
    "hmm_range_fault_failures_total": 1,
    "hmm_range_fault_size_bytes_count": _HISTOGRAM,
    "hmm_range_fault_size_bytes_sum": _HISTOGRAM,
    "hmm_range_fault_ebusy_callers_total": 1,
    "hmm_process_range_faults_total": 1,
    "hmm_process_range_fault_failures_total": 1,
}
_OF_OTHERS = {
    "hmm_migrations_started_total": 1,
    "hmm_migrations_empty_total": 1,
    "hmm_migrations_completed_total": 1,
    "hmm_migration_failures_total": 1,
    "hmm_migration_requested_bytes_total": 1,
    "hmm_migration_moved_bytes_total": 1,
    "hmm_migration_unmoved_bytes_total": 1,
    "hmm_migration_request_size_bytes_count": _HISTOGRAM,
    "hmm_migration_request_size_bytes_sum": _HISTOGRAM,
    "hmm_process_migrations_total": 1,
    "hmm_process_migration_failures_total": 1,
    "hmm_process_moved_bytes_total": 1,
    "hmm_device_exclusive_total": 1,
    "hmm_process_device_exclusive_total": 1,
}
"""What the ledger is kept of, and how many series a new label set of each takes."""


class AnyCourse(RuleBasedStateMachine):
    """Events, sweeps, scrapes, and what an operator does, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.now = 5000.0

    @initialize(room=st.integers(0, 60))
    def begin(self, room: int) -> None:
        patch = self.stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(time, "monotonic", lambda: self.now)
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.run = self.stack.enter_context(ExitStack())
        self.start(Limits())
        found = self.scraped()
        own = {name: value for (name, labels), value in found.items() if not labels}
        self.least = Limits().series - own["hmm_exporter_series_limit"] + own["hmm_exporter_series"]
        self.start(self.limits(room))

    def limits(self, room: int) -> Limits:
        """So many series beside those that are always there, and room for two owners, drivers and processes."""
        return Limits(
            owners=2, drivers=2, processes=2, callers=1, series=int(self.least) + room, idle_ttl=Seconds(_TTL)
        )

    def start(self, limits: Limits) -> None:
        self.run.close()
        self.bpf, self.maps = self.run.enter_context(map_set(limits))
        self.world = World(self.bpf, self.maps, self.folder, Config(limits=limits))
        self.run.callback(self.world.close)
        self.bpf.keep_stack(_STACK, 0xFFFFFFFF81220123, AMDGPU_FRAME)
        self.bpf.keep_stack(_CALLER, 0xFFFFFFFF81210010, 0xFFFFFFFFC0101010)
        self.ledger = Ledger()
        self.most_series = limits.series
        self.owners: dict[int, str] = dict(_NAMED)
        self.appeared = 0
        self.flying: dict[int, tuple[float, int, bytes, Class]] = {}
        self.threads = 0
        self.abandoned = 0
        self.sheds = False

    def teardown(self) -> None:
        self.stack.close()

    def admit(self, table: Table, value: int | bytes, overflow: int | bytes) -> int | bytes:
        """What a program does with a value: find its row, or make it, or give up."""
        is_there = value in [row.key[0] for row in self.maps.read(table)]
        try:
            self.bpf.book(table, (value,), **{"stack": _STACK} if table is tables.OWNER and not is_there else {})
        except OSError:
            return overflow
        return value

    def owner(self, address: int) -> int:
        """The owner as whom it is counted."""
        admitted = self.admit(tables.OWNER, address, OTHER_POINTER)
        assert isinstance(admitted, int)
        if admitted not in self.owners:
            self.appeared += 1
            self.owners[admitted] = f"amdgpu-{self.appeared}"
        return admitted

    def process(self, comm: bytes) -> bytes:
        admitted = self.admit(tables.PROCESS, comm, OTHER_COMM)
        assert isinstance(admitted, bytes)
        return admitted

    def count(self, name: str, labels: Mapping[str, str], at: int = 0, by: bytes = b"", amount: int = 1) -> None:
        """An event, with the owner or driver, and the process, that it ends with."""
        lasting = (0, b"", OTHER_POINTER, OTHER_COMM)
        sources = [each for each in (at, by) if each not in lasting]
        self.ledger.count(name, {**labels, "comm": _COMMS[by]} if by else labels, *sources, amount=amount)

    @rule(address=_owners, comm=_comms, each=st.sampled_from(Class))
    def setup(self, address: int, comm: bytes, each: Class) -> None:
        at, by = self.owner(address), self.process(comm)
        self.bpf.book(tables.MIGRATION, (at, each, Trigger.kthread, DEVICE_NONE), started=1)
        self.bpf.book(tables.PROCESS_MIGRATION, (by, at, each), started=1)
        self.threads += 1
        self.bpf.enter(self.threads, IN_MIGRATION, int(self.now * 1e9))
        self.flying[self.threads] = (self.now, at, by, each)
        its = {"class": each.name, "pgmap_owner": self.owners[at]}
        self.count("hmm_migrations_started_total", its | {"trigger": "kthread", "device": "none"}, at)
        self.count("hmm_process_migrations_total", its, at, by)

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), how=st.sampled_from(("failed", "empty", "completed")))
    def finalize(self, data: st.DataObject, how: str) -> None:
        thread = data.draw(st.sampled_from(sorted(self.flying)))
        _, address, comm, each = self.flying.pop(thread)
        self.bpf.leave(thread)
        at, by = self.owner(address), self.process(comm)
        its = {"class": each.name, "pgmap_owner": self.owners[at]}
        if how == "failed":
            self.bpf.book(tables.FAILURE, (at, 22, Failure.migration, each, Trigger.kthread), calls=1)
            self.bpf.book(tables.PROCESS_FAILURE, (by, 22, Failure.migration, each), calls=1)
            where = {"trigger": "kthread", "device": "none", "errno": "EINVAL"}
            self.count("hmm_migration_failures_total", its | where, at)
            self.count("hmm_process_migration_failures_total", {"class": each.name, "errno": "EINVAL"}, by=by)
            return
        self.bpf.book(tables.MIGRATION_HISTOGRAM, (at, each), requested_bytes=2 * _PAGE, request_size=[0, 1])
        self.count("hmm_migration_request_size_bytes_count", its, at)
        self.count("hmm_migration_request_size_bytes_sum", its, at, amount=2 * _PAGE)
        device, number = (_DEVICE, 0) if how == "completed" else ("none", DEVICE_NONE)
        key = (at, each, Trigger.kthread, number)
        where = {"trigger": "kthread", "device": device}
        self.bpf.book(tables.MIGRATION, key, requested_bytes=2 * _PAGE)
        self.count("hmm_migration_requested_bytes_total", its | where, at, amount=2 * _PAGE)
        if how == "empty":
            self.bpf.book(tables.MIGRATION, key, empty=1, not_selected_bytes=2 * _PAGE)
            self.count("hmm_migrations_empty_total", its | where, at)
            skipped = its | where | {"reason": "not_selected"}
            self.count("hmm_migration_unmoved_bytes_total", skipped, at, amount=2 * _PAGE)
            return
        moves = [0, _PAGE, 0, 0]
        self.bpf.book(tables.MIGRATION, key, completed=1, busy_bytes=_PAGE, moved_bytes=moves)
        self.bpf.book(tables.PROCESS_MIGRATION, (by, at, each), moved_bytes=moves)
        self.count("hmm_migrations_completed_total", its | where, at)
        self.count("hmm_migration_unmoved_bytes_total", its | where | {"reason": "busy"}, at, amount=_PAGE)
        moved = {"direction": "host_to_device"}
        of_owner = where | moved | {"pgmap_owner": self.owners[at]}
        self.count("hmm_migration_moved_bytes_total", of_owner, at, amount=_PAGE)
        self.count("hmm_process_moved_bytes_total", moved, at, by, amount=_PAGE)

    @precondition(lambda self: not self.sheds)
    @rule(ops=st.sampled_from([*_DRIVERS]), comm=_comms, busy=st.booleans())
    def range_fault(self, ops: int, comm: bytes, busy: bool) -> None:
        at, by = self.admit(tables.DRIVER, ops, OTHER_POINTER), self.process(comm)
        assert isinstance(at, int)
        driver, function = _DRIVERS[at], RangeFunction.hmm_range_fault
        its = {"driver": driver, "function": function.name}
        self.bpf.book(tables.RANGE_FAULT, (at, function, Intent.read), calls=1, bytes=_PAGE, size=[1])
        self.bpf.book(tables.PROCESS, (by,), range_faults=1)
        self.count("hmm_range_faults_total", its | {"intent": "read"}, at)
        self.count("hmm_range_fault_size_bytes_count", its, at)
        self.count("hmm_range_fault_size_bytes_sum", its, at, amount=_PAGE)
        self.count("hmm_process_range_faults_total", {}, by=by)
        if busy:
            self.bpf.book(tables.EBUSY, (at, _CALLER, function), calls=1)
            self.bpf.book(tables.FAILURE, (at, 16, Failure.range_fault, 0, 0), calls=1)
            self.bpf.book(tables.PROCESS_FAILURE, (by, 16, Failure.range_fault, 0), calls=1)
            self.count("hmm_range_fault_failures_total", its | {"errno": "EBUSY"}, at)
            caller = {"driver": driver, "caller": "svm_range_restore_pages"}
            self.count("hmm_range_fault_ebusy_callers_total", caller, at)
            self.count("hmm_process_range_fault_failures_total", {"errno": "EBUSY"}, by=by)

    @rule(comm=_comms)
    def device_exclusive(self, comm: bytes) -> None:
        by = self.process(comm)
        self.bpf.book(tables.EVENT, (Event.device_exclusive,), calls=1)
        self.bpf.book(tables.PROCESS, (by,), device_exclusive=1)
        self.count("hmm_device_exclusive_total", {})
        self.count("hmm_process_device_exclusive_total", {}, by=by)

    @rule(seconds=st.sampled_from((1.0, _TTL)))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def sweep(self) -> None:
        before = {table: self.keys(table) for table in (tables.OWNER, tables.DRIVER, tables.PROCESS)}
        self.world.scrape.sweep()
        lost = [thread for thread, (since, *_) in self.flying.items() if since < self.now - THREAD_SECONDS]
        self.abandoned += len(lost)
        for thread in lost:
            del self.flying[thread]
        for table, keys in before.items():
            for gone in keys - self.keys(table):
                self.ledger.end(gone)
                if table is tables.OWNER and isinstance(gone, int) and gone in _HEAP:
                    del self.owners[gone]  # it comes back as somebody new

    @rule(address=_owners, comm=_comms)
    def all_others_end(self, address: int, comm: bytes) -> None:
        self.sweep()
        self.wait(_TTL)
        self.setup(address, comm, Class.prefetch)
        self.sweep()

    def keys(self, table: Table) -> set[int | bytes]:
        return {row.key[0] for row in self.maps.read(table)}

    @rule(sheds=st.booleans())
    def shed_or_take_back(self, sheds: bool) -> None:
        self.sheds = sheds
        self.world.scrape.watch(
            [
                replace(outcome, state=SHED if sheds else ATTACHED) if outcome.probe.name in RANGE_PROBES else outcome
                for outcome in self.world.attachments.outcomes
            ]
        )

    @rule(room=st.integers(0, 100))
    def reload(self, room: int) -> None:
        limits = self.limits(room)
        self.most_series = max(self.most_series, limits.series)
        self.world.scrape.limit(replace(self.world.config, limits=limits))

    @rule(room=st.integers(0, 100))
    def restart(self, room: int) -> None:
        self.start(self.limits(room))

    @rule()
    def scrape(self) -> None:
        found = self.scraped()
        own = {name: value for (name, labels), value in found.items() if not labels}
        assert own["hmm_exporter_books_balanced"] == 1
        assert own["hmm_exporter_migrations_in_flight"] == len(self.flying)
        assert own["hmm_exporter_migrations_abandoned_total"] == self.abandoned
        assert own["hmm_exporter_series"] <= self.most_series
        names = _OF_OTHERS | ({} if self.sheds else _OF_FAULTS)
        # What is hidden for a while takes up room all the same, and how much is not seen.
        left = -1 if self.sheds else int(own["hmm_exporter_series_limit"] - own["hmm_exporter_series"])
        kept = {series: value for series, value in found.items() if series[0] in _OF_OTHERS | _OF_FAULTS}
        self.ledger.scraped(kept, frozenset(names), Room(left, names))

    def scraped(self) -> dict[Series, float]:
        """What Prometheus reads."""
        page = text(self.world.scrape.collect())
        assert not re.search("ffff[0-9a-f]{12}", page, re.IGNORECASE), "a kernel address"
        found: dict[Series, float] = {}
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                series = (sample.name, frozenset(sample.labels.items()))
                assert series not in found, f"twice: {series}"
                found[series] = sample.value
        return found


TestAnyCourse = AnyCourse.TestCase
TestAnyCourse.settings = settings(max_examples=10, stateful_step_count=40)
