# SPDX-License-Identifier: Apache-2.0
"""Where this machine's kernel has iomem_resource, even if its kallsyms does not say (CONFIG_KALLSYMS_ALL=n).

For tests only, which may run on such a machine: a small BPF program reads the code of a function
that uses it, and whatever address that code mentions at which there is a root of such a tree is it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from hmm_exporter.bpf import syscall
from hmm_exporter.bpf.code import link
from hmm_exporter.bpf.compiler import compile_source
from hmm_exporter.bpf.load import load
from hmm_exporter.kernel.btf import Btf
from hmm_exporter.kernel.symbols import Symbols

_FUNCTION = "find_next_iomem_res"
_BYTES = 512
_SOURCE = """
#include <uapi/linux/ptrace.h>
static long (*read_kernel)(void *to, u32 size, const void *from) = (void *)113;
struct seen { char bytes[512]; };
BPF_TABLE("array", u32, struct seen, seen_map, 1);
int look(u64 *ctx)
{
	u32 index = 0;
	struct seen *seen = seen_map.lookup(&index);

	return seen ? read_kernel(seen->bytes, sizeof(seen->bytes), (void *)ctx[0]) : 1;
}
"""


class _Memory:
    """The kernel's memory, 512 bytes at a time."""

    def __init__(self, python: str) -> None:
        compiled = compile_source(_SOURCE, python, 60)
        self._map = syscall.map_create(syscall.MAP_ARRAY, 4, _BYTES, 1, "seen_map")
        code = link(compiled, {"seen_map": self._map})["look"]
        self._program = load(syscall.PROG_RAW_TRACEPOINT, code, "look")

    def read(self, address: int) -> bytes:
        """Empty where there is nothing."""
        failed = syscall.prog_test_run(self._program, struct.pack("<Q", address))
        return b"" if failed else syscall.map_lookup(self._map, struct.pack("<I", 0), _BYTES)

    def close(self) -> None:
        os.close(self._program)
        os.close(self._map)


def iomem_resource(symbols: Symbols, btf: Btf, python: str) -> int | None:
    """Its address, which must not be printed."""
    known = symbols.address("iomem_resource")
    function = symbols.address(_FUNCTION)
    if known or function is None:
        return known
    memory = _Memory(python)
    try:
        for address in _mentioned(function, memory.read(function)):
            for candidate in (address, address - (btf.offset("resource.child") or 0)):
                if _is_root(candidate, btf, memory):
                    return candidate
    finally:
        memory.close()
    return None


def _mentioned(function: int, code: bytes) -> Iterator[int]:
    """Each four bytes of x86 code taken for an address of the kernel's image, and for a distance to one."""
    for at in range(len(code) - 4):
        (number,) = struct.unpack_from("<i", code, at)
        yield number % 2**64
        yield function + at + 4 + number


def _is_root(address: int, btf: Btf, memory: _Memory) -> bool:
    if not 0xFFFFFFFF80000000 <= address < 2**64 - _BYTES or address % 8:
        return False
    bytes_ = memory.read(address)
    if not bytes_:
        return False
    offsets = [btf.offset(f"resource.{field}") or 0 for field in ("parent", "sibling", "name")]
    parent, sibling, name = (struct.unpack_from("<Q", bytes_, offset)[0] for offset in offsets)
    return not parent and not sibling and memory.read(name).startswith(b"PCI mem\0")
