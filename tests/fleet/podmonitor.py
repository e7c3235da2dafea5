# SPDX-License-Identifier: Apache-2.0
"""The scrape configuration that prometheus-operator makes of a PodMonitor.

Written after generatePodMonitorConfig and what it calls (pkg/prometheus/promcfg.go:1447 at 6adcebc, after v0.93.0), for
one Prometheus without scrape classes, shards and enforced labels, and for the fields that ours has. It finds no pods:
targets come from whoever calls, with the labels that Kubernetes' service discovery gives to a pod's port.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_SNAKE_CASE = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
_KNOWN = {"port", "honorLabels", "relabelings", "scheme", "tlsConfig"}


def scrape_config(podmonitor: Mapping[str, Any], override_honor_labels: bool = False) -> dict[str, Any]:
    """Without service discovery. ``override_honor_labels`` is the option of that name of a Prometheus object; who calls
    adds the CA's file, which the operator takes out of a Secret."""
    metadata, spec = podmonitor["metadata"], podmonitor["spec"]
    (endpoint,) = spec["podMetricsEndpoints"]
    assert set(endpoint) <= _KNOWN, f"not made into a scrape configuration here: {set(endpoint) - _KNOWN}"
    config = {
        "job_name": f"podMonitor/{metadata['namespace']}/{metadata['name']}/0",
        "honor_labels": endpoint.get("honorLabels", False) and not override_honor_labels,
        "scheme": endpoint.get("scheme", "http"),
        "relabel_configs": [
            {"source_labels": ["job"], "target_label": "__tmp_prometheus_job_name"},
            {"action": "drop", "source_labels": ["__meta_kubernetes_pod_phase"], "regex": "(Failed|Succeeded)"},
            *(_keep(name, value) for name, value in sorted(spec["selector"]["matchLabels"].items())),
            {
                "action": "keep",
                "source_labels": ["__meta_kubernetes_pod_container_port_name"],
                "regex": endpoint["port"],
            },
            {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
            {"source_labels": ["__meta_kubernetes_pod_container_name"], "target_label": "container"},
            {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
            {"target_label": "job", "replacement": f"{metadata['namespace']}/{metadata['name']}"},
            {
                "source_labels": [f"__meta_kubernetes_pod_label_{_label_name(spec['jobLabel'])}"],
                "target_label": "job",
                "regex": "(.+)",
                "replacement": "${1}",
            },
            {"target_label": "endpoint", "replacement": endpoint["port"]},
            *({_SNAKE_CASE.get(key, key): value for key, value in each.items()} for each in endpoint["relabelings"]),
        ],
    }
    if "tlsConfig" in endpoint:
        config["tls_config"] = {"server_name": endpoint["tlsConfig"]["serverName"]}
    return config


def _keep(label: str, value: str) -> dict[str, Any]:
    name = _label_name(label)
    sources = [f"__meta_kubernetes_pod_label_{name}", f"__meta_kubernetes_pod_labelpresent_{name}"]
    return {"action": "keep", "source_labels": sources, "regex": f"({value});true"}


def _label_name(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)
