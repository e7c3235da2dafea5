# SPDX-License-Identifier: Apache-2.0
"""The manifests of Kubernetes, as kustomize builds them: the tools have nothing against them, they are what this
project demands, and a mistake in them would be noticed."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.fleet.kubernetes import K8S, RELEASES, Manifest, build, objections, one
from tests.fleet.policy import breaches
from tests.fleet.tools import ROOT, run

OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())
FOLDERS = ["base", *(f"overlays/{name}" for name in OVERLAYS)]

REMOVED = object()
POD = ("spec", "template", "spec")
EXPORTER = (*POD, "containers", 0)
SECURITY = (*EXPORTER, "securityContext")
ENDPOINT = ("spec", "podMetricsEndpoints", 0)


@pytest.fixture(scope="module")
def operated() -> list[Manifest]:
    """The overlay that has a manifest of every kind."""
    return build(K8S / "overlays/prometheus-operator")


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_tools_have_nothing_against_what_kustomize_builds(folder: str) -> None:
    assert objections(build(K8S / folder), RELEASES) == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_kustomize_builds_is_what_this_project_demands(folder: str) -> None:
    assert breaches(build(K8S / folder)) == []


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("DaemonSet", (*SECURITY, "readOnlyRootFileSystem"), True),
        ("DaemonSet", (*EXPORTER, "startupProbe", "httpGet", "paht"), "/-/ready"),
        ("DaemonSet", (*EXPORTER, "startupProbe", "periodSeconds"), "2"),
        ("DaemonSet", (*EXPORTER, "imagePullPolicy"), "Sometimes"),
        ("DaemonSet", (*EXPORTER, "resources", "limits", "memory"), "256Mib"),
        ("DaemonSet", (*POD, "tolerations", 0, "effect"), "NoSchdule"),
        ("DaemonSet", (*POD, "volumes", 1, "hostPath", "type"), "Dir"),
        ("DaemonSet", ("spec", "selector"), REMOVED),
        ("NetworkPolicy", ("spec", "policyTypes", 0), "In"),
        ("NetworkPolicy", ("spec", "ingress", 0, "port"), "metrics"),
        ("ResourceQuota", ("spec", "scopeSelector", "matchExpressions", 0, "operator"), "in"),
        ("PodMonitor", (*ENDPOINT, "honourLabels"), True),
        ("PodMonitor", (*ENDPOINT, "relabelings", 1, "source_labels"), ["a"]),
        ("PodMonitor", (*ENDPOINT, "relabelings", 0, "action"), "dropLabels"),
        ("PodMonitor", (*ENDPOINT, "interval"), "30 s"),
        ("PodMonitor", ("spec", "selector"), REMOVED),
        ("PrometheusRule", ("spec", "groups", 0, "rules", 0, "exp"), "up"),
        ("PrometheusRule", ("spec", "groups", 0, "interval"), "1 minute"),
        ("PrometheusRule", ("spec", "groups", 0, "rules", 0, "expr"), REMOVED),
    ],
)
def test_a_tool_notices_what_the_api_server_would_refuse_or_ignore(
    operated: list[Manifest], kind: str, path: Sequence[str | int], value: Any
) -> None:
    assert objections(_changed(operated, kind, path, value)) != []


@pytest.mark.parametrize(
    ("demand", "kind", "path", "value"),
    [
        ("no container is privileged", "DaemonSet", (*SECURITY, "privileged"), True),
        ("no container is privileged", "DaemonSet", (*SECURITY, "allowPrivilegeEscalation"), REMOVED),
        ("no container has a capability", "DaemonSet", (*SECURITY, "capabilities", "add", 1), REMOVED),
        ("no container has a capability", "DaemonSet", (*SECURITY, "capabilities", "add", 0), "SYS_ADMIN"),
        ("no container has a capability", "DaemonSet", (*SECURITY, "capabilities", "drop"), REMOVED),
        ("no container writes", "DaemonSet", (*SECURITY, "readOnlyRootFilesystem"), False),
        ("nobody is root", "DaemonSet", (*POD, "securityContext", "runAsUser"), 0),
        ("nobody is root", "DaemonSet", (*SECURITY, "runAsUser"), 0),
        ("system calls", "DaemonSet", (*POD, "securityContext", "seccompProfile", "type"), "Unconfined"),
        ("there is no token", "DaemonSet", (*POD, "automountServiceAccountToken"), REMOVED),
        ("there is no token", "ServiceAccount", ("automountServiceAccountToken",), True),
        ("of the host's namespaces", "DaemonSet", (*POD, "hostPID"), True),
        ("of the host's namespaces", "DaemonSet", (*POD, "hostUsers"), False),
        ("of the host's files", "DaemonSet", (*EXPORTER, "volumeMounts", 1, "readOnly"), False),
        ("of the host's files", "DaemonSet", (*POD, "volumes", 1, "hostPath", "path"), "/"),
        ("every image", "DaemonSet", (*EXPORTER, "image"), "hmm-exporter:latest"),
        ("every image", "DaemonSet", (*EXPORTER, "image"), "hmm-exporter"),
        ("the exporter answers", "DaemonSet", (*EXPORTER, "livenessProbe", "httpGet", "path"), "/healthz"),
        ("the exporter answers", "DaemonSet", (*EXPORTER, "readinessProbe", "httpGet", "port"), "http"),
        ("the start may take", "DaemonSet", (*EXPORTER, "startupProbe", "failureThreshold"), 30),
        ("the port called metrics", "DaemonSet", (*EXPORTER, "ports", 0, "containerPort"), 9100),
        ("the exporter accepts", "ConfigMap", ("data", "config.yaml"), "kubernets: {enabled: true}"),
        ("the configuration says", "DaemonSet", (*EXPORTER, "volumeMounts", 1, "mountPath"), "/sys/fs/cgroup"),
        ("the network is shut", "NetworkPolicy", ("spec", "egress"), [{}]),
        ("the network is shut", "NetworkPolicy", ("spec", "policyTypes", 1), REMOVED),
        ("the network is shut", "NetworkPolicy", ("spec", "ingress", 0, "ports"), REMOVED),
        ("a quota allows", "DaemonSet", (*POD, "priorityClassName"), "system-cluster-critical"),
        ("what selects", "PodMonitor", ("spec", "selector", "matchLabels"), {"app": "hmm-exporter"}),
        ("everything is in the one", "PodMonitor", ("metadata", "namespace"), "monitoring"),
        ("everything is in the one", "Namespace", ("metadata", "labels"), {}),
        ("memory is asked for", "DaemonSet", (*EXPORTER, "resources", "limits"), REMOVED),
        ("memory is asked for", "DaemonSet", (*EXPORTER, "resources", "limits", "cpu"), "100m"),
        ("several nodes", "DaemonSet", ("spec", "updateStrategy"), REMOVED),
    ],
)
def test_what_is_not_as_demanded_is_noticed(
    operated: list[Manifest], demand: str, kind: str, path: Sequence[str | int], value: Any
) -> None:
    assert any(breach.startswith(demand) for breach in breaches(_changed(operated, kind, path, value)))


@pytest.mark.parametrize("vendor", ["nvidia", "amd"])
def test_a_vendors_overlay_selects_a_part_of_the_nodes_that_the_base_selects(vendor: str) -> None:
    of_all, of_vendor = _node_terms(build(K8S / "base")), _node_terms(build(K8S / f"overlays/{vendor}"))
    assert of_vendor
    assert all(term in of_all for term in of_vendor)
    assert len(of_vendor) < len(of_all)


def test_any_node_is_any_node() -> None:
    pod = one(build(K8S / "overlays/any-node"), "DaemonSet")["spec"]["template"]["spec"]
    assert "affinity" not in pod
    assert pod["tolerations"] == [{"operator": "Exists"}]


def test_another_configuration_is_another_configmap_so_that_the_daemonset_rolls(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for file in (K8S / "base").iterdir():
        (base / file.name).write_text(file.read_text())
    before = _config_name(build(base))
    (base / "config.yaml").write_text("log: {level: debug}\n")
    assert _config_name(build(base)) != before


def test_the_operators_rules_are_those_of_deploy_prometheus() -> None:
    file = K8S / "components/prometheus-operator/prometheusrule.yaml"
    script = ROOT / "scripts/prometheus-rule.sh"
    assert file.read_text() == run(script).stdout, f"{script.name} has not been run: it says how"


def _config_name(manifests: Sequence[Manifest]) -> str:
    (name,) = (
        volume["configMap"]["name"]
        for volume in one(manifests, "DaemonSet")["spec"]["template"]["spec"]["volumes"]
        if "configMap" in volume
    )
    assert name == one(manifests, "ConfigMap")["metadata"]["name"]
    return str(name)


def _node_terms(manifests: Sequence[Manifest]) -> list[Any]:
    affinity = one(manifests, "DaemonSet")["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    terms: list[Any] = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    return terms


def _changed(manifests: Sequence[Manifest], kind: str, path: Sequence[str | int], value: Any) -> list[Manifest]:
    """A copy, with one thing changed or removed in the first of a kind."""
    changed = copy.deepcopy(list(manifests))
    node: Any = next(manifest for manifest in changed if manifest["kind"] == kind)
    *folders, last = path
    for step in folders:
        node = node[step]
    if value is REMOVED:
        del node[last]
    else:
        node[last] = value
    return changed
