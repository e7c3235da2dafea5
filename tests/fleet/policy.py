# SPDX-License-Identifier: Apache-2.0
"""What this project demands of its manifests and no schema says: each demand a sentence, with what decides it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from email.message import Message
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import CollectorRegistry

from hmm_exporter import __version__, config_file
from hmm_exporter.config import Config, ConfigError
from hmm_exporter.daemon import State
from hmm_exporter.web.routes import Request, Routes
from tests.fleet.kubernetes import Manifest, one

NAME = "hmm-exporter"
_LABELS = {"app.kubernetes.io/name": NAME}
_CAPABILITIES = {NAME: {"BPF", "PERFMON", "SYSLOG"}}
_HOST_PATHS = {"/sys/fs/cgroup", "/var/log/containers"}
_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def breaches(manifests: Sequence[Manifest]) -> list[str]:
    """The demands that are not met."""
    return [sentence for sentence, met in _DEMANDS.items() if not met(_Deployment(manifests))]


def at(node: Any, *path: str | int) -> Any:
    """What is at a path in nested mappings and lists, or None."""
    for step in path:
        try:
            node = node[step]
        except (KeyError, IndexError, TypeError):
            return None
    return node


class _Deployment:
    def __init__(self, manifests: Sequence[Manifest]) -> None:
        self.manifests = manifests
        self.daemonset = one(manifests, "DaemonSet")
        self.template = self.daemonset["spec"]["template"]
        self.pod = self.template["spec"]
        self.containers = [*self.pod["containers"], *self.pod.get("initContainers", ())]
        self.exporter = next(container for container in self.containers if container["name"] == NAME)

    def each(self, demand: Callable[[Mapping[str, Any]], bool]) -> bool:
        return all(demand(container) for container in self.containers)

    @cached_property
    def ports(self) -> dict[str, int]:
        return {port["name"]: port["containerPort"] for each in self.containers for port in each.get("ports", ())}

    @cached_property
    def config_file(self) -> tuple[str, str]:
        """Where --config.file points to, and what the ConfigMap has there."""
        (path,) = (arg.partition("=")[2] for arg in self.exporter["args"] if arg.startswith("--config.file="))
        volume = {mount["mountPath"]: mount["name"] for mount in self.exporter["volumeMounts"]}[str(Path(path).parent)]
        (name,) = (at(each, "configMap", "name") for each in self.pod["volumes"] if each["name"] == volume)
        (data,) = (each["data"] for each in self.manifests if each["metadata"]["name"] == name and "data" in each)
        return path, data[Path(path).name]


def _answers_probes(deployment: _Deployment) -> bool:
    state = State()
    state.attached(())
    routes = Routes("/metrics", CollectorRegistry(), state)
    for probe in _PROBES:
        request: Mapping[str, Any] = at(deployment.exporter, probe, "httpGet") or {}
        port = request.get("port", "")
        if deployment.ports.get(port, port) not in deployment.ports.values():
            return False
        if routes(Request("GET", request.get("path", "/"), Message())).status != HTTPStatus.OK:
            return False
    return bool(at(deployment.exporter, "livenessProbe", "httpGet", "path") == "/-/healthy")


def _startup_is_long_enough(deployment: _Deployment) -> bool:
    probe = deployment.exporter["startupProbe"]
    window: int = probe["periodSeconds"] * probe["failureThreshold"]
    # Two kinds of programs may be compiled, one after the other (bpf/attach.py).
    return window > 2 * Config().loader.timeout


def _port_is_the_exporters(deployment: _Deployment) -> bool:
    served = [address.rpartition(":")[2] for address in Config().web.listen_addresses]
    return deployment.ports == {"metrics": int(served[0])} and "ports" in deployment.exporter


def _config_is_accepted(deployment: _Deployment) -> bool:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(deployment.config_file[1])
        file.flush()
        try:
            config_file.load(file.name)
        except ConfigError:
            return False
    return True


def _config_says_where_the_host_is(deployment: _Deployment) -> bool:
    mounts = {mount["name"]: mount["mountPath"] for mount in deployment.exporter["volumeMounts"]}
    host = {at(each, "hostPath", "path"): mounts.get(each["name"]) for each in deployment.pod["volumes"]}
    said = at(yaml.safe_load(deployment.config_file[1]), "host")
    return bool(said == {"cgroup": host.get("/sys/fs/cgroup"), "container_logs": host.get("/var/log/containers")})


def _host_is_mounted_read_only(deployment: _Deployment) -> bool:
    hosts = {each["name"]: each["hostPath"]["path"] for each in deployment.pod["volumes"] if "hostPath" in each}
    mounts = [mount for each in deployment.containers for mount in each.get("volumeMounts", ())]
    return set(hosts.values()) == _HOST_PATHS and all(mount.get("readOnly") is True for mount in mounts)


def _image_is_a_release(image: str) -> bool:
    name, _, tag = image.rpartition(":")
    return name != "" and "latest" not in tag and (name != NAME or tag == __version__)


def _network_is_shut(deployment: _Deployment) -> bool:
    spec = one(deployment.manifests, "NetworkPolicy")["spec"]
    return (
        set(spec["policyTypes"]) == {"Ingress", "Egress"}
        and not spec.get("egress")
        and spec["podSelector"] == {"matchLabels": _LABELS}
        and [rule.get("ports") for rule in spec["ingress"]] == [[{"port": "metrics", "protocol": "TCP"}]]
    )


def _priority_is_allowed(deployment: _Deployment) -> bool:
    quota = one(deployment.manifests, "ResourceQuota")["spec"]["scopeSelector"]["matchExpressions"]
    return deployment.pod["priorityClassName"] in at(quota, 0, "values")


def _labels_match(deployment: _Deployment) -> bool:
    selectors = [deployment.daemonset["spec"]["selector"]]
    selectors += [each["spec"]["selector"] for each in deployment.manifests if each["kind"] == "PodMonitor"]
    return all(selector == {"matchLabels": _LABELS} for selector in selectors) and (
        deployment.template["metadata"]["labels"] == _LABELS
    )


def _namespace_is_one(deployment: _Deployment) -> bool:
    namespace = one(deployment.manifests, "Namespace")["metadata"]
    used = {each["metadata"].get("namespace") for each in deployment.manifests if each["kind"] != "Namespace"}
    return used == {namespace["name"]} and (
        namespace["labels"].get("pod-security.kubernetes.io/enforce") == "privileged"
    )


def _memory(text: str | None) -> int:
    """In MiB; 0 where there is none."""
    match = re.fullmatch(r"(\d+)Mi", text or "0Mi")
    return int(match[1]) if match else 0


def _resources_are_said(container: Mapping[str, Any]) -> bool:
    resources = container.get("resources", {})
    asked, most = _memory(at(resources, "requests", "memory")), _memory(at(resources, "limits", "memory"))
    # A limit of CPU would throttle the compiler, and with it the start.
    return 0 < asked < most and bool(at(resources, "requests", "cpu")) and at(resources, "limits", "cpu") is None


_DEMANDS: Mapping[str, Callable[[_Deployment], bool]] = {
    "no container is privileged, or may become so": lambda it: it.each(
        lambda container: (
            at(container, "securityContext", "privileged") is False
            and at(container, "securityContext", "allowPrivilegeEscalation") is False
        )
    ),
    "no container has a capability but those that it needs": lambda it: it.each(
        lambda container: (
            at(container, "securityContext", "capabilities", "drop") == ["ALL"]
            and set(at(container, "securityContext", "capabilities", "add") or ())
            == _CAPABILITIES.get(container["name"], set())
        )
    ),
    "no container writes to its root": lambda it: it.each(
        lambda container: at(container, "securityContext", "readOnlyRootFilesystem") is True
    ),
    "nobody is root": lambda it: (
        at(it.pod, "securityContext", "runAsNonRoot") is True
        and at(it.pod, "securityContext", "runAsUser") == at(it.pod, "securityContext", "runAsGroup") == 65532
        and it.each(lambda container: not {"runAsUser", "runAsNonRoot"} & set(container["securityContext"]))
    ),
    "system calls are the runtime's default": lambda it: (
        at(it.pod, "securityContext", "seccompProfile") == {"type": "RuntimeDefault"}
        and it.each(lambda container: "seccompProfile" not in container["securityContext"])
    ),
    "there is no token": lambda it: (
        it.pod.get("automountServiceAccountToken") is False
        and one(it.manifests, "ServiceAccount").get("automountServiceAccountToken") is False
        and not any("projected" in volume for volume in it.pod["volumes"])
    ),
    "of the host's namespaces, only that of users is the pod's": lambda it: (
        it.pod.get("hostUsers") is True and not any(it.pod.get(name) for name in ("hostPID", "hostIPC", "hostNetwork"))
    ),
    "of the host's files, names of cgroups and of logs are seen, and not written": _host_is_mounted_read_only,
    "every image has a version, the exporter's its own": lambda it: it.each(
        lambda container: _image_is_a_release(container["image"])
    ),
    "the exporter answers the probes": _answers_probes,
    "the start may take as long as the loader may": _startup_is_long_enough,
    "the port called metrics is the one that is served": _port_is_the_exporters,
    "the exporter accepts the configuration": _config_is_accepted,
    "the configuration says where the host is mounted": _config_says_where_the_host_is,
    "the network is shut, but for scrapes": _network_is_shut,
    "a quota allows the priority": _priority_is_allowed,
    "what selects the pods finds them": _labels_match,
    "everything is in the one namespace, which allows it": _namespace_is_one,
    "memory is asked for and limited, CPU is asked for": lambda it: it.each(_resources_are_said),
    "several nodes are updated at a time": lambda it: (
        at(it.daemonset, "spec", "updateStrategy", "rollingUpdate", "maxUnavailable") == "10%"
    ),
}
