# SPDX-License-Identifier: Apache-2.0
"""The kernel's own description of its types: struct offsets, enumerators, functions.

A reader of one BTF blob (``/sys/kernel/btf/vmlinux``, or a section taken out of a program). It
knows the format (Documentation/bpf/btf.rst, "BTF Type and String Encoding") and nothing about HMM.
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass
from pathlib import Path

from hmm_exporter.errors import StartError

_MAGIC = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")
_MEMBER = struct.Struct("<III")

_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM = 1, 2, 3, 4, 5, 6
_TYPEDEF, _VOLATILE, _CONST, _RESTRICT = 8, 9, 10, 11
_FUNC, _FUNC_PROTO, _VAR, _DATASEC, _DECL_TAG, _ENUM64 = 12, 13, 14, 15, 17, 19

# Bytes that follow the 12 common ones: fixed, and for each of `vlen` members.
_FIXED = {_INT: 4, _ARRAY: 12, _VAR: 4, _DECL_TAG: 4}
_EACH = {_STRUCT: 12, _UNION: 12, _ENUM: 8, _FUNC_PROTO: 8, _DATASEC: 12, _ENUM64: 12}
_QUALIFIERS = (_TYPEDEF, _VOLATILE, _CONST, _RESTRICT)


class BtfError(StartError):
    """The file cannot be read, or is not BTF."""


@dataclass(frozen=True)
class Function:
    """A function as BTF knows it. ``type_id`` is what a tracing program attaches to."""

    type_id: int
    parameters: int
    returns_pointer: bool


class Btf:
    """An index over one BTF blob. Look-ups of what is not there give None."""

    def __init__(self, blob: bytes) -> None:
        try:
            magic, _, _, header, type_at, type_bytes, string_at, string_bytes = _HEADER.unpack_from(blob)
        except struct.error:
            raise BtfError("shorter than a BTF header") from None
        if magic != _MAGIC:
            raise BtfError("not BTF of this machine's byte order (wrong magic number)")
        if len(blob) < header + max(type_at + type_bytes, string_at + string_bytes):
            raise BtfError("shorter than its header says")
        self._types = blob[header + type_at : header + type_at + type_bytes]
        self._strings = blob[header + string_at : header + string_at + string_bytes]
        # By type id, from 1; 0 is void. No dict of names: it would take 15 MB of small objects.
        self._at = array("I", [0])
        self._names = array("I", [0])
        try:
            end = self._index()
        except struct.error:
            end = -1
        if end != len(self._types):
            raise BtfError("a type reaches beyond the end of the type section")

    @classmethod
    def load(cls, path: Path) -> Btf:
        """Read ``path``. Raises BtfError with the reason in one line."""
        try:
            blob = path.read_bytes()
        except OSError as error:
            raise BtfError(f"{path}: {error.strerror}") from None
        try:
            return cls(blob)
        except BtfError as error:
            raise BtfError(f"{path}: {error}") from None

    def function(self, name: str) -> Function | None:
        """The function called ``name``, if the kernel has it with this very name."""
        type_id = self._find(name, _FUNC)
        if type_id is None:
            return None
        _, _, prototype = self._type(type_id)
        _, info, returns = self._type(prototype)
        kind, _ = self._unqualified(returns)
        return Function(type_id, info & 0xFFFF, kind == _PTR)

    def has_typedef(self, name: str) -> bool:
        return self._find(name, _TYPEDEF) is not None

    def size(self, struct_name: str) -> int | None:
        """Bytes of ``struct struct_name``."""
        type_id = self._find(struct_name, _STRUCT)
        return None if type_id is None else self._type(type_id)[2]

    def offset(self, path: str) -> int | None:
        """Byte offset of ``"struct.field"``; fields of anonymous members count as its own."""
        struct_name, _, field = path.partition(".")
        type_id = self._find(struct_name, _STRUCT)
        try:
            bits = None if type_id is None else self._member(type_id, self._string_at(field), set())
        except RecursionError:
            raise BtfError(f"BTF: struct {struct_name} is nested too deeply") from None
        return None if bits is None else bits // 8

    def enumerator(self, name: str) -> int | None:
        """Value of an enumeration constant, as an unsigned number."""
        at = self._string_at(name)
        if at is None:
            return None
        wanted = at.to_bytes(4, "little")
        for offset in self._at[1:]:
            info: int = _TYPE.unpack_from(self._types, offset)[1]
            kind = info >> 24 & 0x1F
            if kind not in (_ENUM, _ENUM64):
                continue
            start, size = offset + _TYPE.size, _EACH[kind]
            block = self._types[start : start + (info & 0xFFFF) * size]
            found = block.find(wanted)
            while found >= 0 and found % size:
                found = block.find(wanted, found + 1)
            if found >= 0:
                return int.from_bytes(block[found + 4 : found + size], "little")
        return None

    def _index(self) -> int:
        """Where the last type ends."""
        offset = 0
        while offset < len(self._types):
            name, info, _ = _TYPE.unpack_from(self._types, offset)
            kind = info >> 24 & 0x1F
            self._at.append(offset)
            self._names.append(name)
            offset += _TYPE.size + _FIXED.get(kind, 0) + (info & 0xFFFF) * _EACH.get(kind, 0)
        return offset

    def _type(self, type_id: int) -> tuple[int, int, int]:
        """(name offset, info, size or type) of a type; ids start at 1, 0 is void."""
        if type_id >= len(self._at):
            raise BtfError(f"BTF: a type refers to number {type_id}, and there is none")
        name, info, size = _TYPE.unpack_from(self._types, self._at[type_id])
        return name, info, size

    def _string_at(self, name: str) -> int | None:
        # Strings are stored once each, zero-terminated, behind an empty first one.
        found = self._strings.find(b"\0" + name.encode() + b"\0")
        return None if found < 0 else found + 1

    def _find(self, name: str, kind: int) -> int | None:
        """The first type of this name and kind; a forward declaration has another kind."""
        at = self._string_at(name)
        type_id = 0
        while at is not None:
            try:
                type_id = self._names.index(at, type_id + 1)
            except ValueError:
                return None
            if self._type(type_id)[1] >> 24 & 0x1F == kind:
                return type_id
        return None

    def _unqualified(self, type_id: int) -> tuple[int, int]:
        """(kind, id) behind typedefs and qualifiers; kind 0 is void."""
        for _ in self._at:
            if not type_id:
                return 0, 0
            _, info, target = self._type(type_id)
            kind = info >> 24 & 0x1F
            if kind not in _QUALIFIERS:
                return kind, type_id
            type_id = target
        raise BtfError("BTF: types refer to each other in a circle")

    def _member(self, type_id: int, field: int | None, seen: set[int]) -> int | None:
        """Offset in bits of the member whose name stands at ``field`` in the strings.

        ``seen``: where it was not found. Without it, types that contain each other twice would be looked
        through twice as often with each level.
        """
        seen.add(type_id)
        _, info, _ = self._type(type_id)
        start = self._at[type_id] + _TYPE.size
        for number in range(info & 0xFFFF):
            name: int
            member_type: int
            bits: int
            name, member_type, bits = _MEMBER.unpack_from(self._types, start + number * _MEMBER.size)
            if info >> 31:  # kind_flag: the upper byte is the size of a bit field
                bits &= 0xFFFFFF
            if name and name == field:
                return bits
            if not name:
                kind, target = self._unqualified(member_type)
                inner = self._member(target, field, seen) if kind in (_STRUCT, _UNION) and target not in seen else None
                if inner is not None:
                    return bits + inner
        return None
