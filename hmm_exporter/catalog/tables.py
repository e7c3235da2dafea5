# SPDX-License-Identifier: Apache-2.0
"""The tables that the programs fill: keys, values, and which label a key field becomes.

One declaration serves both halves: the C structs are written from it (``bpf.source``) and the
bytes read back are decoded by it (``bpf.maps``). Data only; how many rows a table may have is
derived from the limits of the configuration in ``bpf.maps``.

Value structs hold one copy of their counters per shard, so that hundreds of CPUs do not fight
over one cache line. The shards sit in the value and not in the key, so that a limit on rows is a
limit on label sets, and removing an idle row removes it from all CPUs at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

from hmm_exporter.catalog.probes import PROBES
from hmm_exporter.catalog.values import (
    DEVICE_REGIONS,
    HISTOGRAM_SLOTS,
    PHASES,
    PTE_ORDERS,
    Class,
    Context,
    DeviceFunction,
    Direction,
    Entry,
    Event,
    Failure,
    Intent,
    Invalidation,
    Loss,
    RangeFunction,
    Size,
    Trigger,
    Unmoved,
)


class Kind(Enum):
    HASH = "hash"
    ARRAY = "array"
    """All keys are known beforehand: index = the key fields as digits, first one most significant."""


@dataclass(frozen=True)
class Key:
    """A field of a key. ``domain`` names its values; without one it is an address, a comm or an error."""

    name: str
    c_type: str
    domain: type[IntEnum] | None = None
    count: int = 0
    """How many values an ARRAY's digit without domain has."""
    admitted_by: str = ""
    """The table of the values that were admitted as labels; others become `other`."""
    goes_with: tuple[str, ...] = ()
    """Tables of values that were admitted elsewhere, with which rows of this table end."""

    @property
    def values(self) -> int:
        return len(self.domain) if self.domain else self.count


@dataclass(frozen=True)
class Value:
    """A field of a value: one u64, an array of some, or a histogram's slots."""

    name: str
    histogram: Size | None = None
    by: type[IntEnum] | None = None
    """One u64 for each member."""

    @property
    def words(self) -> int:
        if self.by:
            return len(self.by)
        return HISTOGRAM_SLOTS if self.histogram else 1

    @property
    def is_array(self) -> bool:
        return bool(self.by or self.histogram)


@dataclass(frozen=True)
class Table:
    name: str
    kind: Kind
    keys: tuple[Key, ...]
    values: tuple[Value, ...]
    sharded: bool = True

    @property
    def words(self) -> int:
        """Number of u64 in one shard of a row."""
        return sum(value.words for value in self.values)

    @property
    def open_keys(self) -> tuple[Key, ...]:
        """Fields with values that nobody knows beforehand; a full table books them as `other`."""
        return tuple(key for key in self.keys if not key.values)

    @property
    def rows(self) -> int:
        """Rows of an ARRAY."""
        rows = 1
        for key in self.keys:
            rows *= key.values
        return rows


_OWNER = Key("owner", "u64", admitted_by="owner")
_DRIVER = Key("ops", "u64", admitted_by="driver")
_COMM = Key("comm", "comm", admitted_by="process")
_DEVICE = Key("device", "u8")
_EACH_DEVICE = Key("device", "u8", count=DEVICE_REGIONS + 2)
_CLASS = Key("class", "u8", Class)
_TRIGGER = Key("trigger", "u8", Trigger)


def _counters(*names: str) -> tuple[Value, ...]:
    return tuple(Value(name) for name in names)


# Tables that say which open label values have been admitted, first come.
OWNER = Table("owner", Kind.HASH, (Key("owner", "u64"),), _counters("stack"), sharded=False)
DRIVER = Table("driver", Kind.HASH, (Key("ops", "u64"),), _counters("seen"), sharded=False)

# What migrations are counted as when they begin has no device: it is the pages that say which.
MIGRATION = Table(
    "migration",
    Kind.HASH,
    (_OWNER, _CLASS, _TRIGGER, _DEVICE),
    _counters("started", "empty", "completed", "requested_bytes", "collected_bytes", "zero_filled_bytes")
    + tuple(Value(f"{reason.name}_bytes") for reason in Unmoved)
    + _counters("aborted", "partial", "huge", "returned_bytes")
    + (Value("moved_bytes", by=Direction), Value("moved_huge_bytes", by=Direction)),
)
MIGRATION_HISTOGRAM = Table(
    "migration_histogram",
    Kind.HASH,
    (_OWNER, _CLASS),
    _counters("duration_ns")
    + tuple(Value(f"{phase}_ns") for phase in PHASES)
    + _counters("requested_bytes", "moved_bytes")
    + (Value("request_size", Size.bytes), Value("moved_size", Size.bytes), Value("duration", Size.seconds)),
)
MIGRATION_PHASE = Table(
    "migration_phase",
    Kind.ARRAY,
    (_CLASS, Key("phase", "u8", count=len(PHASES))),
    _counters("ns") + (Value("duration", Size.seconds),),
)
DEVICE_RANGE = Table(
    "device_range",
    Kind.ARRAY,
    (Key("function", "u8", DeviceFunction), _EACH_DEVICE),
    _counters("calls", "bytes") + (Value("size", Size.bytes),),
    sharded=False,
)
DEVICE = Table(
    "device",
    Kind.ARRAY,
    (_EACH_DEVICE,),
    _counters("range_moved_bytes", "residency_ns") + (Value("residency", Size.seconds),),
)
RANGE_FAULT = Table(
    "range_fault",
    Kind.HASH,
    (_DRIVER, Key("function", "u8", RangeFunction), Key("intent", "u8", Intent)),
    _counters("calls", "bytes", "duration_ns") + (Value("size", Size.bytes), Value("duration", Size.seconds)),
)
RANGE_ATTEMPT = Table(
    "range_attempt", Kind.HASH, (_DRIVER,), _counters("attempts", "raced", "own_fault", "lock_dropped")
)
EBUSY = Table(
    "ebusy",
    Kind.HASH,
    (_DRIVER, Key("stack", "u32"), Key("function", "u8", RangeFunction)),
    _counters("calls"),
)
INTERVAL_NOTIFIER = Table("interval_notifier", Kind.HASH, (_DRIVER,), _counters("inserts", "removes"))
FAILURE = Table(
    "failure",
    Kind.HASH,
    # `subject` is the owner of a migration, the driver's ops of the rest, or 0.
    (
        Key("subject", "u64", goes_with=("owner", "driver")),
        Key("errno", "u16"),
        Key("function", "u8", Failure),
        _CLASS,
        _TRIGGER,
    ),
    _counters("calls"),
)
INVALIDATION = Table(
    "invalidation",
    Kind.ARRAY,
    (Key("event", "u8", Invalidation),),
    _counters("calls", "bytes") + (Value("size", Size.bytes),),
)
MIGRATION_PTE = Table(
    "migration_pte",
    Kind.ARRAY,
    (Key("entry", "u8", Entry), Key("order", "u8", count=PTE_ORDERS), Key("context", "u8", Context)),
    _counters("entries"),
)
MIGRATION_PMD = Table(
    "migration_pmd",
    Kind.ARRAY,
    (Key("entry", "u8", Entry), Key("context", "u8", Context)),
    _counters("entries"),
)
EVENT = Table("event", Kind.ARRAY, (Key("event", "u8", Event),), _counters("calls"))
PROCESS = Table(
    "process",
    Kind.HASH,
    (Key("comm", "comm"),),
    _counters(
        "range_faults",
        "device_exclusive",
        "device_exclusive_restores",
        "huge_faults",
        "interval_notifier_inserts",
        "interval_notifier_removes",
        "invalidations",
    ),
)
PROCESS_MIGRATION = Table(
    "process_migration",
    Kind.HASH,
    (_COMM, _OWNER, _CLASS),
    _counters("started", "requested_bytes", "fault_stall_ns", "returned_bytes") + (Value("moved_bytes", by=Direction),),
)
PROCESS_FAILURE = Table(
    "process_failure",
    Kind.HASH,
    (_COMM, Key("errno", "u16"), Key("function", "u8", Failure), _CLASS),
    _counters("calls"),
)
# The exporter's own books.
LOSS = Table("loss", Kind.ARRAY, (Key("loss", "u8", Loss),), _counters("events"))
PROBE_CALL = Table(
    "probe_call",
    Kind.ARRAY,
    (Key("probe", "u8", count=len(PROBES)),),
    # `entered` and `returned` only where return probes can be missed (kprobe, uprobe);
    # `untracked` calls found no room in the table of threads; `runs` are those of all its programs.
    _counters("entered", "returned", "untracked", "runs"),
)

ROW_TABLES = (
    OWNER,
    DRIVER,
    MIGRATION,
    MIGRATION_HISTOGRAM,
    MIGRATION_PHASE,
    DEVICE_RANGE,
    DEVICE,
    RANGE_FAULT,
    RANGE_ATTEMPT,
    EBUSY,
    INTERVAL_NOTIFIER,
    FAILURE,
    INVALIDATION,
    MIGRATION_PTE,
    MIGRATION_PMD,
    EVENT,
    PROCESS,
    PROCESS_MIGRATION,
    PROCESS_FAILURE,
)
OVERFLOW = Table("overflow", Kind.ARRAY, (Key("table", "u8", count=len(ROW_TABLES)),), _counters("events"))
TABLES = ROW_TABLES + (LOSS, PROBE_CALL, OVERFLOW)
