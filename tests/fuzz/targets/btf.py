# SPDX-License-Identifier: Apache-2.0
"""BTF: any blob answers every question as a naive reader does, or is refused by a BtfError of one line.

An input is either a blob, or the type section and the strings of one, cut where its first two
bytes say: else few inputs would get behind the header.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from hmm_exporter.kernel.btf import Btf, BtfError
from hmm_exporter.kernel.features import has_device_private, has_kprobe_multi
from tests.fuzz.target import Target, check_message

_HEADER = struct.Struct("<HBBIIIII")
_FIXED = {1: 4, 3: 12, 14: 4, 17: 4}
_EACH = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}


def try_one(data: bytes) -> None:
    if data.startswith(b"\x9f\xeb"):
        _ask(data)
    else:
        cut = 2 + int.from_bytes(data[:2], "little") % max(1, len(data) - 1)
        _ask(blob(data[2:cut], b"\0" + data[cut:] + b"\0"))


def blob(types: bytes, strings: bytes) -> bytes:
    header = _HEADER.pack(0xEB9F, 1, 0, _HEADER.size, 0, len(types), len(types), len(strings))
    return header + types + strings


def _ask(data: bytes) -> None:
    try:
        btf = Btf(data)
    except BtfError as error:
        check_message(str(error))
        return
    _, _, _, header, type_at, type_bytes, string_at, string_bytes = _HEADER.unpack_from(data)
    types = data[header + type_at :][:type_bytes]
    strings = data[header + string_at :][:string_bytes]
    words = [
        word.decode() for word in strings.split(b"\0")[:8] if word and word.isascii() and word.decode().isprintable()
    ]
    for word in [*words, "migrate_vma"]:
        found = [each for each in _read(types) if each[0] == strings.find(b"\0" + word.encode() + b"\0") + 1 > 0]
        assert btf.has_typedef(word) == any(kind == 8 for _, kind, _ in found)
        assert btf.size(word) == next((size for _, kind, size in found if kind == 4), None)
        value = btf.enumerator(word)
        assert value is None or 0 <= value < 1 << 64
        _any_answer(lambda: btf.function(word))  # noqa: B023
        for field in words:
            _any_answer(lambda: btf.offset(f"{word}.{field}"))  # noqa: B023
    _any_answer(lambda: has_device_private(btf))
    _any_answer(lambda: has_kprobe_multi(btf))


def _any_answer(ask: object) -> None:
    assert callable(ask)
    try:
        ask()
    except BtfError as error:
        check_message(str(error))


def _read(types: bytes) -> Iterator[tuple[int, int, int]]:
    """(name, kind, size) of each type, one after another."""
    at = 0
    while at < len(types):
        name, info, size = struct.unpack_from("<III", types, at)
        kind = info >> 24 & 31
        yield name, kind, size
        at += 12 + _FIXED.get(kind, 0) + (info & 0xFFFF) * _EACH.get(kind, 0)


TARGET = Target(try_one, words=[b"\x9f\xeb\x01\x00\x18\x00\x00\x00", "migrate_vma", "a", "make_device_exclusive"])
