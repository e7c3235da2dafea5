# SPDX-License-Identifier: Apache-2.0
"""The kernel stacks of calls that met EBUSY, frame by frame, by name. No address leaves this module."""

from __future__ import annotations

from dataclasses import dataclass

from hmm_exporter.bpf.maps import MapSet, Row
from hmm_exporter.catalog import tables, values
from hmm_exporter.catalog.values import RangeFunction
from hmm_exporter.kernel.symbols import Symbol, Symbols
from hmm_exporter.metrics.labels import UNKNOWN, Names, without_own

_OPS, _STACK, _FUNCTION = ([key.name for key in tables.EBUSY.keys].index(name) for name in ("ops", "stack", "function"))
_NOWHERE = Symbol(UNKNOWN, "", 0)


@dataclass(frozen=True)
class Stack:
    """``frames`` from the caller of ``function`` outwards; empty where the kernel could not keep them."""

    driver: str
    function: str
    calls: int
    frames: tuple[Symbol, ...]


class Stacks:
    """Remembers stacks by their frames' names as they appear: a module that is unloaded has none any more."""

    def __init__(self, maps: MapSet, symbols: Symbols, names: Names) -> None:
        self._maps = maps
        self._symbols = symbols
        self._names = names
        self._frames: dict[int, tuple[Symbol, ...]] = {values.OTHER_STACK: ()}

    def learn(self) -> list[Row]:
        """Name what is new; gives the rows of today."""
        rows = self._maps.read(tables.EBUSY)
        new = {stack for row in rows if (stack := int(row.key[_STACK])) not in self._frames}
        addresses = {stack: self._maps.stack(stack) for stack in new}
        found = self._symbols.resolve(address for each in addresses.values() for address in each)
        for stack, each in addresses.items():
            self._frames[stack] = tuple(without_own([found.get(address, _NOWHERE) for address in each]))
        return rows

    def found(self) -> list[Stack]:
        """Most frequent first; what has the same names is one stack."""
        calls: dict[tuple[str, str, tuple[Symbol, ...]], int] = {}
        for row in self.learn():
            if row.words[0]:
                driver, function = self._names.driver(int(row.key[_OPS])), RangeFunction(int(row.key[_FUNCTION])).name
                key = driver, function, self._frames[int(row.key[_STACK])]
                calls[key] = calls.get(key, 0) + row.words[0]
        stacks = [Stack(driver, function, count, frames) for (driver, function, frames), count in calls.items()]
        return sorted(stacks, key=lambda stack: (-stack.calls, stack.driver, stack.function))
