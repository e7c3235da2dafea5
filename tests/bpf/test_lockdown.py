# SPDX-License-Identifier: Apache-2.0
"""The verifier is asked what securityfs does not say. Of a kernel that refuses: tests/lab/test_lockdown.py."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from hmm_exporter.bpf import lockdown
from hmm_exporter.kernel import features
from tests.process import ROOT
from tests.unit.bpf import kernels


def test_a_kernel_that_lets_programs_read_is_left_as_it_is() -> None:
    if features.lockdown() == "confidentiality":
        pytest.skip("this machine's lockdown is confidentiality")
    for known in ("unknown", "none", "integrity", "confidentiality"):
        kernel = replace(kernels.kernel(), lockdown=known)
        assert lockdown.seen(kernel) == kernel


def test_who_may_load_nothing_learns_nothing() -> None:
    script = (
        "from dataclasses import replace; from hmm_exporter.bpf import lockdown; from tests.unit.bpf import kernels;"
        "print(lockdown.seen(replace(kernels.kernel(), lockdown='unknown')).lockdown)"
    )
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", script]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "unknown\n"
