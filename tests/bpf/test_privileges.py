# SPDX-License-Identifier: Apache-2.0
"""What the daemon has left when it serves, and what its helper keeps: read in /proc, by thread."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hmm_exporter.capabilities import CAP_SYS_ADMIN, WANTED
from tests.process import Exporter, issue_exactly

SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[Exporter]:
    with Exporter(tmp_path) as running:
        yield running


def status(path: Path) -> dict[str, str]:
    lines = (line.partition(":") for line in (path / "status").read_text().splitlines())
    return {name: value.strip() for name, _, value in lines}


def helper_of(pid: int) -> int:
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def kinds_of_fds(pid: int) -> list[str]:
    """What each fd is, but for 0, 1 and 2."""
    folder = Path(f"/proc/{pid}/fd")
    return [os.readlink(folder / each.name) for each in folder.iterdir() if int(each.name) > 2]


def test_no_thread_that_serves_has_a_capability_left(exporter: Exporter) -> None:
    threads = list(Path(f"/proc/{exporter.process.pid}/task").iterdir())
    assert len(threads) >= 2
    for thread in threads:
        its = status(thread)
        assert {name: int(its[name], 16) for name in SETS} == dict.fromkeys(SETS, 0)
        assert (its["NoNewPrivs"], its["Seccomp"]) == ("1", "2")


def test_without_them_every_figure_is_counted_and_read(exporter: Exporter) -> None:
    issued = issue_exactly(500)
    samples = exporter.scrape()
    assert samples.sum("hmm_migrations_started_total") == sum(each["count"] for each in issued["migrations"]) > 0
    assert samples.get("hmm_exporter_books_balanced") == 1
    confined = {dict(labels)["part"]: value for labels, value in samples.named("hmm_exporter_confined").items()}
    assert confined.keys() == {"no_new_privs", "capabilities", "landlock", "seccomp"}
    assert set(confined.values()) == {1} or confined.pop("landlock") == 0


def test_the_helper_keeps_what_attaches_and_no_link_and_no_connection(exporter: Exporter) -> None:
    helper = helper_of(exporter.process.pid)
    its = status(Path(f"/proc/{helper}"))
    most = sum(1 << each for each in (*WANTED, CAP_SYS_ADMIN))
    assert its["Name"] == "hmm-helper"
    assert int(its["CapPrm"], 16) & ~most == int(its["CapEff"], 16) & ~most == int(its["CapBnd"], 16) & ~most == 0
    kinds = kinds_of_fds(helper)
    assert {kind.partition(":[")[0] for kind in kinds} == {"anon_inode:bpf-map", "anon_inode:bpf-prog", "socket"}
    assert sum(kind.startswith("socket") for kind in kinds) == 1


def test_the_helper_ends_with_the_daemon_however_that_ends(tmp_path: Path) -> None:
    for number, end in enumerate((signal.SIGTERM, signal.SIGKILL)):
        folder = tmp_path / str(number)
        folder.mkdir()
        with Exporter(folder) as exporter:
            helper = helper_of(exporter.process.pid)
            exporter.stop(end)
            for _ in range(100):
                if not Path(f"/proc/{helper}").exists():
                    break
                time.sleep(0.05)
            assert not Path(f"/proc/{helper}").exists()


def test_signals_for_the_daemon_that_reach_the_helper_too_change_nothing(exporter: Exporter) -> None:
    helper = helper_of(exporter.process.pid)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(helper, number)
    time.sleep(0.2)
    assert helper_of(exporter.process.pid) == helper
