# SPDX-License-Identifier: Apache-2.0
"""The emulator's command line: which machine a lab machine is, and why.

Belongs here: QEMU's options and the kernel's. Does not belong here: starting, talking to and ending it (vm.py).
"""

from __future__ import annotations

import itertools
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.image import Image

#: The exporter's port in the guest, which the host reaches at the machine's `host_port`.
GUEST_PORT = 10466

#: The first process: init.sh, which is quick, or systemd, where the image has it (systemd.sh).
INIT = "/init"
SYSTEMD = "/usr/lib/systemd/systemd"

_KERNEL_ARGUMENTS = (
    "root=/dev/nvme0n1",
    "rootfstype=ext4",
    "rw",
    "console=ttyS0",
    "quiet",
    # With -no-reboot a panic ends the emulator at once, instead of hanging until a timeout.
    "panic=-1",
    # There is nobody to protect, and the mitigations cost an emulated processor much.
    "mitigations=off",
    # Before 7.x, anon_write_hugetlbfs does not reserve what it wants, and is skipped without.
    "hugepages=2",
    # Before 6.7, mmap does not align what is large: where huge pages begin in it is not to be left to chance.
    "norandmaps",
)


class VirtualMachineError(RuntimeError):
    """The machine cannot start, did not boot, or died; the text says why, or ends with the tail of its console."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _disk(number: int, path: Path) -> tuple[str, ...]:
    # NVMe and not virtio: its driver is built into the cloud kernel, so no initial RAM disk is needed.
    drive = f"file={path},format=raw,snapshot=on,if=none,id=disk{number}"
    return "-drive", drive, "-device", f"nvme,drive=disk{number},serial=disk{number}"


@dataclass(frozen=True)
class Emulator:
    """One machine's description; `folder` receives its sockets and logs."""

    image: Image
    folder: Path
    memory_mib: int
    processors: int
    kernel_arguments: Sequence[str]
    init: str = INIT
    #: Disks besides the root: /dev/nvme1n1 and so on. What the guest writes to them is not kept.
    disks: Sequence[Path] = ()
    host_port: int = field(default_factory=_free_port)

    @property
    def agent_socket(self) -> Path:
        return self.folder / "agent.sock"

    @property
    def logs(self) -> tuple[Path, Path]:
        """What the emulator itself says, and the guest's serial console."""
        return self.folder / "qemu.log", self.folder / "console.log"

    def command(self) -> list[str]:
        for tool, package in (("qemu-system-x86_64", "qemu-system-x86"), ("setpriv", "util-linux")):
            if shutil.which(tool) is None:
                raise VirtualMachineError(f"{tool} is missing; install the package: {package}")
        kernel_arguments = " ".join((*_KERNEL_ARGUMENTS, f"init={self.init}", *self.kernel_arguments))
        forward = f"hostfwd=tcp:127.0.0.1:{self.host_port}-:{GUEST_PORT}"
        return [
            # Should the process that holds the machine be killed, the kernel kills the machine, too.
            "setpriv", "--pdeathsig", "KILL", "--",
            "qemu-system-x86_64", "-machine", "q35", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            # Emulated even where /dev/kvm exists: it may hang with stock kernels. One host thread even for several
            # processors: with a thread each, a run died of the emulator's own int3.
            "-accel", "tcg,thread=single",
            # Five-level page tables do nothing for us and cost time.
            "-cpu", "max,-la57", "-smp", str(self.processors), "-m", str(self.memory_mib),
            "-kernel", str(self.image.kernel), "-append", kernel_arguments,
            *itertools.chain(*map(_disk, itertools.count(), (self.image.disk, *self.disks))),
            # The guest reaches nothing; the host reaches one port.
            "-netdev", f"user,id=network,restrict=on,{forward}",
            "-device", "virtio-net-pci,netdev=network,romfile=",
            "-chardev", f"socket,id=agent,path={self.agent_socket},server=on,wait=off",
            "-device", "virtio-serial-pci",
            "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
            "-serial", f"file:{self.logs[1]}",
        ]  # fmt: skip
