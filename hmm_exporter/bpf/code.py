# SPDX-License-Identifier: Apache-2.0
"""From the compiler's instructions to ones that the kernel loads: maps' fds put in, the callback joined.

struct bpf_insn is 8 bytes: opcode, registers (source in the upper half), offset, immediate; a
64-bit immediate takes two (include/uapi/linux/bpf.h). What the programs do is no matter here.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from hmm_exporter.bpf.compiler import Compiled
from hmm_exporter.bpf.source import WALK_BLOCK

_INSTRUCTION = struct.Struct("<BBhi")
_LOAD_IMMEDIATE = 0x18  # BPF_LD | BPF_IMM | BPF_DW
_PSEUDO_MAP_FD, _PSEUDO_FUNCTION = 1, 4
# BPF_ALU64 | BPF_MOV | BPF_X, r1 = r2: bpf_loop gives its context second, and bcc compiles
# functions of one argument only.
_FIRST_IS_SECOND = _INSTRUCTION.pack(0xBF, 2 << 4 | 1, 0, 0)

CALLBACK = "walk_block"

_PROGRAM_TYPE, _CALLBACK_TYPE = 3, 4


@dataclass(frozen=True)
class Code:
    """A program's instructions, and where the callback begins in them (0: it has none)."""

    instructions: bytes
    callback_at: int = 0


def link(compiled: Compiled, fds: Mapping[str, int]) -> dict[str, Code]:
    """All programs with ``fds`` of maps by name in place of the loader's, and the callback behind its callers."""
    by_loader = {layout.fd: fds[name] for name, layout in compiled.maps.items()}
    relocated = {name: _relocated(code, by_loader) for name, code in compiled.programs.items()}
    callback = _FIRST_IS_SECOND + relocated.pop(CALLBACK, b"")
    return {name: _joined(code, callback) for name, code in relocated.items()}


def _relocated(code: bytes, fds: Mapping[int, int]) -> bytes:
    patched = bytearray(code)
    for at in range(0, len(patched), _INSTRUCTION.size):
        opcode, registers, _, immediate = _INSTRUCTION.unpack_from(patched, at)
        if opcode == _LOAD_IMMEDIATE and registers >> 4 == _PSEUDO_MAP_FD:
            struct.pack_into("<i", patched, at + 4, fds[immediate])
    return bytes(patched)


def _joined(code: bytes, callback: bytes) -> Code:
    patched = bytearray(code)
    size, called = _INSTRUCTION.size, False
    for at in range(0, len(patched) - size, size):
        opcode, registers, _, low = _INSTRUCTION.unpack_from(patched, at)
        if opcode != _LOAD_IMMEDIATE or registers >> 4:
            continue
        high = struct.unpack_from("<I", patched, at + size + 4)[0]
        if high << 32 | low & 0xFFFF_FFFF == WALK_BLOCK:
            # The distance from the instruction behind it (its first half) to the callback.
            distance = (len(patched) - at) // size - 1
            _INSTRUCTION.pack_into(patched, at, opcode, registers | _PSEUDO_FUNCTION << 4, 0, distance)
            struct.pack_into("<I", patched, at + size + 4, 0)
            called = True
    return Code(bytes(patched) + callback, len(patched) // size) if called else Code(bytes(patched))


def function_types() -> bytes:
    """BTF of two functions that give an int: the kernel wants a callback's type (5.13, check_ld_imm)."""
    names = b"\0int\0program\0" + CALLBACK.encode() + b"\0"
    types = (
        struct.pack("<IIII", names.index(b"int"), 1 << 24, 4, 1 << 24 | 32)  # 1: BTF_KIND_INT, signed, 32 bits
        + struct.pack("<III", 0, 13 << 24, 1)  # 2: BTF_KIND_FUNC_PROTO, which gives 1
        + struct.pack("<III", names.index(b"program"), 12 << 24, 2)  # BTF_KIND_FUNC, static, of 2
        + struct.pack("<III", names.index(CALLBACK.encode()), 12 << 24, 2)
    )
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(names))
    return header + types + names


def functions(code: Code) -> tuple[tuple[int, int], ...]:
    """(first instruction, type) of each function in ``code``, if there is more than the program itself."""
    return ((0, _PROGRAM_TYPE), (code.callback_at, _CALLBACK_TYPE)) if code.callback_at else ()
