# SPDX-License-Identifier: Apache-2.0
"""Runs in the guest, beside the package: attaches a probe, walks the tree of resources until stdin ends, and once more.

It drops all rights that its caller gave it between the first walk and the others. A JSON document on
stdout for each walk: what was asked, its problem, CapEff, the resources, and the devices that are there.
"""

from __future__ import annotations

import ctypes
import json
import select
import struct
import sys
from pathlib import Path

from hmm_exporter.bpf.attach import Attachments, attach
from hmm_exporter.bpf.plan import choose
from hmm_exporter.catalog.probes import PROBES
from hmm_exporter.config import Config, Probes
from hmm_exporter.kernel.devices import Devices
from hmm_exporter.kernel.features import running_kernel
from hmm_exporter.kernel.iomem import regions

PROBE = "make_device_exclusive"
"""One is enough: the walk is loaded with the probes, whatever they are."""


def walk(attachments: Attachments, devices: Devices, page_size: int) -> None:
    assert attachments.resources
    resources = attachments.resources.read()
    devices.update(regions(resources, page_size).devices)
    asked, problem = type(attachments.resources).__name__, attachments.resources_problem
    rights = next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "CapEff" in line)
    rows = [(each.start, each.end, each.name, each.depth, each.device_private) for each in resources]
    print(json.dumps([asked, problem, int(rights, 16), rows, devices.info()]))


def main() -> None:
    kernel, devices = running_kernel(), Devices()
    config = Config(probes=Probes(exclude=tuple(probe.name for probe in PROBES if probe.name != PROBE)))
    plan, _ = choose(kernel, config)
    attachments = attach(kernel, config, plan)
    walk(attachments, devices, kernel.page_size)
    header = struct.pack("<Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3
    assert ctypes.CDLL(None).capset(header, bytes(24)) == 0
    while not select.select([sys.stdin], [], [], 0.01)[0]:
        walk(attachments, devices, kernel.page_size)
    walk(attachments, devices, kernel.page_size)


if __name__ == "__main__":
    main()
