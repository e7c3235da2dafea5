# SPDX-License-Identifier: Apache-2.0
"""Physical ranges: whatever two files say one after the other, the programs get a table that they can use.

Ranges that fit the map's numbers, a name for each index that never changes, and no physical address in a name.
"""

from __future__ import annotations

import re

from hmm_exporter.kernel.devices import Devices
from hmm_exporter.kernel.features import lockdown, possible_cpus
from hmm_exporter.kernel.iomem import PCI_ADDRESS, Iomem, parse, regions
from tests.fuzz.target import ScratchFile, Target, check_message

_PAGE = 4096
_NAMES = 4
_NAME = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]|[A-Za-z_ -]+-\d+")
_file = ScratchFile()


def try_one(data: bytes) -> None:
    devices = Devices(_NAMES)
    named: list[str] = []
    for part in data.split(b"\n\n"):
        file = Iomem(_file.write(part))
        if file.problem:
            check_message(file.problem)
        resources = file.read()
        assert resources == parse(part.decode(errors="replace"))
        file.close()
        found = regions(resources, _PAGE)
        assert 0 <= found.ram_end <= 1 << 52
        assert all(0 <= each.first_pfn <= each.last_pfn < 1 << 52 for each in found.devices)
        devices.update(found.devices)
        assert not devices.update(found.devices), "the same again is no change"
        table = devices.table()
        assert [first for first, _, _ in table] == sorted(first for first, _, _ in table)
        now = [devices.name(index) for index in range(_NAMES + 1)]
        assert now[: len(named)] == named, "an index changed its name"
        named = [name for name in now if name]
        assert all(devices.name(index) for _, _, index in table)
        assert all(_NAME.fullmatch(name) for name in named)
        assert len(set(named)) == len(named) <= _NAMES
        for info in devices.info():
            assert info.device in named
            assert bool(info.pci_bus_id) == bool(PCI_ADDRESS.fullmatch(info.device))
    _file.write(data)
    assert possible_cpus(_file.path) >= 1
    lockdown(_file.path).encode()


TARGET = Target(
    try_one,
    words=[
        *("00001000-07ffffffff : System RAM\n", "3ffe00000000-3fffffffffff : 0000:c1:00.0\n", "  ", "\n\n"),
        *(
            "fffc0000000-fffffffffff : ",
            "hmm_dmirror\n",
            "nouveau_dmem\n",
            "nvidia-uvm-hmm\n",
            "Soft Reserved\n",
            "0-127",
        ),
    ],
)
