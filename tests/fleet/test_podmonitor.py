# SPDX-License-Identifier: Apache-2.0
"""Through the PodMonitor, and the plain scrape configuration, labels of pods arrive as the exporter says them.

A real Prometheus does the relabelling. What it scrapes is written for this: a metric of a process in a pod, of one that
is in none, and of the node, as the exporter has them.
"""

from __future__ import annotations

import copy
import http.server
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fleet.kubernetes import K8S, build, one
from tests.fleet.podmonitor import scrape_config
from tests.fleet.prometheus import Prometheus
from tests.fleet.tools import run, tool

PLAIN = K8S / "scrape_config.yaml"
PAGE = b"""\
# TYPE hmm_process_migrations_total counter
hmm_process_migrations_total{comm="train.py",namespace="research",pod="train-0",container="trainer"} 5
hmm_process_migrations_total{comm="python3",namespace="",pod="",container=""} 3
# TYPE hmm_migrations_started_total counter
hmm_migrations_started_total{class="prefetch"} 8
"""


class _Exporter(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _pod(**other: str) -> dict[str, str]:
    """What service discovery knows of a port of a pod of the DaemonSet."""
    labels = {
        "namespace": "hmm-exporter",
        "pod_name": "hmm-exporter-x7k2p",
        "pod_container_name": "hmm-exporter",
        "pod_container_port_name": "metrics",
        "pod_node_name": "gpu-1",
        "pod_phase": "Running",
        "pod_label_app_kubernetes_io_name": "hmm-exporter",
        "pod_labelpresent_app_kubernetes_io_name": "true",
    }
    return {f"__meta_kubernetes_{name}": value for name, value in (labels | other).items()}


OTHERS = (
    _pod(pod_container_port_name="debug"),
    _pod(pod_phase="Succeeded"),
    _pod(pod_label_app_kubernetes_io_name="another-exporter"),
)
"""Ports that service discovery finds, too, and that are none of ours."""


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


Scraped = Mapping[str, tuple[str, list[dict[str, str]]]]


@pytest.fixture(scope="module", params=["sid", "bookworm"])
def scraped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    """By configuration: the address that it scraped, and the label sets of all series that came of it.

    Prometheus is that of one of Debian's releases: 3, and 2.42."""
    with http.server.ThreadingHTTPServer(("", 0), _Exporter) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        configs = _configs()
        # An address of its own for each: the job's name is to be the same.
        addresses = {name: f"127.0.0.{number}:{server.server_port}" for number, name in enumerate(configs, 1)}
        jobs = [
            {
                **config,
                "job_name": name,
                "static_configs": [{"targets": [addresses[name]], "labels": labels} for labels in (_pod(), *OTHERS)],
            }
            for name, config in configs.items()
        ]
        with Prometheus(tmp_path_factory.mktemp("podmonitor"), jobs, release=request.param) as prometheus:
            prometheus.wait_until_scraped(1)
            series = prometheus.series('{__name__=~"hmm_.*|up"}')
            yield {
                name: (address, [labels for labels in series if labels["instance"] == address])
                for name, address in addresses.items()
            }
        server.shutdown()


def _sorted(series: Sequence[Mapping[str, str]]) -> list[Any]:
    return sorted(sorted(labels.items()) for labels in series)


def _expected(**target: str) -> list[Any]:
    process = {"__name__": "hmm_process_migrations_total", **target}
    return _sorted(
        [
            {**process, "comm": "train.py", "namespace": "research", "pod": "train-0", "container": "trainer"},
            {**process, "comm": "python3"},
            {"__name__": "hmm_migrations_started_total", "class": "prefetch", **target},
            {"__name__": "up", **target},
        ]
    )


@pytest.mark.parametrize("config", ["PodMonitor", "PodMonitor where honorLabels is overridden"])
def test_the_podmonitor_leaves_pods_labels_alone_and_adds_node_and_job(scraped: Scraped, config: str) -> None:
    address, series = scraped[config]
    assert _sorted(series) == _expected(job="hmm-exporter", instance=address, endpoint="metrics", node="gpu-1")


def test_the_plain_scrape_configuration_does_so_too(scraped: Scraped) -> None:
    address, series = scraped["plain"]
    # "plain" is the job's name here; in the file it is the one that rules and dashboards expect.
    assert _plain()["job_name"] == "hmm-exporter"
    assert _sorted(series) == _expected(job="plain", instance=address, node="gpu-1")


def test_without_its_relabelings_ours_would_be_renamed_and_the_others_wrong(scraped: Scraped) -> None:
    _, series = scraped["PodMonitor without its relabelings"]
    by_comm = {labels["comm"]: labels for labels in series if "comm" in labels}
    assert by_comm["train.py"]["exported_pod"] == "train-0"
    assert by_comm["python3"]["pod"] == "hmm-exporter-x7k2p"


def test_promtool_accepts_the_plain_scrape_configuration(tmp_path: Path) -> None:
    """Of sid alone: Debian's 2.42 is built without discovery of Kubernetes."""
    file = tmp_path / "prometheus.yml"
    file.write_text(PLAIN.read_text())
    run(tool("sid", "promtool"), "check", "config", file)
