# SPDX-License-Identifier: Apache-2.0
"""Runs ``program/iomem.c``: the kernel's tree of physical ranges without CAP_SYS_ADMIN.

What the ranges mean is ``kernel.iomem``'s. Loading takes CAP_BPF and CAP_PERFMON, a walk takes
nothing but the two fds: since 6.0 bpf(2) asks for rights only where it makes something
(kernel/bpf/syscall.c, __sys_bpf), so that the daemon can walk again after it dropped all others.
"""

from __future__ import annotations

import os
import struct

from hmm_exporter.bpf import syscall
from hmm_exporter.kernel.features import Kernel
from hmm_exporter.kernel.iomem import Resource

PROGRAM, MAP = "walk_resources", "resource_map"
ROOT = "iomem_resource"

# struct resource_walk up to its rows, and struct walked_resource.
_HEADER, _ROW = struct.Struct("<QQQIIQ"), struct.Struct("<QQII32s")
_DONE, _MORE = 0, 1

_MOST_RUNS = 512
"""32,768 ranges, or a tree in which somebody goes round in a circle."""
_ATTEMPTS = 5
"""Walks in a row that may fail because the tree changed meanwhile."""


class ResourceWalk:
    """A loaded program and its map. Owns the program's fd; the map belongs to the others."""

    def __init__(self, program: int, map_fd: int, value_bytes: int, root: int) -> None:
        """``root`` is the address of iomem_resource, ``value_bytes`` the size of the map's one value."""
        self._program = program
        self._map = map_fd
        self._value_bytes = value_bytes
        self._root = root
        self._last: list[Resource] = []
        self.problem = ""
        """Why the last walk told nothing new; empty if it did."""

    def read(self) -> list[Resource]:
        """All ranges as they are now, in /proc/iomem's order; as they were last time, if that cannot be told."""
        try:
            for _ in range(_ATTEMPTS):
                found = self._walk()
                if found is not None:
                    self._last, self.problem = found, ""
                    return found
            self.problem = "the kernel's tree of physical ranges changes faster than it can be read"
        except OSError as error:
            self.problem = f"the kernel's tree of physical ranges cannot be walked: {error.strerror}"
        return self._last

    def close(self) -> None:
        os.close(self._program)

    def _walk(self) -> list[Resource] | None:
        """None if the tree changed under the walk, or had no end."""
        found: list[Resource] = []
        for run in range(_MOST_RUNS):
            result = syscall.prog_test_run(self._program, struct.pack("<QQ", self._root, run == 0))
            if result not in (_DONE, _MORE):
                return None
            value = syscall.map_lookup(self._map, struct.pack("<I", 0), self._value_bytes)
            rows = _HEADER.unpack_from(value)[-1]
            packed = value[_HEADER.size : _HEADER.size + rows * _ROW.size]
            for start, end, depth, private, name in _ROW.iter_unpack(packed):
                text = name.partition(b"\0")[0].decode(errors="backslashreplace")
                found.append(Resource(start, end, text, depth, bool(private)))
            if result == _DONE:
                return found
        return None


def why_not(kernel: Kernel, root: int | None) -> str:
    """The reason for which the tree cannot be walked, before the kernel is asked; empty if there is none."""
    if kernel.lockdown == "confidentiality":
        return "lockdown is confidentiality: BPF programs may not read the kernel's memory"
    if root is None:
        return kernel.symbols.problem or f"kallsyms has no {ROOT}: the kernel needs CONFIG_KALLSYMS_ALL"
    return ""
