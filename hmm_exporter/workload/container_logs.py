# SPDX-License-Identifier: Apache-2.0
"""What pods and containers are called, by the links that kubelet keeps to their logs.

``/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log`` leads to
``/var/log/pods/NAMESPACE_POD_UID/CONTAINER/N.log`` (kubelet's pkg/kubelet/kuberuntime/legacy.go and
helpers.go). Names of links and what they lead to are read, never a log, and the API is not asked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# None of the four names can have a `_` in it. kubelet cuts the link's name at 255 bytes, and with
# it the ID: then only what it leads to says something.
_LINK = re.compile(r".+-(?P<id>[0-9a-f]{64})\.log")
_NAME = "[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?"  # what Kubernetes allows: anything else would become a label's value
_TARGET = re.compile(
    rf".*/(?P<namespace>{_NAME})_(?P<pod>{_NAME})_(?P<uid>[0-9a-f-]+)/(?P<container>{_NAME})/[0-9]+\.log"
)


@dataclass(frozen=True)
class Pod:
    """One pod's names; its containers' by their IDs."""

    namespace: str
    name: str
    containers: dict[str, str] = field(default_factory=dict)


def problem(folder: Path) -> str:
    """Why no name can be found, and what would help; empty if they can."""
    try:
        os.listdir(folder)
    except OSError as error:
        return f"{folder}: {error.strerror}: host.container_logs must name the place of the host's /var/log/containers"
    return ""


def pods(folder: Path) -> Mapping[str, Pod]:
    """All pods that have a log, by UID. Empty where the folder cannot be read."""
    found: dict[str, Pod] = {}
    try:
        links = os.listdir(folder)
    except OSError:
        return found
    for link in links:
        try:
            target = _TARGET.fullmatch(os.readlink(folder / link))
        except OSError:  # removed meanwhile, or no link
            continue
        if target:
            pod = found.setdefault(target["uid"], Pod(target["namespace"], target["pod"]))
            if name := _LINK.fullmatch(link):
                pod.containers[name["id"]] = target["container"]
    return found
