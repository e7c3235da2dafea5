# SPDX-License-Identifier: Apache-2.0
"""Through the PodMonitor, and the plain scrape configuration, labels of pods arrive as the exporter says them.

The exporter watches the simulator, whose processes have cgroups of pods, with the configuration of the ConfigMap; a
real Prometheus does the relabelling. What service discovery would find is written here.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.exposition import Labels
from tests.fleet.kubernetes import K8S, build, one
from tests.fleet.podmonitor import scrape_config
from tests.fleet.prometheus import Prometheus
from tests.fleet.tools import run, tool
from tests.host_files import VLLM, simulated_node
from tests.process import Exporter, issue_exactly

PLAIN = K8S / "scrape_config.yaml"
OWN_POD = "hmm-exporter-x7k2p"


def _port(**other: str) -> dict[str, str]:
    """What service discovery knows of a port of a pod of the DaemonSet."""
    labels = {
        "namespace": "hmm-exporter",
        "pod_name": OWN_POD,
        "pod_container_name": "hmm-exporter",
        "pod_container_port_name": "metrics",
        "pod_node_name": "gpu-1",
        "pod_phase": "Running",
        "pod_label_app_kubernetes_io_name": "hmm-exporter",
        "pod_labelpresent_app_kubernetes_io_name": "true",
    }
    return {f"__meta_kubernetes_{name}": value for name, value in (labels | other).items()}


PORTS = (
    _port(),
    # and what is none of ours
    _port(pod_container_port_name="debug"),
    _port(pod_phase="Succeeded"),
    _port(pod_label_app_kubernetes_io_name="another-exporter"),
)


def _plain() -> dict[str, Any]:
    (config,) = yaml.safe_load(PLAIN.read_text())["scrape_configs"]
    assert [discovery["role"] for discovery in config.pop("kubernetes_sd_configs")] == ["pod"]
    found: dict[str, Any] = config
    return found


def _configs() -> dict[str, dict[str, Any]]:
    """By what they are to show."""
    podmonitor = one(build(K8S / "overlays/prometheus-operator"), "PodMonitor")
    bare = copy.deepcopy(podmonitor)
    bare["spec"]["podMetricsEndpoints"] = [{"port": "metrics", "relabelings": []}]
    return {
        "PodMonitor": scrape_config(podmonitor),
        "PodMonitor where honorLabels is overridden": scrape_config(podmonitor, override_honor_labels=True),
        "PodMonitor without its relabelings": scrape_config(bare),
        "plain": _plain(),
    }


@dataclass(frozen=True)
class Scraped:
    said: set[Labels]
    """The label sets of the exporter's own page, __name__ among them."""
    address: Mapping[str, str]
    """By configuration, which each have one of their own: the job's name is the same."""
    series: Mapping[str, list[dict[str, str]]]
    up: Mapping[str, list[dict[str, str]]]


@pytest.fixture(scope="module")
def exporter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    if os.geteuid() != 0:
        reason = "the exporter attaches BPF programs to the simulator: run as root"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    folder = tmp_path_factory.mktemp("node")
    files, cgroups = simulated_node(folder)
    settings = yaml.safe_load(one(build(K8S / "base"), "ConfigMap")["data"]["config.yaml"])
    addresses = [f"127.0.0.{number}:0" for number, _ in enumerate(_configs(), 1)]
    with Exporter(folder, {**settings, **files.options, "web": {"listen_addresses": addresses}}) as running:
        issue_exactly(2000, arguments=["--cgroups", str(cgroups)])
        yield running


@pytest.fixture(scope="module", params=["sid", "bookworm"])
def scraped(request: pytest.FixtureRequest, exporter: Exporter, tmp_path_factory: pytest.TempPathFactory) -> Scraped:
    """By the Prometheus of one of Debian's releases: 3, and 2.42."""
    configs = _configs()
    (listening,) = (line for line in exporter.log.splitlines() if " msg=listening " in line)
    address = dict(zip(configs, listening.partition('addresses="')[2].partition('"')[0].split()))
    jobs = [
        {**config, "job_name": name, "static_configs": [{"targets": [address[name]], "labels": port} for port in PORTS]}
        for name, config in configs.items()
    ]
    said = {its | {("__name__", name)} for name, its in exporter.scrape().values if name.startswith("hmm_process_")}
    with Prometheus(tmp_path_factory.mktemp("prometheus"), jobs, release=request.param) as prometheus:
        prometheus.wait_until_scraped(1)
        series, up = prometheus.series('{__name__=~"hmm_process_.*"}'), prometheus.series("up")
    return Scraped(said, address, _by_address(series, address), _by_address(up, address))


def _by_address(series: Sequence[dict[str, str]], address: Mapping[str, str]) -> dict[str, list[dict[str, str]]]:
    return {name: [labels for labels in series if labels["instance"] == its] for name, its in address.items()}


def _assert_as_said(scraped: Scraped, config: str, **target: str) -> None:
    """That every series is the exporter's with these labels besides, and every target has no others."""
    target["instance"] = scraped.address[config]
    # To Prometheus a label that is empty is none.
    expected = {frozenset([*target.items(), *(label for label in its if label[1])]) for its in scraped.said}
    assert any(dict(its).get("pod") == VLLM.pod for its in expected)
    assert {frozenset(labels.items()) for labels in scraped.series[config]} == expected
    assert scraped.up[config] == [{"__name__": "up", **target}]


@pytest.mark.parametrize("config", ["PodMonitor", "PodMonitor where honorLabels is overridden"])
def test_the_podmonitor_leaves_labels_alone_and_adds_node_and_job(scraped: Scraped, config: str) -> None:
    _assert_as_said(scraped, config, job="hmm-exporter", endpoint="metrics", node="gpu-1")


def test_the_plain_scrape_configuration_does_so_too(scraped: Scraped) -> None:
    _assert_as_said(scraped, "plain", job="plain", node="gpu-1")
    # In the file, the job has the name that rules and dashboards expect.
    assert _plain()["job_name"] == "hmm-exporter"


def test_without_the_relabelings_pods_would_be_renamed_and_all_else_be_the_exporters(scraped: Scraped) -> None:
    by_comm = {labels["comm"]: labels for labels in scraped.series["PodMonitor without its relabelings"]}
    assert by_comm["VLLM::EngineCor"]["exported_pod"] == VLLM.pod
    assert by_comm["ollama"]["pod"] == OWN_POD


def test_promtool_accepts_the_plain_scrape_configuration(tmp_path: Path) -> None:
    """Of sid alone: Debian's 2.42 is built without discovery of Kubernetes."""
    file = tmp_path / "prometheus.yml"
    file.write_text(PLAIN.read_text())
    run(tool("sid", "promtool"), "check", "config", file)
