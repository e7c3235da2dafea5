# SPDX-License-Identifier: Apache-2.0
"""Cgroups' paths and kubelet's links: whatever they are called, labels are what Kubernetes and Slurm allow.

An input's first line is a cgroup's path, each other one a link's name and, behind a tab, what it leads to.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from hmm_exporter.workload import container_logs
from hmm_exporter.workload.placement import placement
from hmm_exporter.workload.workloads import Workload, _workload
from tests.fuzz.target import Target

_LABEL = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_UID = re.compile(r"[0-9a-f]{8}(-?)[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{12}")

_temporary = tempfile.TemporaryDirectory()  # as long as the process
_folder = Path(_temporary.name)


def try_one(data: bytes) -> None:
    line, *lines = data.split(b"\n")
    path = os.fsdecode(line)
    where = placement(path)
    assert not where.pod_uid or _UID.fullmatch(where.pod_uid)
    assert not where.container_id or re.fullmatch("[0-9a-f]{64}", where.container_id)
    assert not where.slurm_job or re.fullmatch("[0-9]+", where.slurm_job)
    assert where.pod_uid or not where.container_id
    made = _link(lines)
    try:
        pods = container_logs.pods(_folder)
    finally:
        for link in made:
            os.unlink(link)
    for uid, pod in pods.items():
        assert re.fullmatch("[0-9a-f-]+", uid)
        for name in (pod.namespace, pod.name, *pod.containers.values()):
            assert _LABEL.fullmatch(name), name
    found = _workload(path, pods)
    assert isinstance(found, Workload)
    for label in (found.namespace, found.pod, found.container, found.slurm_job):
        assert not label or _LABEL.fullmatch(label)


def _link(lines: list[bytes]) -> list[bytes]:
    made = []
    for each in lines[:8]:
        name, _, target = each.partition(b"\t")
        link = os.path.join(os.fsencode(_folder), name)
        try:
            os.symlink(target, link)
        except (OSError, ValueError):  # no name, or no target, that a file system allows
            continue
        made.append(link)
    return made


_ID = "0123456789abcdef" * 4
_POD_UID = "11111111-2222-3333-4444-555555555555"
TARGET = Target(
    try_one,
    words=[
        *(
            "/kubepods.slice/kubepods-burstable.slice",
            "/kubepods-burstable-pod",
            ".slice",
            "/cri-containerd-",
            ".scope",
        ),
        *(_ID, _POD_UID, _POD_UID.replace("-", "_"), "/system.slice/slurmstepd.scope/job_", "/step_0", "\n", "\t"),
        *(f"vllm-0_llm_server-{_ID}.log\t", f"/var/log/pods/llm_vllm-0_{_POD_UID}/server/0.log"),
    ],
)
