# SPDX-License-Identifier: Apache-2.0
"""hadolint has nothing to say about the Dockerfile, and it says what the rest of the project says. It is built and run
in tests/lab/test_container.py."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import hmm_exporter
from hmm_exporter.capabilities import WANTED
from tests.fleet.tools import ROOT, run

DOCKERFILE = (ROOT / "Dockerfile").read_text()
HADOLINT = Path(sys.executable).with_name("hadolint")


def test_hadolint_has_nothing_to_say() -> None:
    assert run(HADOLINT, "Dockerfile").stdout == ""


@pytest.mark.parametrize(
    ("good", "bad", "rule"),
    [
        ('ENTRYPOINT ["/usr/bin/hmm-exporter"]', "ENTRYPOINT /usr/bin/hmm-exporter", "DL3025"),
        ("WORKDIR /image/usr", "RUN cd /image/usr", "DL3003"),
        ("debian:trixie-slim", "debian", "DL3006"),
        ("# hadolint ignore=DL3008\n", "", "DL3008"),
    ],
)
def test_hadolint_finds_a_mistake(good: str, bad: str, rule: str) -> None:
    assert DOCKERFILE.count(good) == 1
    done = run(HADOLINT, "-", check=False, stdin=DOCKERFILE.replace(good, bad))
    assert done.returncode == 1
    assert rule in done.stdout


def test_the_version_is_the_packages() -> None:
    assert re.findall(r"^ARG VERSION=(.*)$", DOCKERFILE, re.MULTILINE) == [hmm_exporter.__version__]


def test_the_interpreter_is_permitted_what_the_exporter_wants_and_nothing_in_effect() -> None:
    (permitted,) = re.findall(r"setcap (\S+) libexec/hmm-exporter/python3", DOCKERFILE)
    assert sorted(permitted.removesuffix("=p").split(",")) == sorted(map(str.lower, WANTED.values()))


def test_the_last_stage_has_no_shell_to_run_anything_and_a_user_who_is_not_root() -> None:
    last = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    assert last.startswith("\nFROM scratch\n")
    assert not re.search(r"^(RUN|SHELL|CMD)\b", last, re.MULTILINE)
    assert "\nUSER 65532:65532\n" in last
