# SPDX-License-Identifier: Apache-2.0
"""The machine's physical ranges: which of them are RAM, and which hold pages of devices.

Physical addresses, not pointers: they are bus and memory addresses, and none leaves the exporter.
The names that devices get from them are ``kernel.devices``'; how the kernel's own tree is read
without /proc/iomem is ``bpf.resource_walk``'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

IOMEM = Path("/proc/iomem")

PCI_ADDRESS = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
"""What pci_setup_device calls a device, %04x:%02x:%02x.%d (drivers/pci/probe.c, 6.1 to 7.3)."""

PRIVATE_NAMES = {
    "nouveau_dmem": "nouveau",  # drivers/gpu/drm/nouveau/nouveau_dmem.c
    "nvidia-uvm-hmm": "nvidia_uvm",  # open-gpu-kernel-modules, uvm_pmm_gpu.c
    "hmm_dmirror": "test_hmm",  # lib/test_hmm.c
    "kvmppc_uvmem": "kvm_hv",  # arch/powerpc/kvm/book3s_hv_uvmem.c
}
"""Names that drivers give to device-private ranges in place of a PCI address, and their modules."""

_LINE = re.compile(r"( *)([0-9a-f]{1,16})-([0-9a-f]{1,16}) : (.*)")
_RAM = "System RAM"
_SOFT_RESERVED = "Soft Reserved"


@dataclass(frozen=True)
class Resource:
    """One node of the kernel's tree, as /proc/iomem shows it; both addresses belong to it."""

    start: int
    end: int
    name: str
    depth: int
    device_private: bool | None = None
    """Its descriptor says IORES_DESC_DEVICE_PRIVATE_MEMORY; None where only the text is known."""


@dataclass(frozen=True)
class DeviceRegion:
    """Page frames that a device has; both belong to it."""

    first_pfn: int
    last_pfn: int
    name: str


@dataclass(frozen=True)
class Regions:
    """What of the tree matters to HMM."""

    ram_end: int
    """The page frame number behind the last page of RAM, 0 where none is known."""
    devices: tuple[DeviceRegion, ...]
    """Ascending."""


class Iomem:
    """/proc/iomem, or a file like it. It goes on to show addresses if it was opened by CAP_SYS_ADMIN."""

    def __init__(self, path: Path = IOMEM) -> None:
        self._file: BinaryIO | None = None
        self.problem = ""
        """Why no range can be told, and what would help; empty if they can."""
        try:
            self._file = path.open("rb")
        except OSError as error:
            self.problem = f"{path}: {error.strerror}"
        else:
            if not self.read():
                self.close()
                self.problem = f"{path} shows no addresses: give CAP_SYS_ADMIN"

    def read(self) -> list[Resource]:
        """All ranges as they are now, in the file's order."""
        if not self._file:
            return []
        self._file.seek(0)
        return parse(self._file.read().decode(errors="replace"))

    def close(self) -> None:
        if self._file:
            self._file.close()
            self._file = None


def parse(text: str) -> list[Resource]:
    """From lines like ``  000a0000-000bffff : PCI Bus 0000:00``; nothing, where addresses are hidden."""
    found = []
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match:
            indent, start, end, name = match.groups()
            found.append(Resource(int(start, 16), int(end, 16), name, len(indent) // 2))
    # To a reader without CAP_SYS_ADMIN every line says 00000000-00000000 (kernel/resource.c, r_show).
    return found if any(resource.end for resource in found) else []


def regions(resources: Sequence[Resource], page_size: int) -> Regions:
    """RAM and devices' regions of ``resources``, which are in the tree's order.

    Device-private ranges have a descriptor of their own, whatever they are called. In a text there
    is none; there it must be a top-level range that is called by a PCI address or by one of
    `PRIVATE_NAMES`: a BAR, which has a PCI address for a name, too, lies in its bus's window. A
    name that is not known stays out, because so many other things lie at the top level.

    Device-coherent memory has no range of its own: it is memory that the firmware left to drivers,
    "Soft Reserved" (EFI_MEMORY_SP). As far as it was made RAM after all, it is none.
    """
    ram = [resource for resource in resources if resource.name.startswith(_RAM)]
    ram_end = max(((resource.end + 1) // page_size for resource in ram), default=0)
    devices = [
        DeviceRegion(-(-resource.start // page_size), (resource.end + 1) // page_size - 1, resource.name)
        for resource in resources
        if _holds_device_pages(resource, ram)
    ]
    whole = (region for region in devices if region.first_pfn <= region.last_pfn)
    return Regions(ram_end, tuple(sorted(whole, key=lambda region: region.first_pfn)))


def _holds_device_pages(resource: Resource, ram: Iterable[Resource]) -> bool:
    if resource.depth:
        return False
    if resource.name == _SOFT_RESERVED:
        return not any(resource.start <= other.start <= resource.end for other in ram)
    if resource.device_private is not None:
        return resource.device_private
    return resource.name in PRIVATE_NAMES or bool(PCI_ADDRESS.fullmatch(resource.name))
