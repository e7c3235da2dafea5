# SPDX-License-Identifier: Apache-2.0
"""What a person reads: byte for byte for a written job, and no line wider than the page for any figures."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmm_exporter.report.pages import Subject, report, start, summary
from hmm_exporter.report.snapshot import Snapshot, snapshot
from hmm_exporter.report.stacks import Stack
from hmm_exporter.report.terminal import Style
from hmm_exporter.report.text import Page
from tests.unit.report.figures import LACKING, PLAIN, STACKS, SUBJECT, a_job, counter, everything

HERE = Path(__file__).parent
JOB = replace(
    SUBJECT,
    pids=(4302, 4417),
    outcomes=(*SUBJECT.outcomes, LACKING),
    command=("./train.py", "--epochs", "3"),
    command_pid=4417,
)
NOTHING = snapshot([counter("hmm_migrations_started")])
ESCAPES = re.compile("\x1b\\[[0-9]+m")


def text(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def test_a_report_reads_byte_for_byte_as_written() -> None:
    assert text(report(a_job(), STACKS, 75.25, 0, JOB, PLAIN)) == (HERE / "report.txt").read_text()


def test_a_summary_reads_byte_for_byte_as_written() -> None:
    assert text(summary(a_job(), NOTHING, 5.0, 10.0, JOB, PLAIN)) == (HERE / "summary.txt").read_text()


def test_a_quiet_interval_is_one_line() -> None:
    assert summary(a_job(), a_job(), 5.0, 65.0, SUBJECT, PLAIN) == [
        "t = 1.08 min: nothing in the last 5 s, all processes"
    ]


def test_a_summary_tells_what_happened_in_its_interval_and_what_did_since_the_start() -> None:
    earlier = snapshot([counter("hmm_migrations_started", ({"class": "evict"}, 5000))])
    later = snapshot([counter("hmm_migrations_started", ({"class": "evict"}, 5003))])
    lines = summary(later, earlier, 5.0, 10.0, SUBJECT, PLAIN)
    assert [line.split() for line in lines if line.startswith("    evict")] == [["evict", "3", *"-----"]]
    assert "  since the start: 5,003 migrations; 0 hmm_range_fault, 0 of them EBUSY" in lines


def test_a_report_of_nothing_says_so() -> None:
    lines = report(NOTHING, (), 3.0, None, SUBJECT, PLAIN)
    assert "  Nothing happened." in lines
    assert "  Nothing was missed: no event was skipped, and each has a row of its own." in lines
    assert "  Watched: 2 of 2 probes." in lines


def test_books_that_do_not_balance_are_no_secret() -> None:
    unbalanced = Snapshot({"hmm_exporter_books_balanced": {}}, {})
    assert "do not balance" in text(report(unbalanced, (), 1.0, None, SUBJECT, PLAIN))
    assert "do not balance" not in text(report(a_job(), (), 1.0, None, SUBJECT, PLAIN))


@pytest.mark.parametrize(
    ("pids", "comms", "who"),
    [
        ((), (), "all processes"),
        ((7,), (), "process 7"),
        ((7, 8), (), "processes 7 and 8"),
        ((), ("a", "b"), "processes named a or b"),
        ((7,), ("a",), "process 7 named a"),
    ],
)
def test_the_head_says_who_is_watched(pids: tuple[int, ...], comms: tuple[str, ...], who: str) -> None:
    subject = replace(SUBJECT, pids=pids, comms=comms)
    assert report(NOTHING, (), 1.0, None, subject, PLAIN)[2] == f" hmm-exporter report: 1 s, {who}"
    assert start(subject, 0, PLAIN) == [f"hmm-exporter: watching {who}; Ctrl-C ends with the report"]


@given(st.integers(40, 160), st.integers(0, 1 << 62), st.booleans(), st.text(max_size=200))
def test_no_line_is_wider_than_the_page(width: int, value: int, colour: bool, name: str) -> None:
    page = Page(width, Style(colour))
    frames = tuple(replace(frame, name=frame.name + name) for frame in STACKS[0].frames)
    stacks = (*STACKS, Stack(name, name, value, frames))
    subject: Subject = replace(JOB, command=(name,))
    odd = snapshot([counter("hmm_migration_moved_bytes", ({"direction": "host_to_host", "device": name}, value))])
    for now in (everything(value), a_job(), odd):
        lines = report(now, stacks, 1e6, 0, subject, page) + summary(now, NOTHING, 5.0, 1e6, subject, page)
        for line in lines + start(subject, 5.0, page):
            assert len(ESCAPES.sub("", line)) <= width
            assert ESCAPES.sub("", line).isprintable()


def test_a_histogram_uses_what_a_wider_terminal_gives() -> None:
    assert max(map(len, report(a_job(), (), 1.0, 0, JOB, Page(100, Style())))) == 100


def test_colour_adds_escapes_and_changes_nothing_else() -> None:
    coloured = text(report(a_job(), STACKS, 75.25, 0, JOB, Page(80, Style(True))))
    assert "\x1b[" in coloured
    assert ESCAPES.sub("", coloured) == (HERE / "report.txt").read_text()
