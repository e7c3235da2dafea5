# SPDX-License-Identifier: Apache-2.0
"""``--check``: a line for each probe, and an exit status that a script can use."""

from __future__ import annotations

from pathlib import Path

from hmm_exporter.catalog.probes import PROBES
from tests.bpf.test_failures import run, simulated


def test_check_prints_a_line_for_each_probe_and_how_it_attached(tmp_path: Path) -> None:
    done = run(tmp_path, simulated(), ["--check"])
    assert done.returncode == 0
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [probe.name for probe in PROBES]
    for line, probe in zip(lines, PROBES):
        assert line.split()[1:] == ["attached", "uprobe", "on", probe.functions[0]]


def test_strict_is_content_when_all_that_the_kernel_could_have_is_attached(tmp_path: Path) -> None:
    assert run(tmp_path, simulated(), ["--check", "--strict"]).returncode == 0
    excluded = simulated(probes={"exclude": ["hmm_range_fault"]})
    done = run(tmp_path, excluded, ["--check", "--strict"])
    assert done.returncode == 0
    assert "hmm_range_fault                        disabled  named in probes.exclude" in done.stdout


def test_strict_fails_when_a_probe_that_the_kernel_has_is_not_attached(tmp_path: Path) -> None:
    # kprobes on a machine that has none, or that forbids them; where they work, there is nothing to fail.
    settings = {"probes": {"attach": "kprobe"}}
    states = [line.split()[1] for line in run(tmp_path, settings, ["--check"]).stdout.splitlines()]
    strict = run(tmp_path, settings, ["--check", "--strict"])
    assert strict.returncode == int(bool({"error", "denied"} & set(states)))
