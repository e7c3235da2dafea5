# SPDX-License-Identifier: Apache-2.0
"""Manifests as kustomize builds them, and what those say of them that know Kubernetes' and the operator's objects.

Belongs here: asking the tools. Does not belong here: what this project demands of its manifests beyond that, which is
``policy``'s.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.fleet.tools import DEBIAN, ROOT, run, tool

K8S = ROOT / "deploy/k8s"
#: As `make test-fleet` takes them from npm.
MODELS = DEBIAN.parent / "kubernetes-models"
#: The newest that kubernetes-validate knows, and the oldest one.
RELEASES = ("1.37", "1.25")

Manifest = dict[str, Any]


def build(folder: Path) -> list[Manifest]:
    """What `kustomize build` makes of a folder: what `kubectl apply -k` sends."""
    return list(yaml.safe_load_all(run(tool("sid", "kustomize"), "build", folder).stdout))


def one(manifests: Sequence[Manifest], kind: str) -> Manifest:
    """The only one of its kind."""
    (found,) = (manifest for manifest in manifests if manifest["kind"] == kind)
    return found


def objections(manifests: Sequence[Manifest], releases: Sequence[str] = RELEASES[:1]) -> list[str]:
    """What the tools have against the manifests, a line each."""
    return [line for release in releases for line in _kubernetes_validate(manifests, release)] + _models(manifests)


def _kubernetes_validate(manifests: Sequence[Manifest], release: str) -> Iterator[str]:
    """Fields and types, of Kubernetes' own objects."""
    program = Path(sys.executable).parent / "kubernetes-validate"
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump_all(manifests, file)
        file.flush()
        said = run(program, "--strict", "--kubernetes-version", release, file.name, check=False).stdout
    for line in said.splitlines():
        ours = "monitoring.coreos.com" in line  # of which it knows no schema; _models does
        if not line.startswith("INFO") and not (line.startswith("WARN") and ours):
            yield line


def _models(manifests: Sequence[Manifest]) -> list[str]:
    """Enumerations, durations and quantities, of all; fields, of the operator's."""
    script = ROOT / "tests/fleet/kubernetes_models.mjs"
    return run("node", script, MODELS, stdin=json.dumps(manifests)).stdout.splitlines()
