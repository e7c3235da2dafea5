# SPDX-License-Identifier: Apache-2.0
"""A site's own kustomization, with the overlay and all components that the README tells of; and its TLS, by a real
HAProxy between a real Prometheus and the exporter's own HTTP server."""

from __future__ import annotations

import http.client
import os
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from hmm_exporter.daemon import State
from hmm_exporter.web.server import Server
from tests.fleet.kubernetes import K8S, RELEASES, Manifest, build, objections, one
from tests.fleet.podmonitor import scrape_config
from tests.fleet.policy import breaches
from tests.fleet.prometheus import Prometheus
from tests.fleet.tools import DEBIAN, run

MOUNTED = "/etc/hmm-exporter-tls"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    folder = tmp_path_factory.mktemp("site")
    kustomization = {
        "resources": [os.path.relpath(K8S / "overlays/nvidia", folder)],
        "components": [os.path.relpath(K8S / "components" / name, folder) for name in ("prometheus-operator", "tls")],
        "images": [{"name": "hmm-exporter", "newName": "registry.example/hmm-exporter"}],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return build(folder)


def test_the_parts_fit_together(site: list[Manifest]) -> None:
    assert objections(site, RELEASES) == []
    assert breaches(site) == []


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The keys of the Secret as files; the certificate is its own authority."""
    folder = tmp_path_factory.mktemp("secret")
    run(
        *(
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ),
        *("-subj", "/CN=hmm-exporter", "-addext", "subjectAltName=DNS:hmm-exporter"),
        *("-keyout", folder / "tls.key", "-out", folder / "tls.crt"),
    )
    (folder / "ca.crt").write_bytes((folder / "tls.crt").read_bytes())
    return folder


@pytest.fixture(scope="module")
def proxy(site: list[Manifest], secret: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the proxy with its own configuration, but for paths and ports, which are fixed in a pod only."""
    state = State()
    state.attached(())
    exporter = Server(("127.0.0.1:0",), "/metrics", CollectorRegistry(), state)
    exporter.start()
    spare = Server(("127.0.0.1:0",), "/metrics", CollectorRegistry(), state)
    address = spare.addresses[0]
    spare.close()
    (text,) = (each["data"]["haproxy.cfg"] for each in site if "haproxy.cfg" in each.get("data", {}))
    for ours, here in {
        MOUNTED: str(secret),
        ":10466": f":{address.rpartition(':')[2]}",
        "127.0.0.1:10467": exporter.addresses[0],
    }.items():
        assert ours in text
        text = text.replace(ours, here)
    file = tmp_path_factory.mktemp("proxy") / "haproxy.cfg"
    file.write_text(text)
    pod = one(site, "DaemonSet")["spec"]["template"]["spec"]
    (command,) = (container["command"] for container in pod["containers"] if container["name"] == "tls")
    command = [str(file) if word.endswith("/haproxy.cfg") else word for word in command]
    process = subprocess.Popen([*_haproxy(), *command[1:]], env={"POD_IP": "127.0.0.1"})
    try:
        _wait_for(f"https://{address}/-/healthy")
        yield address
    finally:
        process.terminate()
        process.wait(10)
        exporter.close()


def test_the_kubelet_reaches_the_probes_through_the_proxy(site: list[Manifest], proxy: str) -> None:
    exporter = one(site, "DaemonSet")["spec"]["template"]["spec"]["containers"][0]
    assert exporter["name"] == "hmm-exporter"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        request = exporter[probe]["httpGet"]
        assert request["scheme"] == "HTTPS"
        assert _get(f"https://{proxy}{request['path']}") == 200


def test_without_tls_nobody_is_answered(proxy: str) -> None:
    with pytest.raises(http.client.RemoteDisconnected):
        urllib.request.urlopen(f"http://{proxy}/metrics", timeout=10)


def test_prometheus_trusts_the_secrets_certificate_by_its_name_and_no_other(
    site: list[Manifest], secret: Path, proxy: str, tmp_path: Path
) -> None:
    config = scrape_config(one(site, "PodMonitor"))
    authority = {"ca_file": str(secret / "ca.crt")}
    configs = [
        {
            **config,
            "job_name": name,
            "tls_config": tls,
            "relabel_configs": [],
            "static_configs": [{"targets": [proxy]}],
        }
        for name, tls in {
            "as the PodMonitor says": config["tls_config"] | authority,
            "without the authority": config["tls_config"],
            "by its address": authority,
        }.items()
    ]
    with Prometheus(tmp_path, configs) as prometheus:
        prometheus.wait_for(f"count(up) == {len(configs)}")
        up = {series.labels["job"]: series.value for series in prometheus.query("up")}
    assert up == {"as the PodMonitor says": 1, "without the authority": 0, "by its address": 0}


def _haproxy() -> list[str | Path]:
    """That of trixie, 3.0 as the image, with the libraries of trixie, whatever this machine's are."""
    libraries = DEBIAN / "trixie/usr/lib/x86_64-linux-gnu"
    return [libraries / "ld-linux-x86-64.so.2", "--library-path", libraries, DEBIAN / "trixie/usr/sbin/haproxy"]


def _get(url: str) -> int:
    """As the kubelet asks: the certificate may be anybody's."""
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    with urllib.request.urlopen(url, timeout=10, context=anybody) as response:
        return int(response.status)


def _wait_for(url: str) -> None:
    for _ in range(100):
        try:
            _get(url)
            return
        except urllib.error.URLError:
            time.sleep(0.1)
    raise AssertionError(f"{url} is not answered")
