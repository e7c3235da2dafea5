# SPDX-License-Identifier: Apache-2.0
"""What the path of a cgroup says: pod, container, job.

The names that kubelet, the container runtimes and Slurm give to cgroups; text in, text out. What
a pod is called is found in ``workload.container_logs``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# kubelet's names with the cgroup driver systemd (pkg/kubelet/cm/cgroup_manager_linux.go: slices by
# quality of service, `-` in a UID written as `_`) and with cgroupfs. A static pod's UID is a hash.
_UID = r"(?P<uid>[0-9a-f]{8}([-_]?)[0-9a-f]{4}\2[0-9a-f]{4}\2[0-9a-f]{4}\2[0-9a-f]{12})"
_POD = re.compile(rf"(?:kubepods(?:-besteffort|-burstable)?-|^)pod{_UID}(?:\.slice)?(?::cri-containerd)?(?=:|$)")
# containerd (pkg/cri), CRI-O (internal/config/cgmgr) and cri-dockerd name a scope, or with cgroupfs
# a folder; kubelet and containerd of two minds leave `kubepods-....slice:cri-containerd:ID`.
_CONTAINER = re.compile(r"(?:.*:)?(?:cri-containerd-|crio-|docker-)?(?P<id>[0-9a-f]{64})(?:\.scope)?")
# Slurm's plugin cgroup/v2: /system.slice/[NODE_]slurmstepd.scope/job_ID/step_ID/...
_SLURM = re.compile(r"(?:.*_)?slurm(?:stepd\.scope|_.*)?")
_JOB = re.compile(r"job_(?P<id>[0-9]+)")


@dataclass(frozen=True)
class Placement:
    """Empty text for what a cgroup is not part of. ``pod_uid`` with dashes, where it has some."""

    pod_uid: str = ""
    container_id: str = ""
    slurm_job: str = ""


def placement(path: str) -> Placement:
    """The outermost pod, its container, and the job: a container may run a cluster of its own inside."""
    names = path.split("/")
    job = ""
    slurm = False
    for at, name in enumerate(names):
        if match := _POD.search(name):
            return Placement(match["uid"].replace("_", "-"), _container(names[at:]), job)
        slurm = slurm or _SLURM.fullmatch(name) is not None
        if slurm and not job and (match := _JOB.fullmatch(name)):
            job = match["id"]
    return Placement(slurm_job=job)


def _container(names: list[str]) -> str:
    """Of the pod's own folder, or the one below it; what is deeper is the container's business."""
    for name in names[:2]:
        if match := _CONTAINER.fullmatch(name):
            return match["id"]
    return ""
