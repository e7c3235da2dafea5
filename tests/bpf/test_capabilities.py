# SPDX-License-Identifier: Apache-2.0
"""The whole exporter by an interpreter whose file permits it three capabilities, as in the container's image."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import prometheus_client
import pytest
import yaml

from hmm_exporter.capabilities import CAP_PERFMON, CAP_SYSLOG, WANTED
from hmm_exporter.catalog.probes import PROBES
from tests.containment import contained, permitted_interpreter
from tests.process import ROOT, SIMULATOR

MAIN = "import sys; sys.path.insert(0, {!r}); from hmm_exporter.__main__ import main; sys.exit(main())"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Of what it takes, readable to everybody, which a checkout may not be; python3 in it is the interpreter."""
    with permitted_interpreter(*WANTED) as python:
        packages = {ROOT / "hmm_exporter", Path(prometheus_client.__file__).parent, Path(yaml.__file__).parent}
        for package in packages:
            shutil.copytree(package, python.parent / package.name, ignore=shutil.ignore_patterns("__pycache__"))
        for file in SIMULATOR.parent.glob(f"{SIMULATOR.name}*"):
            shutil.copy(file, python.parent)
        subprocess.run(["chmod", "-R", "a+rX", python.parent], check=True)
        yield python.parent


def check(folder: Path, *capabilities: int) -> subprocess.CompletedProcess[str]:
    program = MAIN.format(str(folder))
    return subprocess.run(
        [folder / "python3", "-I", "-c", program, "--check", "--strict", f"--simulator={folder / SIMULATOR.name}"],
        capture_output=True,
        text=True,
        cwd="/",
        preexec_fn=contained(*capabilities, held=True, no_new_privileges=True),
    )


def test_programs_are_compiled_and_loaded_for_another_user(folder: Path) -> None:
    done = check(folder, *WANTED)
    assert done.stderr == ""
    # To attach uprobes takes CAP_SYS_ADMIN (kernel/events/core.c, perf_uprobe_event_init); tests/lab has the rest.
    *lines, verdict = done.stdout.splitlines()
    assert verdict == "probes: nothing is watched: no probe is attached"
    assert [line.split()[0] for line in lines] == [probe.name for probe in PROBES]
    for line in lines:
        assert "uprobe: perf_event_open is not permitted" in line or "uprobe: needs " in line


def test_without_cap_bpf_or_any_the_one_line_names_it(folder: Path) -> None:
    for given, missing in (
        ((CAP_PERFMON, CAP_SYSLOG), "CAP_BPF is missing"),
        ((), "CAP_BPF and CAP_PERFMON are missing"),
    ):
        done = check(folder, *given)
        assert done.returncode == 1
        assert done.stderr == (
            "hmm-exporter: error: loader: the kernel refuses to make BPF maps:"
            f" {missing}: run as root, or with CAP_BPF and CAP_PERFMON\n"
        )
