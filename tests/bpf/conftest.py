# SPDX-License-Identifier: Apache-2.0
"""What tier 2 needs of the machine. What is missing is said, not passed over."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.bpf.exact_run import Run, run_exactly
from tests.process import ROOT, SIMULATOR


@pytest.fixture(scope="session", autouse=True)
def machine() -> None:
    if os.geteuid() != 0:
        reason = "tests/bpf attach BPF programs: run them as root"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    subprocess.run(["make", "-s", "-C", str(ROOT / "tests/simulator")], check=True)
    assert SIMULATOR.exists()


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """For ``test_exact`` and ``test_moves``: it takes a minute."""
    return run_exactly(tmp_path_factory.mktemp("exact"))
