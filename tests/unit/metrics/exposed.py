# SPDX-License-Identifier: Apache-2.0
"""Families as a scraper gets them, and the world that the tests of this folder have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from hmm_exporter.bpf.maps import KeyValues, Row
from hmm_exporter.catalog import tables
from hmm_exporter.catalog.metric import NEEDS
from hmm_exporter.catalog.probes import PROBES
from hmm_exporter.catalog.tables import Table
from hmm_exporter.kernel.symbols import Symbols
from hmm_exporter.metrics import collector as metrics
from hmm_exporter.metrics.labels import Names

# A written symbol table; see tests/unit/kernel/test_symbols.py.
KALLSYMS = """\
ffffffff81000000 T _stext
ffffffff81210000 T hmm_range_fault
ffffffff81210800 T hmm_range_fault_unlocked_timeout
ffffffff81220000 T migrate_vma_setup
ffffffff81230000 T handle_mm_fault
ffffffff81240000 t do_swap_page
ffffffff82e00000 b kvmppc_uvmem_pgmap
ffffffff82e10000 r fake_builtin_ops
ffffffffc0100000 t svm_migrate_vma_to_vram\t[amdgpu]
ffffffffc0101000 t svm_range_restore_pages\t[amdgpu]
ffffffffc0110000 r svm_range_mn_ops\t[amdgpu]
ffffffffc0200000 t xe_svm_handle_pagefault\t[xe]
ffffffffc0210000 r vma_userptr_notifier_ops\t[xe]
ffffffffc0300000 T drm_pagemap_migrate_to_devmem\t[drm_gpusvm_helper]
ffffffffc0300900 t drm_pagemap_migrate_to_ram\t[drm_gpusvm_helper]
ffffffffc0310000 r drm_gpusvm_notifier_ops\t[drm_gpusvm_helper]
ffffffffc0400000 t uvm_hmm_migrate\t[nvidia_uvm]
ffffffffc0480000 b g_uvm_global\t[nvidia_uvm]
ffffffffc0500000 t dmirror_migrate_to_device\t[test_hmm]
ffffffffc0510000 b dmirror_devices\t[test_hmm]
ffffffffc0600000 b somebodys_pgmap\t[out_of_tree]
ffffffffc0700000 t bpf_prog_6deef7357e7b4530_leave_hmm_range_fault\t[bpf]
ffffffffc0701000 t bpf_trampoline_6442542080\t[bpf]
"""


EVERYTHING = frozenset({probe.name for probe in PROBES} | {"histograms.migration_phases", *NEEDS})
"""What there is where everything is attached, switched on and possible."""


HEAP = [0xFFFF888104A30000 + 0x1000 * number for number in range(12)]
DEVICES = ("0000:c1:00.0", "hmm_dmirror-0")
OPS = [0xFFFFFFFFC0110000, 0xFFFFFFFFC0210000, 0xFFFFFFFFC0310000]


class _Given(Collector):
    def __init__(self, families: Iterable[Family]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Family]:
        return self._families


def _registry(families: Iterable[Family]) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Given(families))
    return registry


def text(families: Iterable[Family]) -> str:
    """The exposition in Prometheus' text format."""
    return generate_latest(_registry(families)).decode()


def openmetrics(families: Iterable[Family]) -> str:
    exposition: bytes = generate_openmetrics(_registry(families))  # type: ignore[no-untyped-call]
    return exposition.decode()


def samples(families: Iterable[Family]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """All samples; a series that stands twice is an error."""
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for family in families:
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, f"twice: {key}"
            found[key] = sample.value
    return found


def names_with(
    folder: Path,
    kallsyms: str = KALLSYMS,
    stacks: Mapping[int, tuple[int, ...]] | None = None,
    users: Mapping[str, tuple[str, ...]] | None = None,
    callers: int = 20,
    devices: Sequence[str] = (),
) -> Names:
    """Names over a symbol table of the test's, and of devices by their index."""
    path = folder / "kallsyms"
    path.write_text(kallsyms)
    device: Callable[[int], str] = lambda number: devices[number] if number < len(devices) else ""  # noqa: E731
    stack: Callable[[int], tuple[int, ...]] = lambda number: (stacks or {}).get(number, ())  # noqa: E731
    return Names(Symbols(path), stack, lambda module: (users or {}).get(module, ()), callers, device)


Rows = dict[Table, list[Row]]


def comm(name: str) -> bytes:
    return name.encode().ljust(24, b"\0")


def row(table: Table, key: KeyValues, **columns: int | Sequence[int]) -> Row:
    """A row of a table by its columns' names; a histogram takes its first slots."""
    words: list[int] = []
    for value in table.values:
        given = columns.pop(value.name, 0)
        filled = [given] if isinstance(given, int) else list(given)
        words += filled + [0] * (value.words - len(filled))
    assert not columns
    return Row(key, tuple(words))


def rows_of(*of_tables: tuple[Table, Row]) -> Rows:
    """All tables; those that are not given are empty, which no real one is."""
    rows: Rows = {table: [] for table in tables.TABLES}
    for table, each in of_tables:
        rows[table].append(each)
    return rows


def collector(
    folder: Path, attached: frozenset[str], limit: int = 10000, names: Names | None = None
) -> metrics.Collector:
    return metrics.Collector(attached, names or names_with(folder), limit)
