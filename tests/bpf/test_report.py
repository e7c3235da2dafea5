# SPDX-License-Identifier: Apache-2.0
"""``hmm-exporter report`` over the simulator: exact figures, COMMAND's status, and what a terminal shows."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from tests.bpf import expected, expected_moves
from tests.exposition import Labels, Samples, buckets, cumulative
from tests.process import ROOT, SIMULATOR

EVENTS = 3000
# The simulator's table of processes (world.c).
TGID = {"python3": "4101", "train.py": "4417", "ollama": "4302"}
REPORT = [sys.executable, "-m", "hmm_exporter", "--simulator", str(SIMULATOR), "report"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def report(*arguments: str, prefix: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    command = [*prefix, *REPORT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=ENVIRONMENT, cwd=ROOT)


@dataclass(frozen=True)
class Exact:
    """The document of a run over the simulator's exact mode, and the simulator's books."""

    document: dict[str, Any]
    issued: dict[str, Any]

    @property
    def samples(self) -> Samples:
        """As an exposition of the daemon's has them: without process ids."""
        values: dict[tuple[str, Labels], float] = {}
        for name, samples in self.document["metrics"].items():
            for sample in samples:
                labels = frozenset((label, its) for label, its in sample["labels"].items() if label != "pid")
                values[(name, labels)] = values.get((name, labels), 0) + sample["value"]
        for name, histograms in self.document["histograms"].items():
            for histogram in histograms:
                labels = frozenset(histogram["labels"].items())
                for le, count in zip(histogram["buckets"], itertools.accumulate(histogram["buckets"].values())):
                    values[(f"{name}_bucket", labels | {("le", le)})] = count
                values[(f"{name}_sum", labels)] = histogram["sum"]
        return Samples(values)


@pytest.fixture(scope="module")
def exact() -> Exact:
    done = report("--json", "--", str(SIMULATOR), "exact", "--events", str(EVENTS))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    return Exact(json.loads(done.stdout), json.loads(done.stderr))


def test_every_figure_of_the_document_is_what_the_simulator_issued(exact: Exact) -> None:
    samples = exact.samples
    owners = expected.owner_names(exact.issued, samples)
    compared = 0
    for module in (expected, expected_moves):
        for name, counts in module.counters(exact.issued, owners):
            assert samples.nonzero(name) == counts, name
            compared += len(counts)
        for name, sizes_by_labels in module.size_histograms(exact.issued, owners):
            exposed = buckets(samples, name)
            assert set(exposed) == set(sizes_by_labels), name
            for its, sizes in sizes_by_labels.items():
                assert list(exposed[its].values()) == cumulative(sizes.items(), expected.BYTES_BOUNDS), (name, its)
                assert samples.get(f"{name}_sum", **dict(its)) == sum(size * n for size, n in sizes.items())
    assert compared > 600


def test_processes_are_told_apart_by_their_ids(exact: Exact) -> None:
    pids: dict[str, set[str]] = {}
    for sample in exact.document["metrics"]["hmm_process_migrations_total"]:
        pids.setdefault(sample["labels"]["comm"], set()).add(sample["labels"]["pid"])
    assert {comm: pids[comm] for comm in TGID} == {comm: {pid} for comm, pid in TGID.items()}
    assert len(pids["kworker"]) > 1


def test_the_stacks_that_met_ebusy_are_whole_named_and_counted(exact: Exact) -> None:
    stacks = exact.document["ebusy_stacks"]
    busy = [event for event in exact.issued["range_faults"] if event["errno"] == "EBUSY"]
    by_caller: dict[tuple[str, str, str], int] = {}
    for stack in stacks:
        assert "exact_main" in [frame["symbol"] for frame in stack["frames"]]
        key = (stack["driver"], stack["function"], stack["frames"][0]["symbol"])
        by_caller[key] = by_caller.get(key, 0) + stack["calls"]
    issued: dict[tuple[str, str, str], int] = {}
    for event in busy:
        key = (event["driver"], event["function"], event["caller"])
        issued[key] = issued.get(key, 0) + event["count"]
    assert by_caller == issued


def test_the_document_says_what_was_run_and_how_it_was_watched(exact: Exact) -> None:
    document = exact.document
    assert document["format"] == "hmm-exporter report 1"
    assert document["final"] is True
    assert document["command"]["arguments"][:2] == [str(SIMULATOR), "exact"]
    assert document["command"]["exit_status"] == 0
    assert {probe["state"] for probe in document["probes"]} == {"attached"}
    assert document["metrics"]["hmm_exporter_books_balanced"] == [{"labels": {}, "value": 1}]
    too_long = expected.device_ranges_not_read_whole(exact.issued)
    missed = [{"labels": {"probe": "migrate_device_pages"}, "value": too_long}] if too_long else []
    assert document["metrics"]["hmm_exporter_probe_missed_total"] == missed


def test_with_an_interval_there_is_a_document_a_line_and_the_last_one_is_final() -> None:
    done = report("--json", "--interval", "1", "--duration", "2.5")
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert [document["final"] for document in documents] == [False, False, True]
    assert done.returncode == 0


def test_a_report_in_a_pipe_is_plain_text_of_80_columns_without_an_address() -> None:
    done = report("--interval", "0", "--", str(SIMULATOR), "exact", "--events", str(EVENTS))
    head, _, text = done.stdout.partition("=" * 80 + "\n")
    issued = json.loads(head[head.index("{") :])
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    assert max(map(len, text.splitlines())) <= 80
    assert not re.search(r"0x|\b[0-9a-f]{12,16}\b", text)
    started = sum(event["count"] for event in issued["migrations"] if event["class"] == "prefetch")
    assert re.search(rf"^    prefetch +{started:,} ", text, re.MULTILINE)
    ollama = [event for event in issued["range_faults"] if event["comm"] == "ollama"]
    calls = sum(event["count"] for event in ollama)
    busy = sum(event["count"] for event in ollama if event["errno"] == "EBUSY")
    assert re.search(rf"^    4302 +ollama +{calls:,} +{busy:,} ", text, re.MULTILINE)


def test_only_the_process_asked_for_is_in_it() -> None:
    done = report("--json", "--pid", TGID["ollama"], "--", str(SIMULATOR), "exact", "--events", str(EVENTS))
    document, issued = json.loads(done.stdout), json.loads(done.stderr)
    assert document["filter"] == {"pids": [int(TGID["ollama"])], "comms": []}
    found = Exact(document, issued).samples
    mine = [event for event in issued["range_faults"] if event["comm"] == "ollama"]
    assert found.sum("hmm_range_faults_total") == sum(event["count"] for event in mine)
    assert {dict(its)["comm"] for its in found.named("hmm_process_range_faults_total")} == {"ollama"}


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("--", "sh", "-c", "exit 7"), 7),
        (("--", "sh", "-c", "kill -9 $$"), 137),
        (("--duration", "0.5", "--", "sleep", "600"), 0),
        (("--duration", "0.5"), 0),
    ],
)
def test_the_exit_status_is_the_commands_unless_the_report_ended_first(arguments: tuple[str, ...], status: int) -> None:
    done = report("--interval", "0", *arguments)
    assert done.returncode == status
    assert " hmm-exporter report: " in done.stdout


def test_without_privilege_the_error_is_one_line_that_says_which_is_needed() -> None:
    done = report(prefix=["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"])
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("hmm-exporter: error: ")
    assert "CAP_BPF and CAP_PERFMON" in done.stderr


def in_terminal(columns: int, environment: Mapping[str, str], until: bytes, then: bytes) -> tuple[str, int]:
    """A report in a pseudo-terminal: when it has shown ``until``, ``then`` is typed. Its output and status."""
    pid, master = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        os.chdir(ROOT)
        os.execve(sys.executable, [*REPORT, "--interval", "0"], {**ENVIRONMENT, "TERM": "xterm", **environment})
    shown = b""
    try:
        while True:
            shown += os.read(master, 1 << 16)
            if then and until in shown:
                os.write(master, then)
                then = b""
    except OSError:  # EIO: it ended
        pass
    os.close(master)
    return shown.decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


CTRL_C = b"\x03"


def test_in_a_terminal_a_line_lives_there_are_colours_and_ctrl_c_ends_with_the_report() -> None:
    shown, status = in_terminal(100, {}, b"0:02 ", CTRL_C)
    assert status == 0
    assert "\r\x1b[K\x1b[2m0:01 all processes; Ctrl-C ends with the report\x1b[0m" in shown
    before, _, final = shown.partition("\x1b[1m" + "=" * 100)
    assert before.endswith("\r\x1b[K\r\n"), "the line that lives is erased first"
    assert " hmm-exporter report: " in final
    assert "Nothing happened." in final


def test_no_colour_is_shown_to_who_wants_none() -> None:
    shown, status = in_terminal(80, {"NO_COLOR": "1"}, b"0:00 ", CTRL_C)
    assert status == 0
    assert "\x1b[K0:00 all processes" in shown
    assert not re.search("\x1b\\[[0-9]+m", shown)


def test_ctrl_c_at_the_start_ends_without_a_report() -> None:
    shown, status = in_terminal(80, {}, b"attaching the probes ...", CTRL_C)
    assert status == 128 + signal.SIGINT
    assert "Traceback" not in shown
    assert shown.endswith("^C\r\x1b[K")
