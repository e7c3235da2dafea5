# SPDX-License-Identifier: Apache-2.0
"""Writes BTF, as far as the tests need it, after Documentation/bpf/btf.rst. Uses nothing of the package."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT = range(1, 12)
FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(12, 20)
VOID = 0


class Member(NamedTuple):
    """A struct's or union's member; ``bits`` is its offset, ``width`` that of a bit field."""

    name: str
    type_id: int
    bits: int
    width: int = 0


class Encoder:
    """Each method adds a type and gives its id; `blob` writes all of them."""

    def __init__(self, order: str = "<") -> None:
        self._order = order
        self._strings = bytearray(b"\0")
        self._at: dict[str, int] = {"": 0}
        self._types: list[bytes] = []

    def integer(self, name: str, size: int) -> int:
        return self._add(name, INT, size, self._words(size * 8))

    def pointer(self, target: int) -> int:
        return self._add("", PTR, target)

    def array(self, element: int, index: int, count: int) -> int:
        return self._add("", ARRAY, 0, self._words(element, index, count))

    def struct(self, name: str, size: int, members: Sequence[Member], union: bool = False) -> int:
        # kind_flag: with a bit field, the upper byte of every member's offset is its width.
        fields = any(member.width for member in members)
        tail = b"".join(
            self._words(self.string(member.name), member.type_id, member.width << 24 | member.bits)
            for member in members
        )
        return self._add(name, UNION if union else STRUCT, size, tail, len(members), fields)

    def enum(self, name: str, values: Mapping[str, int]) -> int:
        tail = b"".join(self._words(self.string(each), value & 0xFFFF_FFFF) for each, value in values.items())
        return self._add(name, ENUM, 4, tail, len(values), any(value < 0 for value in values.values()))

    def enum64(self, name: str, values: Mapping[str, int]) -> int:
        tail = b"".join(
            self._words(self.string(each), value & 0xFFFF_FFFF, value >> 32 & 0xFFFF_FFFF)
            for each, value in values.items()
        )
        return self._add(name, ENUM64, 8, tail, len(values))

    def forward(self, name: str) -> int:
        return self._add(name, FWD, 0)

    def refer(self, kind: int, target: int, name: str = "") -> int:
        """TYPEDEF, CONST, VOLATILE, RESTRICT or TYPE_TAG."""
        return self._add(name, kind, target)

    def prototype(self, returns: int, parameters: Sequence[tuple[str, int]]) -> int:
        tail = b"".join(self._words(self.string(name), type_id) for name, type_id in parameters)
        return self._add("", FUNC_PROTO, returns, tail, len(parameters))

    def function(self, name: str, prototype: int, linkage: int = 0) -> int:
        """``linkage``: 0 static, 1 global, 2 extern; it stands where other kinds count their members."""
        return self._add(name, FUNC, prototype, count=linkage)

    def variable(self, name: str, type_id: int) -> int:
        return self._add(name, VAR, type_id, self._words(1))

    def section(self, name: str, variables: Sequence[int]) -> int:
        tail = b"".join(self._words(variable, 8 * at, 8) for at, variable in enumerate(variables))
        return self._add(name, DATASEC, 8 * len(variables), tail, len(variables))

    def floating(self, name: str, size: int) -> int:
        return self._add(name, FLOAT, size)

    def declaration_tag(self, name: str, target: int) -> int:
        return self._add(name, DECL_TAG, target, self._words(0xFFFF_FFFF))

    def string(self, text: str) -> int:
        if text not in self._at:
            self._at[text] = len(self._strings)
            self._strings += text.encode() + b"\0"
        return self._at[text]

    def blob(self) -> bytes:
        types, strings = b"".join(self._types), bytes(self._strings)
        sizes = (24, 0, len(types), len(types), len(strings))
        return struct.pack(self._order + "HBBIIIII", 0xEB9F, 1, 0, *sizes) + types + strings

    def _add(self, name: str, kind: int, size: int, tail: bytes = b"", count: int = 0, flag: bool = False) -> int:
        self._types.append(self._words(self.string(name), flag << 31 | kind << 24 | count, size) + tail)
        return len(self._types)

    def _words(self, *words: int) -> bytes:
        return struct.pack(f"{self._order}{len(words)}I", *words)
