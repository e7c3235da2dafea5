# SPDX-License-Identifier: Apache-2.0
"""Which label set is admitted as itself, over any course of events, sweeps and scrapes: against a ledger of events.

The collector and the sweeper are the real ones, over maps in memory. The programs' part, to find a row or to book
as `other`, is played here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from hmm_exporter.bpf.maps import Row
from hmm_exporter.catalog import tables
from hmm_exporter.catalog.metrics import METRICS
from hmm_exporter.catalog.tables import Table
from hmm_exporter.catalog.values import DEVICE_NONE, OTHER_COMM, OTHER_POINTER, Class, Size, Trigger
from hmm_exporter.config import Limits
from hmm_exporter.metrics.collector import Collector
from hmm_exporter.metrics.idle import Idle
from tests.unit.bpf.in_memory import map_set
from tests.unit.metrics.exposed import names_with, samples
from tests.unit.metrics.ledger import Ledger, Room

# Written, after /proc/kallsyms: three drivers with a static owner each. The last one has two, in one array.
_KALLSYMS = "".join(f"{0xFFFFFFFFC0000000 + 0x100000 * at:016x} b pgmap\t[driver{at}]\n" for at in range(4))
_OWNERS = {0xFFFFFFFFC0000000 + 0x100000 * at: f"driver{at}-pgmap" for at in range(4)} | {
    0: "none",
    0xFFFFFFFFC0300040: "driver3-pgmap",
    OTHER_POINTER: "other",
}
# Two processes have one name; behind it stands another number.
_COMMS = {
    **{f"p{at}".encode().ljust(24, b"\0"): f"p{at}" for at in range(4)},
    b"p0".ljust(16, b"\0") + bytes([7] * 8): "p0",
    OTHER_COMM: "other",
}
_owners = st.sampled_from([owner for owner in _OWNERS if owner != OTHER_POINTER])
_comms = st.sampled_from([comm for comm in _COMMS if comm != OTHER_COMM])
_TTL = 600.0
_MIGRATIONS = {
    "hmm_migrations_started_total": 1,
    "hmm_process_migrations_total": 1,
    "hmm_migration_request_size_bytes_count": 28,
    "hmm_migration_request_size_bytes_sum": 28,
    "hmm_migration_request_size_bytes_bucket": 28,
}
_FAULTS = {"hmm_process_range_faults_total": 1}
"""What feeds which samples, and how many series come with one."""
_FED_BY = {"migrate_vma_setup": _MIGRATIONS, "hmm_range_fault": _FAULTS}
_ALL = frozenset(_FED_BY)
_METRICS = [
    metric
    for metric in METRICS
    if any(name in (metric.name, f"{metric.name}_count") for its in _FED_BY.values() for name in its)
]


class Limiter(RuleBasedStateMachine):
    """Rows, sweeps and scrapes in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.ledger = Ledger()
        self.now = 5000.0
        self.attached = _ALL
        self.most_shown = 0

    @initialize(room=st.integers(0, 40))
    def begin(self, room: int) -> None:
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.bpf, self.maps = self.stack.enter_context(map_set(Limits(owners=3, processes=3)))
        self.names = names_with(folder, _KALLSYMS)
        empty = Collector(_ALL, self.names, 1000, _METRICS)
        empty.families(self.rows())
        self.least = empty.series + 1000 - empty.series_limit
        self.limit = self.least + room
        self.collector = Collector(_ALL, self.names, self.limit, _METRICS)
        self.idle = Idle(self.maps, _TTL, lambda: self.now, ended=self.collector.end)

    def teardown(self) -> None:
        self.stack.close()

    def rows(self) -> Mapping[Table, list[Row]]:
        return {table: self.maps.read(table) for table in tables.TABLES}

    def admit(self, table: Table, value: int | bytes, overflow: int | bytes) -> int | bytes:
        """What a program does with a value: find its row, or make it, or give up."""
        try:
            self.bpf.book(table, (value,))
        except OSError:
            return overflow
        return value

    @precondition(lambda self: "migrate_vma_setup" in self.attached)
    @rule(owner=_owners, comm=_comms, each=st.sampled_from(list(Class)[:2]), size=st.booleans())
    def migrate(self, owner: int, comm: bytes, each: Class, size: bool) -> None:
        at, by = self.admit(tables.OWNER, owner, OTHER_POINTER), self.admit(tables.PROCESS, comm, OTHER_COMM)
        assert isinstance(at, int)
        assert isinstance(by, bytes)
        self.bpf.book(tables.MIGRATION, (at, each, Trigger.syscall, DEVICE_NONE), started=1)
        self.bpf.book(tables.PROCESS_MIGRATION, (by, at, each), started=1)
        its = {"class": each.name, "pgmap_owner": _OWNERS[at]}
        # `none` and `other` do not end.
        owners, comms = [at] * (at not in (0, OTHER_POINTER)), [by] * (by != OTHER_COMM)
        all_labels = its | {"trigger": "syscall", "device": "none"}
        self.ledger.count("hmm_migrations_started_total", all_labels, *owners)
        self.ledger.count("hmm_process_migrations_total", its | {"comm": _COMMS[by]}, *owners, *comms)
        if size:
            self.bpf.book(tables.MIGRATION_HISTOGRAM, (at, each), requested_bytes=4096, request_size=[1])
            self.ledger.count("hmm_migration_request_size_bytes_count", its, *owners)
            self.ledger.count("hmm_migration_request_size_bytes_sum", its, *owners, amount=4096)
            for bound in [*Size.bytes.bounds, "+Inf"]:
                self.ledger.count("hmm_migration_request_size_bytes_bucket", its | {"le": str(bound)}, *owners)

    @precondition(lambda self: "hmm_range_fault" in self.attached)
    @rule(comm=_comms)
    def fault(self, comm: bytes) -> None:
        by = self.admit(tables.PROCESS, comm, OTHER_COMM)
        assert isinstance(by, bytes)
        self.bpf.book(tables.PROCESS, (by,), range_faults=1)
        self.ledger.count("hmm_process_range_faults_total", {"comm": _COMMS[by]}, *[by] * (by != OTHER_COMM))

    @rule(seconds=st.sampled_from((1.0, _TTL)))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    def learn(self, rows: Mapping[Table, list[Row]]) -> None:
        self.names.learn({int(row.key[0]): 0 for row in rows[tables.OWNER]}, [], [])

    @rule()
    def sweep(self) -> None:
        """As Scrape.sweep does."""
        rows = self.rows()
        self.learn(rows)
        ended = self.idle.sweep_rows(rows)
        self.names.forget([owner for owner in ended[tables.OWNER] if isinstance(owner, int)], [])
        if any(ended.values()):
            self.collector.forget_ended(self.rows())
        for gone in (*ended[tables.OWNER], *ended[tables.PROCESS]):
            self.ledger.end(gone)

    @precondition(lambda self: "migrate_vma_setup" in self.attached)
    @rule(owner=_owners, comm=_comms)
    def all_others_end(self, owner: int, comm: bytes) -> None:
        self.sweep()
        self.wait(_TTL)
        self.migrate(owner, comm, Class.prefetch, True)
        self.sweep()

    @rule(attached=st.sets(st.sampled_from(sorted(_ALL))))
    def shed_or_take_back(self, attached: set[str]) -> None:
        self.attached = frozenset(attached)
        self.collector.watch(self.attached)

    @rule(room=st.integers(0, 60))
    def reload(self, room: int) -> None:
        self.limit = self.least + room
        self.collector.limit(self.limit)

    @rule()
    def scrape(self) -> None:
        rows = self.rows()
        self.learn(rows)
        found = samples(self.collector.families(rows))
        # What is shown already stays where a reload sets a lower limit.
        assert len(found) == self.collector.series <= max(self.limit, self.most_shown)
        self.most_shown = len(found)
        needed = {name: series for probe in self.attached for name, series in _FED_BY[probe].items()}
        # What is hidden for a while takes up room all the same, and how much is not seen.
        left = self.collector.series_limit - len(found) if self.attached == _ALL else -1
        self.ledger.scraped(found, frozenset(needed), Room(left, needed))


TestLimiter = Limiter.TestCase
TestLimiter.settings = settings(max_examples=60, stateful_step_count=40)
