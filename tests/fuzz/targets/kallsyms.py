# SPDX-License-Identifier: Apache-2.0
"""The symbol table and the list of modules: in any file, an address has the name that a naive search finds.

And no name is made of an address: what is not in the file's columns of names is never told.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from hmm_exporter.kernel.modules import users
from hmm_exporter.kernel.symbols import Symbols
from hmm_exporter.metrics.labels import Names
from tests.fuzz.target import ScratchFile, Target, check_message

_LINE = re.compile(rb"([0-9a-f]{16}) (\S) (\S+)(?:[ \t]+\[(\S+)\])?[^\n]*")
_FARTHEST, _FARTHEST_LAST = 1 << 16, 1 << 12
_NOWHERE = (b"_end", b"__end_of_kernel_reserve")

_kallsyms = ScratchFile()
_modules = ScratchFile()


def try_one(data: bytes) -> None:
    symbols = Symbols(_kallsyms.write(data))
    try:
        _compare(symbols, data)
    finally:
        symbols.close()
    for module in ("", "xe", "drm_gpusvm_helper"):
        assert all(users(module, _modules.write(data)))


def _compare(symbols: Symbols, data: bytes) -> None:
    table = [(int(match[1], 16), match) for line in data.split(b"\n") if (match := _LINE.fullmatch(line))]
    there = [(address, match) for address, match in table if address]
    if symbols.problem:
        check_message(symbols.problem)
        assert not there
    steps = (-1, 0, 1, _FARTHEST_LAST - 1, _FARTHEST_LAST, _FARTHEST - 1, _FARTHEST)
    wanted = {address + more for address, _ in there[:4] for more in steps}
    lines = list(_with_address(data))
    found = symbols.resolve(wanted)
    assert found.keys() <= wanted
    for address in wanted:
        name = _nearest(there, lines, address)
        symbol = found.get(address)
        assert (symbol and (symbol.name.encode(errors="replace"), symbol.offset)) == name, (address, symbol, name)
    for _, match in table[:4]:
        at = symbols.address(match[3].decode(errors="replace"))
        assert at is None or at in {address for address, each in there if each[3] == match[3]}
    _label(symbols, wanted, b" ".join(part for _, match in table for part in match.groups(b"")[2:]))


def _with_address(data: bytes) -> Iterator[tuple[int, bytes]]:
    for line in data.split(b"\n"):
        with contextlib.suppress(ValueError):
            yield int(line[:16], 16), line


def _nearest(
    there: list[tuple[int, re.Match[bytes]]], lines: list[tuple[int, bytes]], address: int
) -> tuple[bytes, int] | None:
    """The first of the nearest symbols at or below, in one look at all of them."""
    below = [(at, match) for at, match in there if at <= address and match[3].partition(b".")[0] != b"__key"]
    if not below:
        return None
    at, match = max(below, key=lambda each: each[0])
    _, line = min(((at, line) for at, line in lines if at > address), key=lambda each: each[0], default=(0, b""))
    following = _LINE.fullmatch(line)
    is_last = match[4] and not (following and following[4] == match[4])
    if address - at >= (_FARTHEST_LAST if is_last else _FARTHEST) or match[3] in _NOWHERE:
        return None
    return match[3].decode(errors="replace").encode(), address - at


def _label(symbols: Symbols, wanted: set[int], given: bytes) -> None:
    """Labels made of these addresses tell none of them."""
    names = Names(symbols, lambda stack: tuple(sorted(wanted)[:4]), lambda module: (), callers=4)
    names.learn(dict.fromkeys(wanted, 0), wanted, [0, 1])
    texts = [names.caller(0), *(names.driver(each) for each in wanted)]
    texts += [part for each in wanted for part in (names.owner(each).name, names.owner(each).driver)]
    for text in set(texts):
        text.encode()
        for address in wanted:
            for number in (f"{address:x}", str(address)) if address >= 1 << 32 else ():
                assert number not in text or number.encode() in given, "an address became a name"


TARGET = Target(
    try_one,
    words=[
        *("ffffffff81000000 T ", "ffffffffc0a01000 t ", "0000000000000000 A ", "\t[xe]\n", "\t[bpf]\n", "_end\n"),
        *("__key.1\n", "hmm_range_fault\n", "drm_gpusvm_helper 61440 1 xe, Live 0x0000000000000000\n", "[permanent]"),
    ],
)
