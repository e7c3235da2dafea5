# SPDX-License-Identifier: Apache-2.0
"""A new configuration for a running daemon: taken whole or not at all, and without losing an event of what stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.process import ROOT, SIMULATOR, Exporter, issue_exactly

SUCCESSFUL = "hmm_exporter_config_last_reload_successful"
TIME = "hmm_exporter_config_last_reload_success_timestamp_seconds"


class Reloadable:
    """A running exporter, and its file."""

    def __init__(self, exporter: Exporter, folder: Path) -> None:
        self.exporter = exporter
        self._file = folder / "hmm-exporter.yaml"
        self._first = yaml.safe_load(self._file.read_text())
        self._lines = 0

    def write(self, **sections: Any) -> None:
        limits = self._first["limits"] | sections.pop("limits", {})
        self._file.write_text(yaml.safe_dump(self._first | sections | {"limits": limits}))

    def spoil(self, text: str) -> None:
        self._file.write_text(text)

    def hang_up(self) -> str:
        """Send SIGHUP; the line that says what became of it."""
        self.exporter.process.send_signal(signal.SIGHUP)
        for _ in range(600):
            lines = [line for line in self.exporter.log.splitlines() if "configuration " in line and "reloaded" in line]
            if len(lines) > self._lines:
                self._lines = len(lines)
                return lines[-1]
            time.sleep(0.05)
        raise AssertionError(f"nothing became of SIGHUP:\n{self.exporter.log}")


@pytest.fixture
def reloadable(tmp_path: Path) -> Iterator[Reloadable]:
    with Exporter(tmp_path) as exporter:
        yield Reloadable(exporter, tmp_path)


def during_traffic(events: int, act: Callable[[], object]) -> dict[str, Any]:
    """What was issued while that was done again and again."""
    ended = threading.Event()
    issued: list[dict[str, Any]] = []

    def issue() -> None:
        issued.append(issue_exactly(events))
        ended.set()

    traffic = threading.Thread(target=issue)
    traffic.start()
    while not ended.is_set():
        act()
    traffic.join()
    return issued[0]


def total(issued: dict[str, Any], kind: str) -> int:
    count: int = sum(event["count"] for event in issued[kind])
    return count


def test_what_is_live_is_taken_at_once(reloadable: Reloadable) -> None:
    before = reloadable.exporter.scrape()
    assert before.get(SUCCESSFUL) == 1
    reloadable.write(limits={"series": 5000, "idle_ttl": "5m"}, log={"level": "debug", "format": "json"})
    line = reloadable.hang_up()
    assert '"changed": "log.level log.format limits.series limits.idle_ttl"' in line
    after = reloadable.exporter.scrape()
    assert after.get("hmm_exporter_series_limit") == before.get("hmm_exporter_series_limit") - 5000
    assert after.get(SUCCESSFUL) == 1
    assert after.get(TIME) > before.get(TIME)
    reloadable.exporter.scrape()
    assert '"level": "debug"' in reloadable.exporter.log


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("limits: {series: 1}", "hmm-exporter.yaml:1: limits.series: 1 is not allowed"),
        ("{", "not YAML"),
        ("no_such: 1", "unknown key"),
        ("\0", "not YAML: character U+0000"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line_and_the_old_one_stays(
    reloadable: Reloadable, text: str, said: str
) -> None:
    before = reloadable.exporter.scrape()
    reloadable.spoil(text)
    assert said in reloadable.hang_up()
    after = reloadable.exporter.scrape()
    assert after.get(SUCCESSFUL) == 0
    assert after.get(TIME) == before.get(TIME)
    assert after.get("hmm_exporter_series_limit") == before.get("hmm_exporter_series_limit")
    reloadable.write()
    assert "level=info" in reloadable.hang_up()
    assert reloadable.exporter.scrape().get(SUCCESSFUL) == 1


def test_a_file_that_is_gone_is_refused(reloadable: Reloadable, tmp_path: Path) -> None:
    (tmp_path / "hmm-exporter.yaml").unlink()
    assert "cannot be read: No such file or directory" in reloadable.hang_up()


def test_what_takes_a_restart_is_named_and_nothing_of_that_file_is_taken(reloadable: Reloadable) -> None:
    before = reloadable.exporter.scrape()
    reloadable.write(thrash_window="3s", limits={"owners": 3, "series": 5000}, filter={"comms": ["x"]})
    assert "filter.comms, limits.owners, thrash_window: a change needs a restart" in reloadable.hang_up()
    after = reloadable.exporter.scrape()
    assert after.get("hmm_exporter_series_limit") == before.get("hmm_exporter_series_limit")


def test_groups_come_and_go_and_no_event_of_the_others_is_lost(reloadable: Reloadable) -> None:
    on = True

    def toggle() -> None:
        nonlocal on
        on = not on
        reloadable.write(probes={"groups": {"huge_fault": on, "device_exclusive": on}})
        assert "level=info" in reloadable.hang_up()
        reloadable.exporter.scrape()

    issued = during_traffic(5_000, toggle)
    samples = reloadable.exporter.scrape()
    assert samples.sum("hmm_migrations_started_total") == total(issued, "migrations")
    assert samples.sum("hmm_range_faults_total") == total(issued, "range_faults")
    missed = {dict(labels)["probe"] for labels in samples.nonzero("hmm_exporter_probe_missed_total")}
    assert missed <= {"migrate_device_pages"}  # the simulator gives it more pages than are read, once
    assert samples.get("hmm_exporter_books_balanced") == 1
    assert samples.get("hmm_exporter_migrations_in_flight") == 0


def test_a_group_that_is_switched_off_is_absent_and_goes_on_where_it_was(reloadable: Reloadable) -> None:
    first = total(issue_exactly(300), "range_faults")
    reloadable.write(probes={"groups": {"range_fault": False}})
    assert "changed=probes.groups" in reloadable.hang_up()
    issue_exactly(300)
    off = reloadable.exporter.scrape()
    assert not [name for name in off.names() if name.startswith("hmm_range_fault")]
    assert off.sum("hmm_exporter_probe_info", probe="hmm_range_fault", state="disabled") == 1
    reloadable.write()
    assert "changed=probes.groups" in reloadable.hang_up()
    again = total(issue_exactly(300), "range_faults")
    assert reloadable.exporter.scrape().sum("hmm_range_faults_total") == first + again > first


def test_a_group_that_was_never_on_is_compiled_and_attached(reloadable: Reloadable) -> None:
    assert not [name for name in reloadable.exporter.scrape().names() if name.startswith("hmm_dma")]
    reloadable.write(probes={"groups": {"per_page": True}})
    assert "changed=probes.groups" in reloadable.hang_up()
    issued = issue_exactly(300)
    samples = reloadable.exporter.scrape()
    assert samples.sum("hmm_dma_maps_total") == total(issued, "dma_maps") > 0
    assert samples.sum("hmm_migrations_started_total") == total(issued, "migrations")
    assert samples.sum("hmm_device_range_migrations_total") == total(issued, "device_ranges")
    assert samples.get("hmm_exporter_books_balanced") == 1


def test_reloads_leave_no_descriptor_and_no_program_behind(reloadable: Reloadable) -> None:
    def counts() -> tuple[int, int]:
        pid = reloadable.exporter.process.pid
        (helper,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{helper}/fd"))

    def both_ways() -> None:
        for per_page in (True, False):
            reloadable.write(probes={"groups": {"per_page": per_page, "huge_fault": not per_page}})
            assert "level=info" in reloadable.hang_up()

    both_ways()
    before = counts()
    both_ways()
    both_ways()
    assert counts() == before


def test_hangups_in_quick_succession_are_each_answered_in_turn(reloadable: Reloadable) -> None:
    for _ in range(20):
        reloadable.exporter.process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert "level=info" in reloadable.hang_up()
    assert reloadable.exporter.scrape().get(SUCCESSFUL) == 1


def test_a_hangup_while_it_starts_is_kept_for_later(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"simulator": str(SIMULATOR), "web": {"listen_addresses": ["127.0.0.1:0"]}}))
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "hmm_exporter", "--config.file", file], stderr=stderr, cwd=ROOT
        )
    try:
        while " msg=listening " not in log.read_text():
            assert daemon.poll() is None
            time.sleep(0.01)
        file.write_text(file.read_text() + "limits: {series: 4000}\n")
        daemon.send_signal(signal.SIGHUP)
        for _ in range(600):
            if "changed=limits.series" in log.read_text():
                break
            time.sleep(0.05)
        text = log.read_text()
        assert text.index("msg=ready") < text.index("changed=limits.series")
    finally:
        daemon.kill()
        daemon.wait()


def test_without_its_helper_it_serves_on_and_refuses_what_only_that_could_do(reloadable: Reloadable) -> None:
    pid = reloadable.exporter.process.pid
    (helper,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(int(helper), signal.SIGKILL)
    issued = issue_exactly(300)
    reloadable.write(probes={"groups": {"per_page": True}})
    assert "the helper has ended: only a restart attaches probes again" in reloadable.hang_up()
    reloadable.write(limits={"series": 5000})
    assert "changed=limits.series" in reloadable.hang_up()
    samples = reloadable.exporter.scrape()
    assert samples.sum("hmm_migrations_started_total") == total(issued, "migrations")
    assert Path(f"/proc/{pid}/task/{pid}/children").read_text() == ""


def test_by_http_it_reloads_where_that_was_switched_on(tmp_path: Path) -> None:
    with Exporter(tmp_path, {"web": {"enable_lifecycle": True}}) as exporter:
        reloadable = Reloadable(exporter, tmp_path)
        request = urllib.request.Request(exporter.url + "/-/reload", method="POST")
        reloadable.write(limits={"series": 5000})
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.read() == b"reloaded\n"
        reloadable.write(thrash_window="3s")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=30)
        assert refused.value.code == 500
        assert "thrash_window: a change needs a restart" in refused.value.read().decode()
        assert exporter.scrape().get(SUCCESSFUL) == 0
