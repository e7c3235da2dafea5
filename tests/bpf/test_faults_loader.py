# SPDX-License-Identifier: Apache-2.0
"""A loader that crashes, lies or never ends its answer: one line, and the daemon's memory is not the loader's to fill.

Of one that is missing, is killed or hangs: test_failures.py.
"""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path

import pytest

from hmm_exporter.bpf import bounded
from tests.bpf.faults import ids, starting, the_error

# Written, not recorded; more than a pipe holds, so that the daemon has a part of it when its writer ends.
BEGUN = """printf '{"bcc": "0", "programs": {"enter": "'; head -c 100000 /dev/zero | tr '\\0' A; """


def stand_in(folder: Path, body: str) -> str:
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (BEGUN + "kill -SEGV $$", "killed by SIGSEGV while compiling"),
        (BEGUN + "kill -ABRT $$", "killed by SIGABRT while compiling"),
        ('/usr/bin/python3 "$@"; kill -ABRT $$', "killed by SIGABRT while compiling"),
        (BEGUN, "ended with status 0 and no answer"),
        ("cat >/dev/null; head -c 100000 /dev/urandom", "ended with status 0 and no answer"),
        ("echo terminate called >&2; exit 3", "ended with status 3 and no answer: terminate called"),
        ("exec cat /dev/zero", "says more than 16 MiB"),
        ("exec cat /dev/zero >&2", "says more than 16 MiB"),
        ("exec >&- 2>&-; exec sleep 600", "did not compile within 3 s"),
    ],
    ids=[
        "crashes-amid-its-answer",
        "aborts-amid-its-answer",
        "aborts-after-its-answer",
        "cuts-its-answer",
        "answers-garbage",
        "explains",
        "never-ends-its-answer",
        "never-ends-its-complaint",
        "hangs-in-silence",
    ],
)
def test_a_start_with_such_a_loader_ends_in_one_line_and_leaves_nothing(tmp_path: Path, body: str, said: str) -> None:
    before = ids()
    with starting(
        tmp_path, loader={"python": stand_in(tmp_path, body), "timeout": "3s" if "sleep" in body else "60s"}
    ) as daemon:
        assert "loader: " in the_error(daemon)
        assert said in the_error(daemon)
        assert daemon.status() == 1
        assert ids()["links"] <= before["links"]
        assert not subprocess.run(["pgrep", "--session", str(daemon.process.pid)], capture_output=True).stdout


def test_what_a_child_says_without_end_is_not_kept() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(bounded.TooMuchError):
        bounded.run(["cat", "/dev/zero"], "", 60, "/", {})
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4 * bounded.MOST >> 10


def test_what_a_child_is_told_and_says_arrives_whole() -> None:
    text = "ü\n" * 400_000  # more than pipes hold, both ways
    done = bounded.run(["sh", "-c", "tee /dev/stderr"], text, 60, "/", {"PATH": "/usr/bin:/bin"})
    assert (done.stdout, done.stderr, done.returncode) == (text, text, 0)
