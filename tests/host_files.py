# SPDX-License-Identifier: Apache-2.0
"""A host's folders of cgroups and links to logs, made after what kubelet, the runtimes and Slurm make.

For every tier: below a temporary folder for the simulator, whose cgroups are any folders; below /sys/fs/cgroup for
processes that a test puts there. `python -m tests.host_files FOLDER` makes a small node and names the simulator's file.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Container:
    """One container of a pod. IDs have 64 digits, UIDs of pods are UUIDs or, of static pods, hashes."""

    namespace: str
    pod: str
    name: str
    uid: str
    id: str

    def systemd(self, runtime: str = "cri-containerd", quality: str = "burstable") -> str:
        """Its cgroup with the driver systemd; *quality* is empty for a guaranteed pod, which lies one level higher."""
        slices = (
            f"kubepods.slice/kubepods-{quality}.slice/kubepods-{quality}-" if quality else "kubepods.slice/kubepods-"
        )
        return f"{slices}pod{self.uid.replace('-', '_')}.slice/{runtime}-{self.id}.scope"

    def cgroupfs(self, quality: str = "burstable") -> str:
        return "/".join(filter(None, ("kubepods", quality, f"pod{self.uid}", self.id)))

    @property
    def link(self) -> tuple[str, str]:
        """The link to its log, as kubelet makes it: its name, which may be cut, and where it leads."""
        name = f"{self.pod}_{self.namespace}_{self.name}-{self.id}"[:251] + ".log"
        return name, f"/var/log/pods/{self.namespace}_{self.pod}_{self.uid}/{self.name}/0.log"


class HostFiles:
    """The two folders that the options under `host` name."""

    def __init__(self, folder: Path, cgroup: Path | None = None) -> None:
        self.cgroup = cgroup or folder / "cgroup"
        self.container_logs = folder / "log/containers"
        for each in (self.cgroup, self.container_logs):
            each.mkdir(parents=True, exist_ok=True)

    @property
    def options(self) -> dict[str, Any]:
        return {"host": {"cgroup": str(self.cgroup), "container_logs": str(self.container_logs)}}

    def make(self, path: str) -> int:
        """A cgroup, with those above it; its number."""
        (self.cgroup / path).mkdir(parents=True, exist_ok=True)
        return (self.cgroup / path).stat().st_ino

    def link(self, container: Container) -> None:
        name, target = container.link
        (self.container_logs / name).symlink_to(target)


LLAMA = Container("inference", "llama-7d9c5b7f4-x2x9p", "server", "0f5a1c52-8f0e-4d0c-9c55-3a0a1f7f2b11", "a1" * 32)
VLLM = Container("inference", "vllm-0", "engine", "5b6e4d0a-53a2-4a46-8d1c-0c6a3f5b7d22", "b2" * 32)
TRAINERS = tuple(
    Container(
        "training", f"resnet-worker-{rank}", "pytorch", f"9e1d7c3b-0000-4c5d-8e9f-{rank:012d}", f"{rank + 3:x}" * 64
    )
    for rank in range(2)
)


def simulated_node(folder: Path) -> tuple[HostFiles, Path]:
    """A node on which four of the simulator's processes run in pods, two of one name, one in a job, one as a service.

    Gives the file for the simulator's option --cgroups, too.
    """
    files = HostFiles(folder)
    for container in (LLAMA, VLLM, *TRAINERS):
        files.link(container)
    numbers = {
        "llama-server": [files.make(LLAMA.systemd())],
        "VLLM::EngineCor": [files.make(VLLM.systemd("crio", quality=""))],
        "python3": [files.make(trainer.cgroupfs()) for trainer in TRAINERS],
        "train.py": [files.make("system.slice/slurmstepd.scope/job_4217/step_0/user/task_0")],
        "ollama": [files.make("system.slice/ollama.service")],
    }
    listed = folder / "cgroups"
    listed.write_text("".join(f"{comm} {' '.join(map(str, its))}\n" for comm, its in numbers.items()))
    return files, listed


if __name__ == "__main__":
    print(simulated_node(Path(sys.argv[1]))[1])
