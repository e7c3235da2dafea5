# SPDX-License-Identifier: Apache-2.0
"""The fuzzers' short run: every kept input, and a few thousand new ones."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.__main__ import why_not
from tests.fuzz.target import inputs, load, names

_INPUTS = 2000


@pytest.mark.parametrize("name", names())
def test_what_has_to_hold_holds_for_every_kept_input(name: str) -> None:
    target = load(name)
    assert inputs(name)
    for path in inputs(name):
        target.try_one(path.read_bytes())


# In CI it fails, and says why.
@pytest.mark.skipif(bool(why_not()) and "CI" not in os.environ, reason=why_not())
@pytest.mark.parametrize("name", names())
def test_it_holds_for_some_thousand_inputs_that_the_fuzzer_makes_of_them(name: str, tmp_path: Path) -> None:
    arguments = ["--runs", str(_INPUTS), "--seed", "1", "--folder", str(tmp_path)]
    command = [sys.executable, "-m", "tests.fuzz", *arguments, name]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(rf"^{name} +{_INPUTS:,} inputs  cov +[1-9]", done.stdout), done.stdout
