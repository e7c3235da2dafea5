# SPDX-License-Identifier: Apache-2.0
"""The kernel maps behind the tables: made by the daemon, read in one call each, rows removed.

Knows bytes and fds. What a row means is said by ``catalog.tables``; how it is named is
``metrics.labels``' work.
"""

from __future__ import annotations

import errno
import itertools
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hmm_exporter import capabilities
from hmm_exporter.bpf import arrivals, syscall
from hmm_exporter.bpf.compiler import CompiledMap
from hmm_exporter.bpf.source import key_bytes, row_words, stride
from hmm_exporter.catalog import tables, values
from hmm_exporter.catalog.tables import Kind, Table
from hmm_exporter.config import Limits, Maps
from hmm_exporter.errors import StartError

_FORMATS = {"u64": "Q", "comm": "24s", "u32": "I", "u16": "H", "u8": "B"}
_OTHER: Mapping[str, int | bytes] = {
    "u64": values.OTHER_POINTER,
    "comm": values.OTHER_COMM,
    "u32": values.OTHER_STACK,
    "u16": values.OTHER_ERRNO,
    "u8": values.OTHER_DEVICE,
}
CPUS_PER_SHARD = 32
MOST_SHARDS = 8

_PUT_BACK_ATTEMPTS = 10
_STACK_BYTES = 32 * 8
"""The innermost 32 return addresses: the caller and its driver are among the first dozen."""
_SLOTS_PER_STACK = 16
"""A stack's slot is its hash, and a second one for the same slot is refused (kernel/bpf/stackmap.c)."""
_MIGRATION_DEVICES = 4
"""A GPU's owner migrates for one device, an owner of eight GPUs for eight; most label sets never occur."""
_DEVICES = struct.Struct(f"<QQ{3 * values.DEVICE_REGIONS}Q")
"""program/device.c: where RAM ends, how many ranges, then first and last frame and number of each."""
_CHUNK = 128
"""Rows read at a time: large buffers would stay in the daemon's memory."""

KeyValues = tuple[int | bytes, ...]


@dataclass(frozen=True)
class Row:
    """One label set: the key's fields, and the u64 words of the value, summed over all shards."""

    key: KeyValues
    words: tuple[int, ...]


@dataclass(frozen=True)
class Thread:
    """What a thread is inside of, as ``program/thread.c`` keeps it. ``since`` is CLOCK_MONOTONIC, ns."""

    key: bytes
    inside: int
    since: int


def shards_for(possible_cpus: int) -> int:
    """A power of two: one shard for 32 CPUs, 8 at most."""
    shards = 1
    while shards < MOST_SHARDS and shards * CPUS_PER_SHARD < possible_cpus:
        shards *= 2
    return shards


def capacity(table: Table, limits: Limits, maps: Maps) -> int:
    """Rows that ``table`` has room for, overflow rows included."""
    if table.kind is Kind.ARRAY:
        return table.rows
    # Beside the admitted ones: NULL, and the overflow row.
    owners, drivers, processes = limits.owners + 2, limits.drivers + 2, limits.processes + 1
    known = {
        tables.OWNER: owners,
        tables.DRIVER: drivers,
        tables.MIGRATION: owners * len(values.Class) * len(values.Trigger) * _MIGRATION_DEVICES,
        tables.MIGRATION_HISTOGRAM: owners * len(values.Class),
        tables.RANGE_FAULT: drivers * len(values.RangeFunction) * len(values.Intent),
        tables.RANGE_ATTEMPT: drivers,
        tables.INTERVAL_NOTIFIER: drivers,
        tables.EBUSY: maps.stacks + overflow_rows(table),
        tables.FAILURE: maps.failures + overflow_rows(table),
        tables.PROCESS: processes,
        tables.PROCESS_MIGRATION: processes * owners * len(values.Class),
        # Four classes' EINVAL and half a dozen errors of hmm_range_fault, and some to spare.
        tables.PROCESS_FAILURE: processes * 16 + overflow_rows(table),
    }
    return known[table]


def overflow_rows(table: Table) -> int:
    return sum(1 for _ in other_keys(table))


def other_keys(table: Table) -> Iterator[KeyValues]:
    """Keys of the rows that hold what found no room: one for each combination of known values."""
    choices = [
        tuple(member.value for member in key.domain) if key.domain else (_OTHER[key.c_type],) for key in table.keys
    ]
    return itertools.product(*choices)


class MapSet:
    """All maps of one build. Owns their fds until `close`."""

    def __init__(self, limits: Limits, maps: Maps, shards: int, compiled: Mapping[str, CompiledMap]) -> None:
        """Create the maps and their overflow rows. Raises StartError: no privilege, no memory."""
        self._shards = shards
        self._keys = {table: _key_struct(table) for table in tables.TABLES}
        self._values = {table: struct.Struct(f"<{row_words(table, shards)}Q") for table in tables.TABLES}
        self.capacity = {table: capacity(table, limits, maps) for table in tables.TABLES}
        self._thread_bytes = compiled["thread_map"].value_bytes
        self.threads = maps.threads
        self.arrivals = maps.arrivals
        self.stacks = _SLOTS_PER_STACK * maps.stacks
        self.fds: dict[str, int] = {}
        try:
            for table in tables.TABLES:
                self._create_table(table, compiled[f"{table.name}_map"])
            self._create("thread_map", syscall.MAP_HASH, 4, self._thread_bytes, self.threads)
            for name in arrivals.MAPS:
                self._create(name, syscall.MAP_HASH, *arrivals.ENTRY, maps.arrivals)
            self._create("devices_map", syscall.MAP_ARRAY, 4, _DEVICES.size, 1)
            self._create("stack_map", syscall.MAP_STACK_TRACE, 4, _STACK_BYTES, self.stacks)
            self._create("zero_map", syscall.MAP_ARRAY, 4, compiled["zero_map"].value_bytes, 1)
            if "resource_map" in compiled:
                size = compiled["resource_map"].value_bytes
                self._create("resource_map", syscall.MAP_ARRAY, 4, size, 1, syscall.BPF_F_RDONLY)
            self._insert_known_rows()
        except OSError as error:
            self.close()
            raise StartError(_why_no_map(error)) from None

    def read(self, table: Table) -> list[Row]:
        """All rows, in no order."""
        value = self._values[table]
        key_size = 4 if table.kind is Kind.ARRAY else self._keys[table].size
        rows = []
        for keys, packed in syscall.map_lookup_batch(self._fd(table), key_size, value.size, _CHUNK):
            for key, words in zip(self._keys[table].iter_unpack(keys), value.iter_unpack(packed)):
                rows.append(Row(key, self._summed(table, words)))
        if table.kind is Kind.ARRAY:
            # In the order of the index, whose digits are the key's fields.
            return [Row(key, row.words) for key, row in zip(_digits(table), rows)]
        return rows

    def remove(self, table: Table, key: KeyValues) -> Row | None:
        """Take a row out and give back what it held at that moment; None if it was gone."""
        try:
            packed = self._keys[table].pack(*key)
            value = syscall.map_lookup_and_delete(self._fd(table), packed, self._values[table].size)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return Row(key, self._summed(table, self._values[table].unpack(value)))

    def put_back(self, table: Table, row: Row) -> Row | None:
        """Undo a `remove`, adding what a new row of that key has counted meanwhile; all counts in one shard.

        Gives back the row if it found no room any more, or if its key is taken again and again.
        """
        for _ in range(_PUT_BACK_ATTEMPTS):
            words = row.words + (0,) * (self._values[table].size // 8 - len(row.words))
            key, value = self._keys[table].pack(*row.key), self._values[table].pack(*words)
            try:
                syscall.map_update(self._fd(table), key, value, syscall.BPF_NOEXIST)
                return None
            except OSError as error:
                if error.errno == errno.E2BIG:
                    return row
                if error.errno != errno.EEXIST:
                    raise
            newer = self.remove(table, row.key)
            if newer:
                row = Row(row.key, tuple(map(sum, zip(row.words, newer.words))))
        return row

    def read_threads(self) -> list[Thread]:
        """Threads that are inside of an HMM function, or between two of one migration."""
        batches = syscall.map_lookup_batch(self.fds["thread_map"], 4, self._thread_bytes, _CHUNK)
        return [
            Thread(keys[4 * at : 4 * at + 4], *struct.unpack_from("<QQ", values, at * self._thread_bytes))
            for keys, values in batches
            for at in range(len(keys) // 4)
        ]

    def remove_thread(self, thread: Thread) -> Thread | None:
        """Forget a thread, and give back what it was inside of at that moment; None if it went by itself."""
        try:
            value = syscall.map_lookup_and_delete(self.fds["thread_map"], thread.key, self._thread_bytes)
        except OSError:
            return None
        return Thread(thread.key, *struct.unpack_from("<QQ", value))

    def write_devices(self, ram_end: int, regions: Sequence[tuple[int, int, int]]) -> None:
        """Tell the programs whose page frames are whose: (first, last, number) of at most DEVICE_REGIONS."""
        words = [*itertools.chain.from_iterable(regions)]
        words += [0] * (_DEVICES.size // 8 - 2 - len(words))
        # Programs read meanwhile: first no region counts, then all do, so that none is half an old one.
        for count in (0, len(regions)):
            syscall.map_update(self.fds["devices_map"], bytes(4), _DEVICES.pack(ram_end, count, *words))

    def stack(self, stack_id: int) -> tuple[int, ...]:
        """Return addresses, innermost first; empty if there is no such stack."""
        try:
            value = syscall.map_lookup(self.fds["stack_map"], struct.pack("<I", stack_id), _STACK_BYTES)
        except OSError:
            return ()
        return tuple(itertools.takewhile(bool, struct.unpack(f"<{len(value) // 8}Q", value)))

    def memory_bytes(self) -> int:
        """Kernel memory of all maps, as the kernel itself accounts it."""
        return sum(_memlock(fd) for fd in self.fds.values())

    def close(self) -> None:
        for fd in self.fds.values():
            os.close(fd)
        self.fds.clear()

    def _fd(self, table: Table) -> int:
        return self.fds[f"{table.name}_map"]

    def _summed(self, table: Table, words: tuple[int, ...]) -> tuple[int, ...]:
        if not table.sharded or self._shards == 1:
            return words[: table.words]
        step = stride(table, self._shards)
        shards = (words[start : start + table.words] for start in range(0, step * self._shards, step))
        counted = [shard for shard in shards if any(shard)]
        return tuple(map(sum, zip(*counted))) if counted else words[: table.words]

    def _create_table(self, table: Table, compiled: CompiledMap) -> None:
        kind = syscall.MAP_ARRAY if table.kind is Kind.ARRAY else syscall.MAP_HASH
        key_size = 4 if table.kind is Kind.ARRAY else self._keys[table].size
        if (key_size, self._values[table].size) != (compiled.key_bytes, compiled.value_bytes):
            raise AssertionError(f"{table.name}: the compiler laid it out as {compiled}")
        self._create(f"{table.name}_map", kind, key_size, self._values[table].size, self.capacity[table])

    def _create(self, name: str, kind: int, key_size: int, value_size: int, entries: int, flags: int = 0) -> None:
        self.fds[name] = syscall.map_create(kind, key_size, value_size, entries, f"hmm_{name}", flags)

    def _insert_known_rows(self) -> None:
        for table in tables.ROW_TABLES:
            if table.kind is Kind.HASH:
                blank = bytes(self._values[table].size)
                for key in other_keys(table):
                    syscall.map_update(self._fd(table), self._keys[table].pack(*key), blank)
        # NULL needs no admission: it is one value, and its name is `none`.
        for table in (tables.OWNER, tables.DRIVER):
            syscall.map_update(self._fd(table), self._keys[table].pack(0), bytes(self._values[table].size))


def _key_struct(table: Table) -> struct.Struct:
    if table.kind is Kind.ARRAY:
        return struct.Struct("<I")
    _, padding = key_bytes(table)
    return struct.Struct("<" + "".join(_FORMATS[key.c_type] for key in table.keys) + f"{padding}x")


def _digits(table: Table) -> Iterator[KeyValues]:
    return itertools.product(*(range(key.values) for key in table.keys))


def _memlock(fd: int) -> int:
    for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines():
        if line.startswith("memlock:"):
            return int(line.split()[1])
    return 0


def _why_no_map(error: OSError) -> str:
    if error.errno == errno.EPERM:
        return f"the kernel refuses to make BPF maps: {capabilities.why_refused()}"
    if error.errno == errno.ENOMEM:
        return "no memory for the BPF maps: make limits.* or maps.* smaller, or the memory limit larger"
    if error.errno == errno.ENOSYS:
        return "this kernel has no bpf(2): it needs CONFIG_BPF_SYSCALL"
    return f"cannot make the BPF maps: {error.strerror}"
