# SPDX-License-Identifier: Apache-2.0
"""What the tests of a fleet share: one run of a small one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.fleet.simulated import Fleet, simulated_fleet
from tests.process import ROOT

SECONDS = 45


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two nodes that have played every scenario, in two versions of Prometheus: a minute."""
    if os.geteuid() != 0:
        reason = "the exporter attaches BPF programs to the simulator: run as root"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    subprocess.run(["make", "-s", "-C", str(ROOT / "tests/simulator")], check=True)
    with simulated_fleet(tmp_path_factory.mktemp("fleet"), SECONDS) as simulated:
        yield simulated
