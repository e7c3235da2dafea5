# SPDX-License-Identifier: Apache-2.0
"""Asks the verifier whether programs may read the kernel's memory, where securityfs is not there to say so.

A container has no securityfs. What the answer means for the probes is ``bpf.plan``'s.
"""

from __future__ import annotations

import dataclasses
import os
import struct

from hmm_exporter.bpf import syscall
from hmm_exporter.kernel.features import Kernel

_PROBE_READ_KERNEL = 113  # bpf_probe_read_kernel, include/uapi/linux/bpf.h
_INSTRUCTION = struct.Struct("<BBhi")
_RETURN_0 = _INSTRUCTION.pack(0xB7, 0, 0, 0) + _INSTRUCTION.pack(0x95, 0, 0, 0)
_READ = b"".join(
    _INSTRUCTION.pack(*each)
    for each in (
        (0xBF, 0xA1, 0, 0),  # r1 = r10
        (0x07, 0x01, 0, -8),  # r1 += -8
        (0xB7, 0x02, 0, 8),  # r2 = 8
        (0xB7, 0x03, 0, 0),  # r3 = 0
        (0x85, 0, 0, _PROBE_READ_KERNEL),
    )
)


def seen(kernel: Kernel) -> Kernel:
    """The same kernel, with its lockdown known as far as it matters here, and as far as the rights to ask are there."""
    if kernel.lockdown != "unknown" or kernel.simulated or _loads(_READ + _RETURN_0) or not _loads(_RETURN_0):
        return kernel
    return dataclasses.replace(kernel, lockdown="confidentiality")


def _loads(code: bytes) -> bool:
    try:
        fd, _ = syscall.prog_load(syscall.PROG_KPROBE, code, "hmm_lockdown")
    except OSError:
        return False
    os.close(fd)
    return True
