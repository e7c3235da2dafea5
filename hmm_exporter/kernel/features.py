# SPDX-License-Identifier: Apache-2.0
"""The kernel that is watched: what it can do, and why something cannot be done.

Gathers facts once, at the start. Which probe needs which of them is the catalogue's affair.
"""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from hmm_exporter.kernel.btf import Btf, BtfError
from hmm_exporter.kernel.iomem import Iomem
from hmm_exporter.kernel.symbols import Symbols

_SYS = Path("/sys")
_PMUS = _SYS / "bus/event_source/devices"


@dataclass(frozen=True)
class Pmu:
    """A perf PMU that makes probes: its type number, and the config bit for return probes."""

    type: int
    retprobe_bit: int


@dataclass(frozen=True)
class Simulated:
    """A program whose functions stand in for the kernel's."""

    path: str
    file_offsets: dict[str, int]
    """Where each function starts in the file."""


@dataclass(frozen=True)
class Kernel:
    """Facts about the running kernel, or about the simulator that stands in for it."""

    release: str
    btf: Btf | None
    """Some 6 MB: whoever has learnt what it wanted should let go of it."""
    btf_problem: str
    """Why there is no BTF, and what would help; empty if there is."""
    device_private: bool
    """Whether CONFIG_DEVICE_PRIVATE is on."""
    symbols: Symbols
    iomem: Iomem
    """For where the kernel's own tree cannot be read (``bpf.resource_walk``)."""
    lockdown: str
    """none, integrity, confidentiality, or unknown."""
    page_size: int
    possible_cpus: int
    kprobe: Pmu | None
    uprobe: Pmu | None
    kprobe_multi: bool = False
    """Whether one link can be on functions' entries or returns (5.18, CONFIG_FPROBE)."""
    preemptible: bool = False
    """Whether a thread can lose its CPU inside of the kernel. Built so is enough: how it was booted is not told."""
    counts_missed_kprobes: bool = False
    """Whether a program of a kprobe that is skipped is counted (since 6.7, f915fcb38553); an fentry's is since 5.12."""
    simulated: Simulated | None = None


def running_kernel(btf_path: Path = _SYS / "kernel/btf/vmlinux") -> Kernel:
    """The kernel that this process runs on. Never fails: what is missing is said in the result."""
    btf, problem, private, multi = None, "", False, False
    try:
        btf = Btf.load(btf_path)
        private, multi = has_device_private(btf), has_kprobe_multi(btf)
    except BtfError as error:
        btf, problem = None, f"no BTF ({error}): the kernel needs CONFIG_DEBUG_INFO_BTF"
    return Kernel(
        release=platform.release(),
        btf=btf,
        btf_problem=problem,
        device_private=private,
        symbols=Symbols(),
        iomem=Iomem(),
        lockdown=lockdown(),
        page_size=os.sysconf("SC_PAGE_SIZE"),
        possible_cpus=possible_cpus(),
        kprobe=pmu("kprobe"),
        uprobe=pmu("uprobe"),
        kprobe_multi=multi,
        preemptible="PREEMPT" in platform.version(),
        counts_missed_kprobes=release_at_least(6, 7),
    )


def release_at_least(major: int, minor: int, release: str = platform.release()) -> bool:
    """For what shows neither in BTF nor in a file. ``release`` is like ``6.12.94+deb13-amd64``."""
    numbers = re.match(r"(\d+)\.(\d+)", release)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= (major, minor)


def maps_need_privilege(path: Path = Path("/proc/sys/kernel/unprivileged_bpf_disabled")) -> bool:
    """Whether to read a map takes CAP_BPF, though its fd is there: where bpf(2) is for the privileged, to 5.18."""
    try:
        reserved = path.read_text().strip() != "0"
    except OSError:
        reserved = True
    return reserved and not release_at_least(5, 19)


def has_device_private(btf: Btf) -> bool:
    """By a function that is built with CONFIG_DEVICE_PRIVATE only (mm/rmap.c; renamed in 6.15)."""
    return bool(btf.function("make_device_exclusive") or btf.function("make_device_exclusive_range"))


def has_kprobe_multi(btf: Btf) -> bool:
    """By its attach function, which without CONFIG_FPROBE is an inline stub (kernel/trace/bpf_trace.c)."""
    return btf.function("bpf_kprobe_multi_link_attach") is not None and btf.function("register_fprobe_ips") is not None


def lockdown(path: Path = _SYS / "kernel/security/lockdown") -> str:
    """From ``none [integrity] confidentiality``; securityfs may be missing or hidden."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return "unknown"
    return text.partition("[")[2].partition("]")[0] or "unknown"


def possible_cpus(path: Path = _SYS / "devices/system/cpu/possible") -> int:
    """One more than the highest CPU number that can ever come up, from ``0-1,4-7``."""
    try:
        last = path.read_text().strip().rpartition(",")[2]
        return int(last.rpartition("-")[2]) + 1
    except (OSError, ValueError):
        return os.cpu_count() or 1


def pmu(name: str) -> Pmu | None:
    """The PMU ``kprobe`` or ``uprobe`` (4.17), or None where the kernel was built without it."""
    try:
        kind = int((_PMUS / name / "type").read_text())
        retprobe = (_PMUS / name / "format/retprobe").read_text().strip()
    except (OSError, ValueError):
        return None
    return Pmu(kind, int(retprobe.rpartition(":")[2]))
