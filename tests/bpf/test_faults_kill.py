# SPDX-License-Identifier: Apache-2.0
"""Whatever is killed, whenever: nothing stays in the kernel, no process stays behind, and the next start is clean.

Proved with the kernel's own lists of programs, maps and links. Of the loader alone, and of one that serves:
test_failures.py; of the helper alone: test_reload.py.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.bpf.faults import (
    Starting,
    check_totals,
    children_of,
    command,
    ended,
    held_by,
    ids,
    remain,
    scrape,
    starting,
    total,
    within,
)
from tests.process import SIMULATOR, issue_exactly

ATTACHED_FDS = 20


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """Other daemons may run on this machine: theirs are what other processes hold in the end."""
    before = ids()
    yield
    new = {kind: now - before[kind] for kind, now in ids().items()}
    others = [held_by(int(each.name)) for each in Path("/proc").iterdir() if each.name.isdigit()]
    assert not any(remain({kind: new[kind].difference(*(each[kind] for each in others)) for kind in new}).values())


def compiles(daemon: Starting) -> bool:
    return any("loader.py" in Path(f"/proc/{child}/cmdline").read_text() for child in children_of(daemon.process.pid))


def between_load_and_attach(daemon: Starting) -> bool:
    return bool(held_by(daemon.process.pid)["programs"])


def amid_attaching(daemon: Starting) -> bool:
    return len(held_by(daemon.process.pid)["programs"]) >= ATTACHED_FDS


MOMENTS = [
    pytest.param(lambda daemon: "listening" in daemon.log, id="listening"),
    pytest.param(compiles, id="the-loader-compiles"),
    pytest.param(between_load_and_attach, id="the-first-program-is-loaded"),
    pytest.param(amid_attaching, id="half-is-attached"),
]


@pytest.mark.parametrize("moment", MOMENTS)
def test_sigkill_at_any_moment_of_the_start_takes_everything_with_it(tmp_path: Path, moment) -> None:  # type: ignore[no-untyped-def]
    with starting(tmp_path) as daemon:

        def reached() -> bool:
            try:
                return bool(moment(daemon))
            except (FileNotFoundError, ProcessLookupError):  # a child that has just ended
                return False

        assert within(60, reached), daemon.log
        pid = daemon.process.pid
        family = children_of(pid)
        os.kill(pid, signal.SIGKILL)
        daemon.status()
        assert within(30, lambda: all(ended(child) for child in family))


def reload_and_wait_a_moment(daemon: Starting, folder: Path, seed: int) -> int:
    """The helper's pid, at a moment of a reload that compiles, attaches and detaches; which one, the seed says."""
    daemon.url()
    (helper,) = children_of(daemon.process.pid)
    file = folder / "hmm-exporter.yaml"
    groups = {"per_page": True, "huge_fault": False}
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"probes": {"groups": groups}}))
    os.kill(daemon.process.pid, signal.SIGHUP)
    time.sleep(random.Random(seed).uniform(0, 1.5))  # a compilation takes one, so that any moment may be met
    return helper


@pytest.mark.parametrize(("number", "seed"), [(signal.SIGKILL, 1), (signal.SIGSEGV, 2)])
def test_a_daemon_that_is_killed_while_it_reloads_and_sweeps_takes_its_helper_with_it(
    tmp_path: Path, number: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")  # it sweeps all the time
    with starting(tmp_path) as daemon:
        helper = reload_and_wait_a_moment(daemon, tmp_path, seed)
        family = [helper, *children_of(helper)]
        os.kill(daemon.process.pid, number)
        daemon.status()
        assert within(30, lambda: all(ended(each) for each in family))


def test_after_all_that_the_next_start_is_clean(tmp_path: Path) -> None:
    with starting(tmp_path) as daemon:
        url = daemon.url()
        os.kill(daemon.process.pid, signal.SIGKILL)
        daemon.status()
    port = url.rpartition(":")[2]
    with starting(tmp_path, web={"listen_addresses": [f"127.0.0.1:{port}"]}) as daemon:
        url = daemon.url()
        issued = issue_exactly(300)
        check_totals(scrape(url), issued)


@pytest.mark.parametrize("seed", [4, 5])
def test_a_helper_that_is_killed_amid_a_reload_leaves_it_refused_or_done_and_the_rest_counted(
    tmp_path: Path, seed: int
) -> None:
    with starting(tmp_path) as daemon:
        helper = reload_and_wait_a_moment(daemon, tmp_path, seed)
        family = [helper, *children_of(helper)]
        os.kill(helper, signal.SIGKILL)
        assert within(30, lambda: all(ended(each) for each in family))
        assert daemon.said("configuration "), "refused, or reloaded"
        issued = issue_exactly(300)
        samples = scrape(daemon.url())
        check_totals(samples, issued)
        refused = "configuration not reloaded" in daemon.log
        assert samples.get("hmm_exporter_config_last_reload_successful") == (not refused)
        # Killed between the old programs and the new ones, it leaves their probes detached: that is told, too.
        lacking = samples.sum("hmm_exporter_probe_info", state="error")
        assert (lacking > 0) == ("probe not attached" in daemon.log)
        daemon.process.terminate()
        assert daemon.status() == 0


@pytest.mark.parametrize("said", [" msg=listening ", " msg=ready "])
def test_signals_in_quick_succession_are_one_stop(tmp_path: Path, said: str) -> None:
    with starting(tmp_path) as daemon:
        assert daemon.said(said)
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGTERM):
            os.kill(daemon.process.pid, number)
        assert daemon.status() == 0
        assert daemon.log.count("msg=stopping") == 1
        assert "level=error" not in daemon.log


def test_signals_that_ask_for_nothing_do_not_disturb_the_start(tmp_path: Path) -> None:
    with starting(tmp_path) as daemon:
        assert daemon.said(" msg=listening ")
        while " msg=ready " not in daemon.log:
            assert daemon.process.poll() is None, daemon.log
            for number in (signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD, signal.SIGWINCH, signal.SIGCONT):
                os.kill(daemon.process.pid, number)
            time.sleep(0.02)
        issued = issue_exactly(300)
        check_totals(scrape(daemon.url()), issued)
        assert "level=error" not in daemon.log


def test_what_happens_while_it_is_suspended_is_counted(tmp_path: Path) -> None:
    with starting(tmp_path) as daemon:
        url = daemon.url()
        first = issue_exactly(300)
        os.kill(daemon.process.pid, signal.SIGSTOP)
        second = issue_exactly(1000)
        os.kill(daemon.process.pid, signal.SIGCONT)
        samples = scrape(url)
        check_totals(samples, first, second)
        assert samples.get("hmm_exporter_residency_misses_total") == sum(
            total(each, "returns", result="unknown") for each in (first, second)
        )


def test_a_program_that_is_replaced_is_watched_no_more_and_what_it_did_stays_counted(tmp_path: Path) -> None:
    program = tmp_path / "hmm-simulator"
    for suffix in ("", ".btf", ".kallsyms", ".iomem"):
        subprocess.run(["cp", f"{SIMULATOR}{suffix}", f"{program}{suffix}"], check=True)
    with Starting(command(tmp_path, {"simulator": str(program)}), tmp_path / "log") as daemon:
        url = daemon.url()
        issued = issue_exactly(300, program=program)
        # A new file of the same name, as an upgrade leaves it: uprobes are on the old one (its inode).
        subprocess.run(["install", "-m", "755", SIMULATOR, f"{program}.new"], check=True)
        Path(f"{program}.new").rename(program)
        issue_exactly(300, program=program)
        check_totals(scrape(url), issued)
        daemon.process.terminate()
        assert daemon.status() == 0
