# SPDX-License-Identifier: Apache-2.0
"""Kernels for tests that do not care how BTF is written: what they have is said by name."""

from __future__ import annotations

import zlib
from collections.abc import Collection
from pathlib import Path

from hmm_exporter.catalog.probes import GROUPS, PROBES
from hmm_exporter.config import Config, Filter, Histograms, Probes
from hmm_exporter.kernel.btf import Btf, Function
from hmm_exporter.kernel.features import Kernel, Pmu, Simulated
from hmm_exporter.kernel.iomem import Iomem
from hmm_exporter.kernel.symbols import Symbols

PARAMETERS = 4
RENAMED = frozenset({"make_device_exclusive_range"})
"""Older names, which the newest kernel has not."""

PAGE_SIZES = (4096, 65536)
"""Of x86-64, and of arm64 where its kernel is built for machines like Grace."""

KPROBE, UPROBE = Pmu(6, 0), Pmu(7, 0)


class Known(Btf):
    """BTF that has every name that it is asked for, but those that it was made without."""

    def __init__(self, without: Collection[str]) -> None:
        self._without = frozenset(without)

    def function(self, name: str) -> Function | None:
        # A kernel's tracepoints are no functions of this name; the simulator's are.
        return None if name in self._without else Function(zlib.crc32(name.encode()), PARAMETERS, False)

    def has_typedef(self, name: str) -> bool:
        return name not in self._without

    def size(self, struct_name: str) -> int | None:
        return None if struct_name in self._without else 256

    def offset(self, path: str) -> int | None:
        missing = path in self._without or path.partition(".")[0] in self._without
        return None if missing else zlib.crc32(path.encode()) % 30 * 8

    def enumerator(self, name: str) -> int | None:
        return None if name in self._without else 1 + zlib.crc32(name.encode()) % 100


def kernel(
    without: Collection[str] = RENAMED,
    btf_problem: str = "",
    kprobe: Pmu | None = KPROBE,
    simulated: bool = False,
    possible_cpus: int = 4,
    page_size: int = 4096,
    lockdown: str = "none",
    kprobe_multi: bool = False,
    preemptible: bool = False,
    counts_missed_kprobes: bool = False,
) -> Kernel:
    """The newest kernel, with every function and field of the catalogue except ``without``."""
    return Kernel(
        release="7.3.4",
        btf=None if btf_problem else Known(without),
        btf_problem=btf_problem,
        device_private=True,
        symbols=Symbols(Path("/nonexistent")),
        iomem=Iomem(Path("/nonexistent")),
        lockdown=lockdown,
        page_size=page_size,
        possible_cpus=possible_cpus,
        kprobe=kprobe,
        uprobe=UPROBE,
        kprobe_multi=kprobe_multi,
        preemptible=preemptible,
        counts_missed_kprobes=counts_missed_kprobes,
        simulated=Simulated("/simulator", {probe.name: 16 for probe in PROBES}) if simulated else None,
    )


def config(
    only: Collection[str] | None = None, filter: Filter | None = None, phases: bool = False, attach: str = "auto"
) -> Config:
    """Every group is on; ``only``: the probes that are not excluded."""
    exclude = () if only is None else tuple(probe.name for probe in PROBES if probe.name not in only)
    groups = {group.name: True for group in GROUPS}
    return Config(
        probes=Probes(exclude=exclude, groups=groups, attach=attach),
        filter=filter or Filter(),
        histograms=Histograms(migration_phases=phases),
    )
