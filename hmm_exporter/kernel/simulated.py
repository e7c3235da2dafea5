# SPDX-License-Identifier: Apache-2.0
"""A simulator's program taken for a kernel: its BTF, its symbols, and where its functions start.

Beside the program ``P`` lie ``P.btf`` (its section .BTF), ``P.kallsyms`` (its symbols in
/proc/kallsyms' format) and, if it has devices, ``P.iomem`` (their ranges in /proc/iomem's). The
rest of the package sees no difference to the running kernel.
"""

from __future__ import annotations

import struct
from pathlib import Path

from hmm_exporter.errors import StartError
from hmm_exporter.kernel import features
from hmm_exporter.kernel.btf import Btf, BtfError
from hmm_exporter.kernel.features import Kernel, Simulated
from hmm_exporter.kernel.iomem import Iomem
from hmm_exporter.kernel.symbols import Symbols

_ELF_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_PT_LOAD = 1
_PAGE_SIZE = 4096  # PAGE_SHIFT in tests/simulator/kernel.h, whatever this machine has


def simulated_kernel(program: Path) -> Kernel:
    """Raises StartError when a file is missing or is not what it should be."""
    try:
        btf = Btf.load(program.with_name(program.name + ".btf"))
        kallsyms = program.with_name(program.name + ".kallsyms")
        offsets = _file_offsets(program.read_bytes(), kallsyms.read_text())
    except (OSError, BtfError, struct.error, ValueError) as error:
        raise StartError(f"simulator: {error}: build it with make -C tests/simulator") from None
    return Kernel(
        release=f"simulator {program.name}",
        btf=btf,
        btf_problem="",
        device_private=features.has_device_private(btf),
        symbols=Symbols(kallsyms),
        iomem=Iomem(program.with_name(program.name + ".iomem")),
        lockdown=features.lockdown(),
        page_size=_PAGE_SIZE,
        possible_cpus=features.possible_cpus(),
        kprobe=None,
        uprobe=features.pmu("uprobe"),
        simulated=Simulated(str(program.resolve()), offsets),
    )


def _file_offsets(elf: bytes, kallsyms: str) -> dict[str, int]:
    """Function names to offsets in the file, by the segments of a 64-bit program at a fixed address."""
    header = _ELF_HEADER.unpack_from(elf)
    if not header[0].startswith(b"\x7fELF\x02"):
        raise ValueError("not a 64-bit program")
    first, size, count = header[5], header[9], header[10]
    segments = [_PROGRAM_HEADER.unpack_from(elf, first + size * number) for number in range(count)]
    offsets = {}
    for line in kallsyms.splitlines():
        address, kind, name = line.split()[:3]
        if kind not in "tT":
            continue
        for segment_type, _, offset, start, _, file_size, _, _ in segments:
            if segment_type == _PT_LOAD and start <= int(address, 16) < start + file_size:
                offsets[name] = int(address, 16) - start + offset
    return offsets
