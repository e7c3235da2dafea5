# SPDX-License-Identifier: Apache-2.0
"""Each version of bcc compiles everything, and what it compiled counts exactly on the simulator."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from hmm_exporter.bpf.compiler import compile_source
from hmm_exporter.bpf.plan import choose
from hmm_exporter.bpf.source import Plan, text
from hmm_exporter.catalog.probes import PROBES
from hmm_exporter.kernel.simulated import simulated_kernel
from tests.bcc.roots import RELEASES, Release, Root, ensure_root
from tests.bpf import test_exact, test_moves
from tests.bpf.exact_run import ALL_ON, Run, run_exactly
from tests.bpf.test_verifier import EVERYTHING, load_programs
from tests.process import SIMULATOR

PROGRAMS = {name for probe in PROBES for name in probe.programs}
CLAIMS = [
    claim
    for name, claim in (vars(test_exact) | vars(test_moves)).items()
    if name.startswith("test_") and callable(claim)
]


@dataclass(frozen=True)
class Loader:
    release: Release
    root: Root
    python: str


@pytest.fixture(scope="module", params=RELEASES, ids=lambda release: release.suite)
def loader(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loader:
    release: Release = request.param
    root = ensure_root(release)
    return Loader(release, root, root.python(tmp_path_factory.mktemp(release.suite)))


@pytest.fixture(scope="module")
def plan() -> Plan:
    """All probes, with all that can be switched on."""
    chosen, left_out = choose(simulated_kernel(Path(SIMULATOR)), EVERYTHING)
    assert left_out == []
    return dataclasses.replace(
        chosen,
        migration_phases=True,
        shards=8,
        tgids=tuple(range(1, 17)),
        comms=tuple(b"comm-%d" % n for n in range(16)),
    )


@pytest.fixture(scope="module")
def run(loader: Loader, tmp_path_factory: pytest.TempPathFactory) -> Run:
    configuration = ALL_ON | {"loader": {"python": loader.python}}
    return run_exactly(tmp_path_factory.mktemp("exact"), configuration)


def test_the_release_has_the_version_that_it_is_here_for(loader: Loader) -> None:
    version = tuple(map(int, loader.root.library_version.split(".")))[:2]
    print(f"{loader.release.suite} has bcc {loader.root.library_version}")
    assert version == loader.release.bcc or (loader.release.unstable and version > loader.release.bcc)


@pytest.mark.parametrize("build", ["fentry", "kprobe", "uprobe"])
def test_it_compiles_every_program(loader: Loader, plan: Plan, build: str) -> None:
    compiled = compile_source(text(plan, build), loader.python, 60)
    assert set(compiled.programs) >= PROGRAMS
    assert compiled.bcc == loader.root.library_version


def test_the_verifier_takes_what_it_compiled(loader: Loader, plan: Plan) -> None:
    assert load_programs(plan, loader.python) == len(PROGRAMS)


def test_the_exporter_says_that_it_compiled_with_it(loader: Loader, run: Run) -> None:
    (info,) = run.after.named("hmm_exporter_build_info")
    assert dict(info)["bcc"] == loader.root.library_version


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__.removeprefix("test_"))
def test_with_it(run: Run, claim: Callable[[Run], None]) -> None:
    claim(run)
