# SPDX-License-Identifier: Apache-2.0
"""Pods in a lab machine: its containerd, and containers that are made of the DaemonSet as a kubelet makes them.

Belongs here: what a kubelet makes of a manifest for the container runtime. Does not belong here: how that goes over the
wire (cri.py), how the image is made (container_image.py).
"""

from __future__ import annotations

import copy
import itertools
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.lab.command import CommandError
from tests.lab.container_image import NAME, PAUSE
from tests.lab.vm import VirtualMachine

BASE = Path(__file__).parents[2] / "deploy/k8s/base"
LOGS = "/var/log/pods"

# pkg/securitycontext/util.go of Kubernetes 1.33: what every container gets whose procMount is the default.
_MASKED_PATHS = (
    "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
)  # fmt: skip
_READ_ONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_MEBIBYTE = 2**20

_CONTAINERD = f"""\
version = 2
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
"""


def manifest() -> dict[str, Any]:
    """The DaemonSet."""
    read: dict[str, Any] = yaml.safe_load((BASE / "daemonset.yaml").read_text())
    return read


def configuration() -> dict[str, Any]:
    """What the ConfigMap is made of."""
    read: dict[str, Any] = yaml.safe_load((BASE / "config.yaml").read_text())
    return read


@dataclass(frozen=True)
class Pod:
    """One that was started; it is gone with the machine."""

    node: Node
    container: str
    name: str

    @property
    def folder(self) -> str:
        """Where the node has the container's bundle."""
        return f"/run/containerd/io.containerd.runtime.v2.task/k8s.io/{self.container}"

    @property
    def pid(self) -> int:
        """The container's first process, as the node sees it."""
        return int(self.node.machine.run(f"cat {self.folder}/init.pid").stdout)

    def log(self) -> str:
        """What it wrote, without the times and streams that a kubelet's log begins each line with."""
        lines = self.node.machine.run(f"cat {LOGS}/{self.name}.log").stdout.splitlines()
        return "".join(f"{line.split(' ', 3)[3]}\n" for line in lines)

    def wait_for_log(self, text: str, timeout: float = 300.0) -> str:
        """The log, as soon as it has the text."""
        # The guest waits, as in GuestProcess.wait_for_output.
        follow = f"tail -n +1 --pid={self.pid} -F {LOGS}/{self.name}.log"
        try:
            self.node.machine.run(f"{follow} | grep -qF -m 1 -e {shlex.quote(text)}", timeout)
        except CommandError as error:
            raise CommandError(f"{self.name} has not written {text!r}:\n{self.log()}") from error
        return self.log()

    def execute(self, *command: str) -> dict[str, Any]:
        """What `kubectl exec` does: status, stdout and stderr."""
        answer: dict[str, Any] = self.node.ask("execute", self.container, *command)
        return answer

    def wait(self) -> int:
        """The exit status, at the end."""
        return int(self.node.ask("wait", self.container))

    def memory(self, name: str) -> str:
        """A file of the container's cgroup."""
        return self.node.machine.run(f"cat /sys/fs/cgroup/kubepods/{self.container}/memory.{name}").stdout


class Node:
    """A machine that runs pods, with the disk of container_image.py as its second."""

    def __init__(self, machine: VirtualMachine) -> None:
        self.machine = machine
        self._numbers = itertools.count(1)
        machine.run(
            "modprobe overlay; mkdir -p /var/lib/containerd /etc/containerd /etc/hmm-exporter /var/log/containers"
            f" {LOGS}; mount /dev/nvme1n1 /var/lib/containerd"
        )
        machine.run("cat > /etc/containerd/config.toml", stdin=_CONTAINERD.encode())
        machine.run("cat > /run/cri.py", stdin=Path(__file__).with_name("cri.py").read_bytes())
        self.containerd = machine.start("exec containerd")
        machine.run("until ctr version; do sleep 0.2; done >/dev/null 2>&1", timeout=120)

    def configure(self, settings: Mapping[str, Any], name: str = "config.yaml") -> None:
        """A file of the ConfigMap."""
        self.machine.run(f"cat > /etc/hmm-exporter/{name}", stdin=yaml.safe_dump(dict(settings)).encode())

    def start(self, daemon_set: Mapping[str, Any], arguments: Sequence[str] | None = None) -> Pod:
        """A pod of the DaemonSet, with other arguments if they are given."""
        name = f"hmm-exporter-{next(self._numbers)}"
        return Pod(self, self.ask("run", _container(daemon_set, name, arguments)), name)

    def ask(self, what: str, *given: Any) -> Any:
        request = json.dumps({what: given}).encode()
        try:
            return json.loads(self.machine.run("python3 /run/cri.py", timeout=700, stdin=request).stdout)
        except CommandError as error:
            raise CommandError(f"{error}\n{self.containerd.stderr()[-3000:]}") from error


def changed(daemon_set: Mapping[str, Any], **security: Any) -> dict[str, Any]:
    """The DaemonSet with other words in its container's security context."""
    other = copy.deepcopy(dict(daemon_set))
    _spec(other)["containers"][0]["securityContext"].update(security)
    return other


def with_capabilities(daemon_set: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return changed(daemon_set, capabilities={"add": list(names), "drop": ["ALL"]})


def _spec(daemon_set: Mapping[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = daemon_set["spec"]["template"]["spec"]
    return spec


def _container(daemon_set: Mapping[str, Any], name: str, arguments: Sequence[str] | None) -> dict[str, Any]:
    """The container as cri.py wants it; a word of the manifest that it would lose is an AssertionError."""
    spec = _spec(daemon_set)
    (container,) = spec["containers"]
    security = spec["securityContext"] | container["securityContext"]
    assert security.pop("seccompProfile") == {"type": "RuntimeDefault"}
    capabilities = security.pop("capabilities")
    assert set(capabilities) == {"add", "drop"}
    limit = container["resources"]["limits"]["memory"]
    assert limit.endswith("Mi")
    volumes = {volume.pop("name"): volume for volume in copy.deepcopy(spec["volumes"])}
    request = {
        "name": name,
        "image": NAME,
        "arguments": container["args"] if arguments is None else list(arguments),
        "logs": LOGS,
        "mounts": [(mount["mountPath"], _on_the_node(volumes[mount["name"]])) for mount in container["volumeMounts"]],
        "memory_limit": int(limit.removesuffix("Mi")) * _MEBIBYTE,
        "add": capabilities["add"],
        "drop": capabilities["drop"],
        "user": security.pop("runAsUser"),
        "group": security.pop("runAsGroup"),
        "privileged": security.pop("privileged"),
        "read_only_root": security.pop("readOnlyRootFilesystem"),
        "no_new_privileges": not security.pop("allowPrivilegeEscalation"),
        "masked_paths": _MASKED_PATHS,
        "read_only_paths": _READ_ONLY_PATHS,
    }
    assert security.pop("runAsNonRoot") is bool(request["user"])
    assert not security, security
    assert all(mount.get("readOnly") for mount in container["volumeMounts"])
    return request


def _on_the_node(volume: Mapping[str, Any]) -> str:
    return "/etc/hmm-exporter" if "configMap" in volume else str(volume["hostPath"]["path"])
