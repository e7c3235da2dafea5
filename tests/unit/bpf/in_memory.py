# SPDX-License-Identifier: Apache-2.0
"""bpf(2)'s maps, in memory, behind the functions of `hmm_exporter.bpf.syscall`; and programs that fill them.

It refuses what the kernel refuses, with the same errno. File descriptors are real ones, of
/dev/null, so that one that is not closed, or is closed twice, shows.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from hmm_exporter.bpf import syscall
from hmm_exporter.bpf.compiler import CompiledMap
from hmm_exporter.bpf.maps import KeyValues, MapSet
from hmm_exporter.bpf.plan import choose
from hmm_exporter.bpf.source import text
from hmm_exporter.catalog.tables import Kind, Table
from hmm_exporter.config import Limits, Maps
from tests.unit.bpf import c_text, kernels

STACK_BYTES = 32 * 8
"""As deep as the daemon has the kernel keep a stack."""

_FORMATS = {"u64": "Q", "comm": "24s", "u32": "I", "u16": "H", "u8": "B"}
_TASK_THREAD_WORDS = 2


@functools.lru_cache
def c_structs(shards: int) -> Mapping[str, type[ctypes.Structure]]:
    """The structs in the text of all programs, laid out as a compiler would."""
    plan, _ = choose(kernels.kernel(possible_cpus=32 * shards), kernels.config(phases=True))
    assert plan.shards == shards
    return c_text.structs(c_text.preprocess(text(plan, "fentry")))


@functools.lru_cache
def layouts(shards: int) -> Mapping[str, CompiledMap]:
    """What a compiler tells of the maps in the text."""
    plan, _ = choose(kernels.kernel(possible_cpus=32 * shards), kernels.config(phases=True))
    code = c_text.preprocess(text(plan, "fentry")).code
    made = {"stack_map": CompiledMap(900, 4, 127 * 8)}
    for number, (_, key, value, name, _) in enumerate(c_text.uses(code, "BPF_TABLE")):
        sizes = [4 if each == "u32" else ctypes.sizeof(c_structs(shards)[each.split()[1]]) for each in (key, value)]
        made[name] = CompiledMap(100 + number, *sizes)
    return made


@dataclass
class Map:
    """One map. An array has all its rows from the beginning."""

    name: str
    kind: int
    key_bytes: int
    value_bytes: int
    entries: int
    rows: dict[bytes, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind == syscall.MAP_ARRAY:
            self.rows = {struct.pack("<I", index): bytes(self.value_bytes) for index in range(self.entries)}


class Bpf:
    """A kernel's maps. Methods named as in `syscall` stand in for them; the others are the programs' side."""

    def __init__(self, shards: int = 1) -> None:
        self._shards = shards
        self.maps: dict[str, Map] = {}
        """By the name in the program's text."""
        self.refusal: dict[str, int] = {}
        """Maps that shall not be created, and the errno that says so."""
        self.before_read: Callable[[str], None] = lambda name: None
        """What happens just before a map, named, is read as a whole."""
        self.before_removal: Callable[[str, bytes], None] = lambda name, key: None
        """What happens just before a row is taken out: a map's name, and the key."""
        self.after_removal: Callable[[str, bytes], None] = lambda name, key: None
        self._by_fd: dict[int, Map] = {}

    def map_create(self, kind: int, key_bytes: int, value_bytes: int, entries: int, name: str, flags: int = 0) -> int:
        assert name.startswith("hmm_")
        short = name.removeprefix("hmm_")
        if short in self.refusal:
            raise OSError(self.refusal[short], os.strerror(self.refusal[short]))
        fd = os.open(os.devnull, os.O_RDONLY)
        self.maps[short] = self._by_fd[fd] = Map(short, kind, key_bytes, value_bytes, entries)
        return fd

    def map_update(self, fd: int, key: bytes, value: bytes, flags: int = syscall.BPF_ANY) -> None:
        self._update(self._by_fd[fd], key, value, flags)

    def map_lookup(self, fd: int, key: bytes, value_bytes: int) -> bytes:
        each = self._by_fd[fd]
        assert (len(key), value_bytes) == (each.key_bytes, each.value_bytes)
        if key not in each.rows:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return each.rows[key]

    def map_lookup_and_delete(self, fd: int, key: bytes, value_bytes: int) -> bytes:
        self.before_removal(self._by_fd[fd].name, key)
        value = self.map_lookup(fd, key, value_bytes)
        self.map_delete(fd, key)
        self.after_removal(self._by_fd[fd].name, key)
        return value

    def map_delete(self, fd: int, key: bytes) -> None:
        if self._by_fd[fd].kind == syscall.MAP_ARRAY:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if self._by_fd[fd].rows.pop(key, None) is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    def map_lookup_batch(self, fd: int, key_bytes: int, value_bytes: int, chunk: int) -> Iterator[tuple[bytes, bytes]]:
        each = self._by_fd[fd]
        assert (key_bytes, value_bytes) == (each.key_bytes, each.value_bytes)
        self.before_read(each.name)
        rows = list(each.rows.items())
        for start in range(0, len(rows) + 1, chunk):
            part = rows[start : start + chunk]
            yield b"".join(key for key, _ in part), b"".join(value for _, value in part)

    @contextmanager
    def installed(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in vars(Bpf):
                if name.startswith("map_"):
                    patch.setattr(syscall, name, getattr(self, name))
            yield

    def book(self, table: Table, key: KeyValues, shard: int = 0, **amounts: int | Sequence[int]) -> None:
        """What a program does: find the row, or make it, and add to columns; a histogram takes its slots."""
        each = self.maps[f"{table.name}_map"]
        packed = pack_key(table, key)
        if packed not in each.rows:
            self._update(each, packed, bytes(each.value_bytes), syscall.BPF_NOEXIST)
        words = list(struct.unpack(f"<{each.value_bytes // 8}Q", each.rows[packed]))
        at = shard * (len(words) // (self._shards if table.sharded else 1))
        for value in table.values:
            amount = amounts.pop(value.name, 0)
            for offset, more in enumerate([amount] if isinstance(amount, int) else amount):
                words[at + offset] += more
            at += value.words
        assert not amounts, f"no such column: {amounts}"
        each.rows[packed] = struct.pack(f"<{len(words)}Q", *words)

    def enter(self, thread: int, inside: int, since: int) -> None:
        """A thread enters a function."""
        each = self.maps["thread_map"]
        rest = bytes(each.value_bytes - 8 * _TASK_THREAD_WORDS)
        self._update(each, struct.pack("<I", thread), struct.pack("<QQ", inside, since) + rest, syscall.BPF_ANY)

    def leave(self, thread: int) -> None:
        del self.maps["thread_map"].rows[struct.pack("<I", thread)]

    def arrive(self, mm: int, region: int, since: int) -> None:
        """Pages of a region of an address space arrive on a device."""
        for name in ("arrival_map", "resident_map"):
            self._update(self.maps[name], struct.pack("<QQ", mm, region), struct.pack("<Q", since), syscall.BPF_ANY)

    def come_back(self, mm: int, region: int) -> None:
        """A CPU fault brings some of them back: how long they stayed is known now."""
        del self.maps["resident_map"].rows[struct.pack("<QQ", mm, region)]

    def keep_stack(self, number: int, *frames: int) -> None:
        """A kernel stack, innermost return address first."""
        value = struct.pack(f"<{len(frames)}Q", *frames).ljust(STACK_BYTES, b"\0")
        self.maps["stack_map"].rows[struct.pack("<I", number)] = value

    def _update(self, each: Map, key: bytes, value: bytes, flags: int) -> None:
        assert (len(key), len(value)) == (each.key_bytes, each.value_bytes)
        if key in each.rows and flags == syscall.BPF_NOEXIST:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        if key not in each.rows and len(each.rows) >= each.entries:
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
        each.rows[key] = value


def pack_key(table: Table, key: KeyValues) -> bytes:
    """A key as the program's struct holds it; of an array, its index."""
    if table.kind is Kind.ARRAY:
        index = 0
        for digit, each in zip(key, table.keys):
            assert isinstance(digit, int)
            index = index * each.values + digit
        return struct.pack("<I", index)
    packed = struct.pack("<" + "".join(_FORMATS[each.c_type] for each in table.keys), *key)
    return packed.ljust(-(-len(packed) // 8) * 8, b"\0")


@contextmanager
def map_set(limits: Limits | None = None, maps: Maps | None = None, shards: int = 1) -> Iterator[tuple[Bpf, MapSet]]:
    """The exporter's maps in such a kernel."""
    bpf = Bpf(shards)
    with bpf.installed():
        made = MapSet(limits or Limits(), maps or Maps(), shards, layouts(shards))
        try:
            yield bpf, made
        finally:
            made.close()
