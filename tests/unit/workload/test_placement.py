# SPDX-License-Identifier: Apache-2.0
"""The names that cgroups have from kubelet, container runtimes and Slurm.

The paths are written, after the sources that `workload.placement` cites.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmm_exporter.workload.placement import Placement, placement

UID = "0f5a1c52-8f0e-4d0c-9c55-3a0a1f7f2b11"
SLICED = UID.replace("-", "_")
STATIC = "8b1d1fd2c7a5c0f5e0d3b6a4c2e1f098"
ID = "3fa1" * 16
POD = Placement(UID, ID)
INNER = "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod11111111_2222_3333_4444_555555555555.slice"


@pytest.mark.parametrize(
    "path",
    [
        f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SLICED}.slice/cri-containerd-{ID}.scope",
        f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{SLICED}.slice/cri-containerd-{ID}.scope",
        f"/kubepods.slice/kubepods-pod{SLICED}.slice/cri-containerd-{ID}.scope",
        f"/kubepods/burstable/pod{UID}/{ID}",
        f"/kubepods/pod{UID}/{ID}",
        f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SLICED}.slice/crio-{ID}.scope",
        f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SLICED}.slice/crio-{ID}.scope/container",
        f"/kubepods/burstable/pod{UID}/crio-{ID}",
        f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SLICED}.slice/docker-{ID}.scope",
        f"/system.slice/containerd.service/kubepods-burstable-pod{SLICED}.slice:cri-containerd:{ID}",
        f"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice"
        f"/kubelet-kubepods-burstable-pod{SLICED}.slice/cri-containerd-{ID}.scope",
        f"/system.slice/docker-{'9' * 64}.scope/kubelet/kubepods/burstable/pod{UID}/{ID}",
        f"/kubepods/burstable/pod{UID}/{ID}/init.scope",
        f"/kubepods/burstable/pod{UID}/{ID}{INNER}/cri-containerd-{'7' * 64}.scope",
    ],
    ids=[
        "containerd-systemd-burstable", "containerd-systemd-besteffort", "containerd-systemd-guaranteed",
        "containerd-cgroupfs-burstable", "containerd-cgroupfs-guaranteed", "crio-systemd", "crio-systemd-crun",
        "crio-cgroupfs", "cri-dockerd-systemd", "two-drivers", "a-root-of-kubelet", "kind", "systemd-inside",
        "a-cluster-inside",
    ],
)  # fmt: skip
def test_a_container_of_a_pod_is_recognised(path: str) -> None:
    assert placement(path) == POD


def test_a_static_pods_uid_is_a_hash_without_dashes() -> None:
    path = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{STATIC}.slice/cri-containerd-{ID}.scope"
    assert placement(path) == Placement(STATIC, ID)
    assert placement(f"/kubepods/burstable/pod{STATIC}/{ID}") == Placement(STATIC, ID)


@pytest.mark.parametrize("path", [f"/kubepods/burstable/pod{UID}", f"/kubepods/burstable/pod{UID}/crio-conmon-{ID}"])
def test_what_is_in_a_pod_and_in_no_container_has_no_container(path: str) -> None:
    assert placement(path) == Placement(UID)


@pytest.mark.parametrize(
    "path",
    [
        "/system.slice/slurmstepd.scope/job_4217/step_0/user/task_0",
        "/system.slice/slurmstepd.scope/job_4217/step_batch/user",
        "/system.slice/gpu-node-17_slurmstepd.scope/job_4217/step_extern/user/task_special",
        "/slurm/uid_1000/job_4217/step_0",
        "/slurm_gpu-node-17/uid_1000/job_4217/step_0/task_0",
    ],
)
def test_a_job_of_slurm_is_recognised(path: str) -> None:
    assert placement(path) == Placement(slurm_job="4217")


@pytest.mark.parametrize(
    "path",
    [
        "/", "", "/init.scope", "/system.slice/ollama.service", "/user.slice/user-1000.slice/session-3.scope",
        f"/system.slice/docker-{ID}.scope", f"/machine.slice/libpod-{ID}.scope/container",
        "/kubepods.slice/kubepods-burstable.slice", "/system.slice/job_4217", "/system.slice/podman.service",
        f"/user.slice/podcast{UID}", "/system.slice/slurmd.service/job_12",
        "/slurm/uid_1000/job_\u0661", "/slurm/uid_1000/job_1\n",
    ],
)  # fmt: skip
def test_what_is_neither_is_nothing(path: str) -> None:
    assert placement(path) == Placement()


@given(st.text(alphabet="kubepods-pod0123456789abcdef_/.slicejob:~", max_size=300))
def test_any_path_is_understood_or_is_nothing(path: str) -> None:
    found = placement(path)
    assert found.pod_uid or not found.container_id
    assert all(text.isprintable() for text in (found.pod_uid, found.container_id, found.slurm_job))
