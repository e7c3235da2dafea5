# SPDX-License-Identifier: Apache-2.0
"""Names of pods and containers by the links to their logs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hmm_exporter.workload.container_logs import Pod, pods, problem
from tests.host_files import LLAMA, TRAINERS, HostFiles


def test_a_link_names_pod_and_container(tmp_path: Path) -> None:
    files = HostFiles(tmp_path)
    files.link(LLAMA)
    assert pods(files.container_logs) == {LLAMA.uid: Pod("inference", LLAMA.pod, {LLAMA.id: "server"})}


def test_containers_of_one_pod_are_told_apart_a_restarted_one_too(tmp_path: Path) -> None:
    files = HostFiles(tmp_path)
    sidecar = replace(LLAMA, name="istio-proxy", id="c3" * 32)
    restarted = replace(LLAMA, id="d4" * 32)
    for container in (LLAMA, sidecar, restarted, TRAINERS[0]):
        files.link(container)
    found = pods(files.container_logs)
    assert found[LLAMA.uid].containers == {LLAMA.id: "server", sidecar.id: "istio-proxy", restarted.id: "server"}
    assert found.keys() == {LLAMA.uid, TRAINERS[0].uid}


def test_a_link_whose_name_kubelet_has_cut_still_names_the_pod(tmp_path: Path) -> None:
    files = HostFiles(tmp_path)
    files.link(replace(LLAMA, pod="p" * 240))
    assert pods(files.container_logs) == {LLAMA.uid: Pod("inference", "p" * 240)}


def test_what_is_no_link_of_kubelets_is_passed_over(tmp_path: Path) -> None:
    files = HostFiles(tmp_path)
    (files.container_logs / "notes.log").write_text("")
    (files.container_logs / "elsewhere.log").symlink_to("/var/log/syslog")
    (files.container_logs / "folder").mkdir()
    assert pods(files.container_logs) == {}


def test_no_log_is_opened(tmp_path: Path) -> None:
    """The links lead nowhere: what they lead to is read off, not followed."""
    files = HostFiles(tmp_path)
    files.link(LLAMA)
    (link,) = files.container_logs.iterdir()
    assert link.is_symlink()
    assert not link.exists()
    assert pods(files.container_logs)


def test_a_folder_that_is_not_there_is_a_problem_and_no_error(tmp_path: Path) -> None:
    assert pods(tmp_path / "nowhere") == {}
    assert problem(tmp_path / "nowhere").startswith(
        f"{tmp_path}/nowhere: No such file or directory: host.container_logs"
    )
    assert problem(tmp_path) == ""


@pytest.mark.parametrize(
    "target",
    [
        f"/var/log/pods/inference_llama\n_{LLAMA.uid}/server/0.log",
        f"/var/log/pods/inf\udcffrence_llama_{LLAMA.uid}/server/0.log",
        f"/var/log/pods/inference_llama_{LLAMA.uid}/ser ver/0.log",
        f"/var/log/pods/inference_llama_{LLAMA.uid}/server/\u0661.log",
        f"/var/log/pods/inference_llama_{LLAMA.uid}/server/0.log\n",
        "/var/log/pods/inference_llama_../server/0.log",
    ],
)
def test_a_name_that_kubernetes_would_not_allow_becomes_no_label(tmp_path: Path, target: str) -> None:
    """Found by fuzzing: a byte that is no UTF-8 would have failed every scrape."""
    files = HostFiles(tmp_path)
    (files.container_logs / f"llama_inference_server-{LLAMA.id}.log").symlink_to(target)
    assert pods(files.container_logs) == {}
