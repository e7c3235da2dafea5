# SPDX-License-Identifier: Apache-2.0
"""A site's own kustomization, with the overlay and all components that the README tells of; and its TLS, passwords and
client certificates, between a real Prometheus and the exporter's own HTTP server."""

from __future__ import annotations

import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from hmm_exporter.daemon import State
from hmm_exporter.web.server import Server
from tests.fleet.kubernetes import K8S, RELEASES, Manifest, build, objections, one
from tests.fleet.podmonitor import scrape_config
from tests.fleet.policy import breaches
from tests.fleet.prometheus import Prometheus, static
from tests.fleet.tools import ROOT, run, tool
from tests.unit.web import certificates

MOUNTED = "/etc/hmm-exporter-tls"
#: exporter-toolkit's documentation, and its tests: the password is theirs.
DAVE = "dave: $2y$10$2UXri9cIDdgeKjBo4Rlpx.U3ZLDV8X1IxKmsfOvhcM5oXQt/mLmXq"
PASSWORD = "dave123"

Serve = Callable[[Path], str]


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


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The keys of the Secret as files, and certificates of clients."""
    folder = certificates.make(tmp_path_factory.mktemp("secret"))
    certificates.issue(folder, "tls", "DNS:hmm-exporter")
    return folder


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts the exporter's endpoint under a web configuration; its address."""
    made = []

    def start(web_config: Path) -> str:
        state = State()
        state.attached(())
        server = Server(("127.0.0.1:0",), "/metrics", CollectorRegistry(), state, (), str(web_config))
        server.start()
        made.append(server)
        return server.addresses[0]

    yield start
    for each in made:
        each.close()


@pytest.fixture
def web_config(site: list[Manifest], secret: Path, tmp_path: Path) -> Path:
    """The component's own, but for where the Secret is."""
    (text,) = (each["data"]["web.yaml"] for each in site if "web.yaml" in each.get("data", {}))
    assert MOUNTED in text
    file = tmp_path / "web.yaml"
    file.write_text(text.replace(MOUNTED, str(secret)))
    return file


def test_the_parts_fit_together(site: list[Manifest]) -> None:
    assert objections(site, RELEASES) == []
    assert breaches(site) == []


def test_the_web_configuration_and_the_secret_are_where_the_exporter_looks(site: list[Manifest]) -> None:
    pod = one(site, "DaemonSet")["spec"]["template"]["spec"]
    exporter = pod["containers"][0]
    mounts = {mount["mountPath"]: mount["name"] for mount in exporter["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    (path,) = (arg.partition("=")[2] for arg in exporter["args"] if arg.startswith("--web.config.file="))
    name = volumes[mounts[str(Path(path).parent)]]["configMap"]["name"]
    assert [Path(path).name in each["data"] for each in site if each["metadata"]["name"] == name] == [True]
    assert volumes[mounts[MOUNTED]]["secret"]["secretName"] == "hmm-exporter-tls"


def test_the_kubelet_reaches_the_probes(site: list[Manifest], web_config: Path, serve: Serve) -> None:
    with web_config.open("a") as file:
        file.write(f"basic_auth_users:\n  {DAVE}\n")
    address = serve(web_config)
    exporter = one(site, "DaemonSet")["spec"]["template"]["spec"]["containers"][0]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        request = exporter[probe]["httpGet"]
        assert request["scheme"] == "HTTPS"
        assert _get(f"https://{address}{request['path']}") == 200
    assert _get(f"https://{address}/metrics") == 401


def test_prometheus_trusts_the_secrets_certificate_by_its_name_and_no_other(
    site: list[Manifest], secret: Path, web_config: Path, serve: Serve, tmp_path: Path
) -> None:
    address = serve(web_config)
    config = scrape_config(one(site, "PodMonitor"))
    authority = {"ca_file": str(secret / "ca.crt")}
    jobs = {
        name: {**config, "tls_config": tls, "relabel_configs": [], **_target(address)}
        for name, tls in {
            "as the PodMonitor says": config["tls_config"] | authority,
            "without the authority": config["tls_config"],
            "by its address": authority,
        }.items()
    }
    jobs["in the clear"] = _target(address)
    assert _up(tmp_path, jobs) == dict.fromkeys(jobs, 0) | {"as the PodMonitor says": 1}


@pytest.mark.parametrize("release", ["sid", "bookworm"])
def test_prometheus_is_let_in_by_its_password_and_its_certificate(
    secret: Path, web_config: Path, serve: Serve, tmp_path: Path, release: str
) -> None:
    mutual = web_config.with_name("mutual.yaml")
    text = f"  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: {secret}/ca.crt\n"
    mutual.write_text(f"{web_config.read_text()}{text}  client_allowed_sans: [prometheus.example]\n")
    with web_config.open("a") as file:
        file.write(f"basic_auth_users:\n  {DAVE}\n")
    run(tool("sid", "promtool"), "check", "web-config", web_config, mutual)
    trusting: dict[str, Any] = {
        "scheme": "https",
        "tls_config": {"ca_file": f"{secret}/ca.crt", "server_name": "hmm-exporter"},
    }
    passwords: dict[str, dict[str, Any]] = {
        "right": {"basic_auth": {"username": "dave", "password": PASSWORD}},
        "wrong": {"basic_auth": {"username": "dave", "password": "123dave"}},
        "another's": {"basic_auth": {"username": "alice", "password": PASSWORD}},
        "none": {},
    }
    address, other = serve(web_config), serve(mutual)
    jobs = {f"{name} password": trusting | how | _target(address) for name, how in passwords.items()}
    jobs["no certificate"] = trusting | _target(other)
    for name in ("client", "foreign", "expired", "tls"):
        pair = {"cert_file": f"{secret}/{name}.crt", "key_file": f"{secret}/{name}.key"}
        jobs[name] = {"scheme": "https", "tls_config": trusting["tls_config"] | pair} | _target(other)
    assert _up(tmp_path, jobs, release) == dict.fromkeys(jobs, 0) | {"right password": 1, "client": 1}


def test_promtool_accepts_the_example_and_the_component(web_config: Path) -> None:
    run(tool("sid", "promtool"), "check", "web-config", web_config, ROOT / "web-config.example.yaml")


def _target(address: str) -> dict[str, Any]:
    return {"static_configs": [static(address)]}


def _up(folder: Path, jobs: dict[str, dict[str, Any]], release: str = "sid") -> dict[str, float]:
    """Which of the jobs a real Prometheus could scrape."""
    configs = [{**how, "job_name": name} for name, how in jobs.items()]
    with Prometheus(folder, configs, release=release) as prometheus:
        prometheus.wait_for(f"count(up) == {len(configs)}")
        return {series.labels["job"]: series.value for series in prometheus.query("up")}


def _get(url: str) -> int:
    """As the kubelet asks: the certificate may be anybody's."""
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    try:
        with urllib.request.urlopen(url, timeout=10, context=anybody) as response:
            return int(response.status)
    except urllib.error.HTTPError as refused:
        return refused.code
