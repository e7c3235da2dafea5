# SPDX-License-Identifier: Apache-2.0
"""Kernel addresses to symbols, by /proc/kallsyms. Addresses come in; only names go out.

The file is some 10 MB and is not kept: each question reads it once, from an fd that was opened
while the rights were there (a file that was opened with CAP_SYSLOG keeps showing addresses).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

KALLSYMS = Path("/proc/kallsyms")

_LINE = re.compile(rb"([0-9a-f]{16}) \S (\S+)(?:[ \t]+\[(\S+)\])?")
"""``ffffffffc0a01000 t dmirror_fault\\t[test_hmm]`` (kernel/kallsyms.c, s_show)"""

_FARTHEST = 1 << 16
"""An address this far behind a symbol is not part of it, but on the heap behind the last symbol."""
_FARTHEST_LAST = 4096
"""The same of the last symbol of a module's area. The next area, whose module may be gone with its symbols, is farther
away: there is a page between (__get_vm_area_node, mm/vmalloc.c)."""


@dataclass(frozen=True)
class Symbol:
    """``module`` is empty for vmlinux; ``offset`` is in bytes from the symbol's start."""

    name: str
    module: str
    offset: int


class Symbols:
    """Looks addresses up. Without the right to see addresses every answer is empty."""

    def __init__(self, path: Path = KALLSYMS) -> None:
        self._file: BinaryIO | None = None
        self.problem = ""
        """Why no address can be named, and what would help; empty if they can."""
        try:
            self._file = path.open("rb")
        except OSError as error:
            self.problem = f"{path}: {error.strerror}"
        else:
            if not any(address for address, _ in self._lines()):
                self._file.close()
                self._file = None
                self.problem = f"{path} shows no addresses: give CAP_SYSLOG, or set kernel.kptr_restrict to 0 or 1"

    def resolve(self, addresses: Iterable[int]) -> Mapping[int, Symbol]:
        """The nearest symbol at or below each address, but for locks' keys; addresses outside all are left out."""
        wanted = sorted(set(addresses))
        if not wanted:
            return {}
        nearest: list[tuple[int, re.Match[bytes]] | None] = [None] * len(wanted)
        above: list[tuple[int, bytes]] = [(1 << 64, b"")] * len(wanted)
        for address, line in self._lines():
            # This symbol can be the nearest one below only of the first wanted address above it,
            # and of later ones as long as nothing lies between: that is carried on below.
            index = bisect_left(wanted, address)
            # And the nearest one above only of the last wanted address below it, and of earlier ones likewise.
            if index and address < above[index - 1][0]:
                above[index - 1] = (address, line)
            if index < len(wanted):
                best = nearest[index]
                if best is None or best[0] < address:
                    match = _LINE.match(line)
                    if match and not _is_lock_key(match[2]):
                        nearest[index] = (address, match)
        for index in range(len(wanted) - 1, 0, -1):
            above[index - 1] = min(above[index - 1], above[index])
        found = {}
        carried: tuple[int, re.Match[bytes]] | None = None
        for address, best, (_, next_line) in zip(wanted, nearest, above):
            carried = best or carried
            if carried and address - carried[0] < _farthest(carried[1], next_line):
                symbol = _symbol(carried[1], address - carried[0])
                if symbol.name not in ("_end", "__end_of_kernel_reserve"):
                    found[address] = symbol
        return found

    def address(self, name: str) -> int | None:
        """Where vmlinux has ``name``, a module apart; None if it is not told. Not for any output."""
        if self._file:
            self._file.seek(0)
            wanted = name.encode()
            line_end = b" " + wanted + b"\n"
            for line in self._file:
                if line.endswith(line_end) and (match := _LINE.match(line)) and match[2] == wanted:
                    return int(match[1], 16) or None
        return None

    def close(self) -> None:
        if self._file:
            self._file.close()

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """(address, line) of each symbol that has an address."""
        if not self._file:
            return
        self._file.seek(0)
        for line in self._file:
            try:
                address = int(line[:16], 16)
            except ValueError:  # not the kernel's file
                continue
            if address:
                yield address, line


def _farthest(symbol: re.Match[bytes], next_line: bytes) -> int:
    following = _LINE.match(next_line)
    is_last = symbol[3] and not (following and following[3] == symbol[3])
    return _FARTHEST_LAST if is_last else _FARTHEST


def _is_lock_key(name: bytes) -> bool:
    """Without lockdep it has no size (lockdep_types.h:264, 6.12), and so the address of what comes next."""
    return name.partition(b".")[0] == b"__key"


def _symbol(match: re.Match[bytes], offset: int) -> Symbol:
    return Symbol(match[2].decode(errors="replace"), (match[3] or b"").decode(errors="replace"), offset)
