# SPDX-License-Identifier: Apache-2.0
"""How often a walk is tried, and what it gives when the tree changes. What one run reads is tests/bpf's affair."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence

import pytest

from hmm_exporter.bpf import syscall
from hmm_exporter.bpf.resource_walk import ResourceWalk
from hmm_exporter.kernel.iomem import Resource

DONE, MORE, TORN = 0, 1, 2
ROWS = 4
VALUE_BYTES = 40 + ROWS * 56
ROOT = 0xFFFFFFFF82A4F3C0

Run = tuple[int, Sequence[str | bytes]]


class Program:
    """Plays back runs: the result of each, and the names of the ranges that it read. The last one repeats."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.contexts: list[tuple[int, int]] = []
        self.now: Sequence[str | bytes] = ()

    def prog_test_run(self, fd: int, context: bytes) -> int:
        root, begin = struct.unpack("<QQ", context)
        self.contexts.append((root, begin))
        result, self.now = self.runs.pop(0) if len(self.runs) > 1 else self.runs[0]
        return result

    def map_lookup(self, fd: int, key: bytes, value_bytes: int) -> bytes:
        assert (key, value_bytes) == (bytes(4), VALUE_BYTES)
        rows = b"".join(
            struct.pack("<QQII32s", 0, 15, 2, 1, name.encode() if isinstance(name, str) else name) for name in self.now
        )
        return (struct.pack("<QQQIIQ", ROOT, 1, 2, 3, 0, len(self.now)) + rows).ljust(value_bytes, b"x")


@pytest.fixture
def walk(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ResourceWalk, Program]]:
    program = Program()
    monkeypatch.setattr(syscall, "prog_test_run", program.prog_test_run)
    monkeypatch.setattr(syscall, "map_lookup", program.map_lookup)
    made = ResourceWalk(os.open(os.devnull, os.O_RDONLY), -1, VALUE_BYTES, ROOT)
    yield made, program
    made.close()


def names(resources: Sequence[Resource]) -> list[str]:
    return [each.name for each in resources]


def test_a_walk_begins_at_the_root_and_goes_on_until_it_is_done(walk: tuple[ResourceWalk, Program]) -> None:
    resources, program = walk
    program.runs = [(MORE, "abcd"), (MORE, "efgh"), (DONE, "i")]
    assert names(resources.read()) == list("abcdefghi")
    assert program.contexts == [(ROOT, 1), (ROOT, 0), (ROOT, 0)]
    assert resources.read() == [Resource(0, 15, "i", 2, True)]
    assert program.contexts[3:] == [(ROOT, 1)]


def test_a_walk_that_met_a_change_begins_again(walk: tuple[ResourceWalk, Program]) -> None:
    resources, program = walk
    program.runs = [(MORE, "abcd"), (TORN, "ef"), (MORE, "abcd"), (DONE, "e")]
    assert names(resources.read()) == list("abcde")
    assert [begin for _, begin in program.contexts] == [1, 0, 1, 0]


def test_after_five_changes_it_gives_what_it_read_last(walk: tuple[ResourceWalk, Program]) -> None:
    resources, program = walk
    program.runs = [(DONE, "ab"), *[(TORN, "a")] * 5, (DONE, "abc")]
    assert names(resources.read()) == list("ab")
    assert names(resources.read()) == list("ab")
    assert names(resources.read()) == list("abc")


def test_a_tree_without_an_end_is_given_up(walk: tuple[ResourceWalk, Program]) -> None:
    resources, program = walk
    program.runs = [(MORE, "abcd")]
    assert resources.read() == []
    assert len(program.contexts) == 5 * 512


def test_a_name_that_is_not_text_is_escaped(walk: tuple[ResourceWalk, Program]) -> None:
    resources, program = walk
    program.runs = [(DONE, [b"\xffname"])]
    assert names(resources.read()) == ["\\xffname"]
