# SPDX-License-Identifier: Apache-2.0
"""What a program loads from its context, by its instructions (Documentation/bpf/standardization/instruction-set.rst).

Belongs here: following the context from register 1 along all paths. What stands at an offset is the tests' affair.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_LD, _LDX, _ST, _STX, _ALU, _JMP, _JMP32, _ALU64 = range(8)
_LOAD_IMMEDIATE, _LOAD_64, _STORE_64, _MOVE_64 = 0x18, 0x79, 0x7B, 0xBF
_SET = (0xB7, 0xB4, 0xBC)  # to a number, of 64 or 32 bits, or to another register's lower half
_GOTO, _CALL, _EXIT, _GOTO_LONG = 0x05, 0x85, 0x95, 0x06
_STACK = 10

Holders = frozenset[int]
"""Where the context is held: registers by their numbers, and stack slots by their offsets, which are negative."""


def context_loads(code: bytes) -> set[int]:
    """The offset of every load from the context that a program can come to."""
    instructions = list(struct.iter_unpack("<BBhi", code))
    waiting: list[tuple[int, Holders]] = [(0, frozenset({1}))]
    seen: set[tuple[int, Holders]] = set()
    loads: set[int] = set()
    while waiting:
        state = waiting.pop()
        if state in seen:
            continue
        seen.add(state)
        at, held = state
        opcode, registers, offset, immediate = instructions[at]
        if opcode & 7 == _LDX and registers >> 4 in held:
            loads.add(offset)
        after = _after(opcode, registers & 15, registers >> 4, offset, held)
        waiting += ((following, after) for following in _following(at, opcode, offset, immediate))
    return loads


def _after(opcode: int, to: int, source: int, offset: int, held: Holders) -> Holders:
    """Who holds the context behind an instruction."""
    kind = opcode & 7
    if kind in (_JMP, _JMP32):
        return held - frozenset(range(6)) if opcode == _CALL else held
    if kind in (_ST, _STX):
        copied = opcode == _STORE_64 and to == _STACK and source in held
        return held | {offset} if copied else held - {offset} if to == _STACK else held
    if opcode == _MOVE_64:
        return held | {to} if source in held else held - {to}
    if opcode == _LOAD_64 and source == _STACK and offset in held:
        return held | {to}
    # The verifier lets nobody count with the context, so that it stays what it was, or goes.
    assert kind in (_LD, _LDX) or opcode in _SET or to not in held, "arithmetic on the context"
    return held - {to}


def _following(at: int, opcode: int, offset: int, immediate: int) -> Iterator[int]:
    if opcode == _EXIT:
        return
    if opcode in (_GOTO, _GOTO_LONG):
        yield at + 1 + (offset if opcode == _GOTO else immediate)
        return
    yield at + (2 if opcode == _LOAD_IMMEDIATE else 1)
    if opcode & 7 in (_JMP, _JMP32) and opcode != _CALL:
        yield at + 1 + offset
