# SPDX-License-Identifier: Apache-2.0
"""Names of devices: the label `device`, for the physical regions that hold their pages.

A name is the PCI address where the region has one, else what its driver calls it, numbered. Names
have an index, by which the programs count; from where the regions are known is ``kernel.iomem``'s.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hmm_exporter.catalog.values import DEVICE_REGIONS
from hmm_exporter.kernel.iomem import PCI_ADDRESS, PRIVATE_NAMES, DeviceRegion

PCI_DEVICES = Path("/sys/bus/pci/devices")

_IN_CHUNKS = frozenset({"nouveau_dmem"})
"""A region for each chunk that is in use (nouveau_dmem_chunk_alloc): to number them would tell nothing."""


class DeviceInfo(NamedTuple):
    """What is known of a device that is there. Empty where nothing is."""

    device: str
    driver: str
    pci_bus_id: str


class Devices:
    """The devices of a machine, over all changes of its regions.

    A region keeps its name as long as it exists. New ones of a numbered name get the lowest
    numbers that no existing region has, from the highest address down, as the kernel gives them
    away (kernel/resource.c, get_free_mem_region): numbers then tell which one came first, whether
    they were seen one by one or all at once. An index belongs to a name for good, so that counts
    of one device never become another's; and when a driver is loaded again, wherever its regions
    are then, its devices go on under the names and indices they had.

    Only the first ``limit`` names that ever were get an index. Regions of later ones are in no
    range: their pages are an unknown device's.
    """

    def __init__(self, limit: int = DEVICE_REGIONS, pci_devices: Path = PCI_DEVICES) -> None:
        self._limit = limit
        self._pci_devices = pci_devices
        self._names: list[str] = []
        self._present: dict[DeviceRegion, str] = {}

    def update(self, regions: Sequence[DeviceRegion]) -> bool:
        """Take over the regions that exist now, in ascending order; whether that changed anything."""
        before = self._present
        self._present = {region: before[region] for region in regions if region in before}
        for region in reversed(regions):
            if region not in self._present:
                self._present[region] = self._new_name(region.name)
        for name in self._present.values():
            if name not in self._names and len(self._names) < self._limit:
                self._names.append(name)
        return self._present != before

    def name(self, index: int) -> str:
        """The device's name, also if it is gone: what it did is still counted. Empty for a free index."""
        return self._names[index] if index < len(self._names) else ""

    def table(self) -> list[tuple[int, int, int]]:
        """(first page frame, last one, index) in ascending order, adjacent ranges of one device as one."""
        indices = {name: index for index, name in enumerate(self._names)}
        ranges: list[tuple[int, int, int]] = []
        for region in sorted(self._present, key=lambda region: region.first_pfn):
            index = indices.get(self._present[region])
            if index is None:
                continue
            first = region.first_pfn
            if ranges and ranges[-1][1:] == (first - 1, index):
                first = ranges.pop()[0]
            ranges.append((first, region.last_pfn, index))
        return ranges

    def info(self) -> list[DeviceInfo]:
        """The devices that are there and have an index, in the order of their indices."""
        kinds = {self._present[region]: region.name for region in self._present}
        return [
            DeviceInfo(name, self._driver(kinds[name]), _pci_bus_id(kinds[name]))
            for name in self._names
            if name in kinds
        ]

    def _new_name(self, name: str) -> str:
        if PCI_ADDRESS.fullmatch(name):
            return name
        if name in _IN_CHUNKS:
            return f"{name}-0"
        taken = set(self._present.values())
        return next(numbered for number in range(len(taken) + 1) if (numbered := f"{name}-{number}") not in taken)

    def _driver(self, name: str) -> str:
        if not PCI_ADDRESS.fullmatch(name):
            return PRIVATE_NAMES.get(name, "")
        try:
            return os.path.basename(os.readlink(self._pci_devices / name / "driver"))
        except OSError:  # no driver, or no device any more
            return ""


def _pci_bus_id(name: str) -> str:
    """As NVML, and so dcgm-exporter, spells it: ``00000000:C1:00.0`` (domain of eight digits, capitals)."""
    if not PCI_ADDRESS.fullmatch(name):
        return ""
    domain, _, rest = name.partition(":")
    return f"{int(domain, 16):08X}:{rest.upper()}"
