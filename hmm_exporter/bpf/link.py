# SPDX-License-Identifier: Apache-2.0
"""Attaches one loaded program to its function. Which programs there are, and in which order, is ``bpf.attach``'s.

A link is a fd: when the last process that has it closes it, however it ends, the kernel takes the link away.
"""

from __future__ import annotations

from dataclasses import dataclass

from hmm_exporter.bpf import syscall
from hmm_exporter.bpf.load import why_not_attached
from hmm_exporter.kernel.features import Kernel


@dataclass(frozen=True)
class Program:
    """A loaded program of a probe."""

    probe: str
    name: str
    kind: str
    """fentry, fexit, kprobe, kretprobe, uprobe, uretprobe or tracepoint."""
    fd: int
    function: str

    @property
    def is_entry(self) -> bool:
        return self.name.startswith("enter_")


def link(kernel: Kernel, program: Program) -> int:
    """fd of the link. Raises NotAttached."""
    try:
        if program.kind == "tracepoint":
            return syscall.raw_tracepoint_open(program.fd, program.function)
        if program.kind in ("fentry", "fexit"):
            return syscall.raw_tracepoint_open(program.fd)
        if uses_kprobe_multi(kernel, program.kind):
            return syscall.kprobe_multi_open(program.fd, program.function, program.kind == "kretprobe")
        pmu = kernel.uprobe if kernel.simulated else kernel.kprobe
        assert pmu  # nothing is compiled for one that is not there
        where, offset = program.function, 0
        if kernel.simulated:
            where, offset = kernel.simulated.path, kernel.simulated.file_offsets[program.function]
        retprobe_bit = pmu.retprobe_bit if program.kind.endswith("retprobe") else None
        return syscall.probe_open(pmu.type, retprobe_bit, where, offset, program.fd)
    except OSError as error:
        raise why_not_attached(error, program.kind) from None


def uses_kprobe_multi(kernel: Kernel, kind: str) -> bool:
    """Whether a program of that kind is loaded for, and attached by, a link of the kind kprobe-multi."""
    return kernel.kprobe_multi and kind in ("kprobe", "kretprobe")
