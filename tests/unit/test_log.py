# SPDX-License-Identifier: Apache-2.0
"""Log lines: one event is one line, and reading it gives back what was logged."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmm_exporter import log

_PAIR = re.compile(r'([A-Za-z0-9_.-]+)=("(?:[^"\\]|\\.)*"|[^ "=\\]*)(?: |$)')
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def read_logfmt(line: str) -> dict[str, str]:
    """A strict reader: pairs with one space between them, quoted values being JSON strings."""
    pairs, at = {}, 0
    while at < len(line):
        match = _PAIR.match(line, at)
        assert match, f"not logfmt at {at}: {line!r}"
        key, value = match.groups()
        assert key not in pairs
        pairs[key] = json.loads(value) if value.startswith('"') else value
        at = match.end()
    return pairs


READERS: dict[str, tuple[logging.Formatter, Callable[[str], dict[str, object]]]] = {
    "logfmt": (log.LogfmtFormatter(), lambda line: dict(read_logfmt(line))),
    "json": (log.JsonFormatter(), json.loads),
}
both = pytest.mark.parametrize("form", READERS)


def record(message: str, fields: object = None, **more: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"msg": message, "levelno": logging.INFO, "created": 1795412640.1239})
    made.__dict__.update(fields=fields, **more)
    return made


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger and the hooks, put back afterwards."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    logging.captureWarnings(False)


def test_a_logfmt_line_looks_like_this() -> None:
    made = record("probe attached", {"probe": "hmm_range_fault", "entries": 3, "share": 0.5, "ok": True})
    assert log.LogfmtFormatter().format(made) == (
        'ts=2026-11-23T05:44:00.123Z level=info msg="probe attached" probe=hmm_range_fault entries=3 share=0.5 ok=true'
    )


def test_a_json_line_looks_like_this() -> None:
    made = record("probe attached", {"probe": "hmm_range_fault", "entries": 3, "errno": None})
    assert log.JsonFormatter().format(made) == (
        '{"ts": "2026-11-23T05:44:00.123Z", "level": "info", "msg": "probe attached",'
        ' "probe": "hmm_range_fault", "entries": 3, "errno": null}'
    )


@both
@given(
    message=st.text(),
    fields=st.dictionaries(st.from_regex(r"[a-z][a-z0-9_.-]*", fullmatch=True), st.text()),
)
def test_reading_a_line_gives_back_what_was_logged(form: str, message: str, fields: dict[str, str]) -> None:
    formatter, read = READERS[form]
    line = formatter.format(record(message, fields))
    assert line.isprintable(), "no newline, no control byte, nothing undecodable"
    expected = {"msg": message} | {key + "_" * (key in ("ts", "level", "msg")): value for key, value in fields.items()}
    got = read(line)
    assert _TIMESTAMP.fullmatch(str(got.pop("ts")))
    assert got.pop("level") == "info"
    if len(expected) == len(fields) + 1:  # no field "msg" beside a field "msg_"
        assert got == expected
    assert got["msg"] == message


@both
@given(raw=st.binary())
def test_bytes_that_no_encoding_explains_come_back_as_they_were(form: str, raw: bytes) -> None:
    formatter, read = READERS[form]
    line = formatter.format(record("x", {"name": os.fsdecode(raw), "bytes": raw}))
    assert os.fsencode(str(read(line)["name"])) == raw
    assert os.fsencode(str(read(line)["bytes"])) == raw


@both
@given(key=st.text())
def test_no_key_breaks_a_line(form: str, key: str) -> None:
    formatter, read = READERS[form]
    got = read(formatter.format(record("x", {key: "value"})))
    assert got["msg"] == "x"
    assert "value" in got.values()


@both
def test_a_field_does_not_take_the_place_of_the_message(form: str) -> None:
    formatter, read = READERS[form]
    got = read(formatter.format(record("x", {"msg": "y", "level": "z", "ts": "t"})))
    assert (got["msg"], got["level"]) == ("x", "info")
    assert (got["msg_"], got["level_"], got["ts_"]) == ("y", "z", "t")


@both
def test_what_is_no_number_stays_readable(form: str) -> None:
    formatter, read = READERS[form]
    got = read(formatter.format(record("x", {"a": float("nan"), "b": float("inf"), "c": Path("/x")})))
    assert (got["a"], got["b"], got["c"]) == ("nan", "inf", "/x")


@both
def test_a_field_that_cannot_be_written_does_not_cost_the_line(form: str) -> None:
    class Bad:
        def __str__(self) -> str:
            raise RuntimeError

    formatter, read = READERS[form]
    assert read(formatter.format(record("x", {"a": Bad()})))["a"] == "<Bad: RuntimeError>"


@both
def test_arguments_that_do_not_fit_do_not_cost_the_line(form: str) -> None:
    formatter, read = READERS[form]
    assert read(formatter.format(record("%d of %d", args=("x",))))["msg"] == "%d of %d ('x',)"


@both
def test_a_traceback_is_a_part_of_the_line(form: str) -> None:
    formatter, read = READERS[form]
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        line = formatter.format(record("failed", exc_info=sys.exc_info()))
    assert "\n" not in line
    got = read(line)
    assert got["error"] == "ValueError: first\nsecond"
    assert str(got["traceback"]).startswith("Traceback (most recent call last):\n  File ")
    assert str(got["traceback"]).endswith("\nValueError: first\nsecond")


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (logging.DEBUG, "debug"),
        (logging.INFO, "info"),
        (logging.WARNING, "warning"),
        (logging.ERROR, "error"),
        (logging.CRITICAL, "error"),
    ],
)
def test_levels_are_those_of_the_configuration(number: int, name: str) -> None:
    made = record("x")
    made.levelno = number
    assert READERS["json"][1](log.JsonFormatter().format(made))["level"] == name


def test_the_helper_and_the_standard_logger_write_the_same(
    root: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    log.setup("info", "logfmt")
    log.Logger("hmm_exporter.test").info("100 % done", probe="x")
    logging.getLogger("hmm_exporter.test").info("100 %% done", extra={"fields": {"probe": "x"}})
    logging.getLogger("hmm_exporter.test").info("%d %% done", 100, extra={"fields": {"probe": "x"}})
    lines = [line.partition(" ")[2] for line in capfd.readouterr().err.splitlines()]
    assert lines[0] == 'level=info msg="100 % done" probe=x'
    assert lines[1] == 'level=info msg="100 %% done" probe=x'
    assert lines[2] == lines[0]


def test_lines_below_the_level_are_left_out(root: logging.Logger, capfd: pytest.CaptureFixture[str]) -> None:
    log.setup("warning", "logfmt")
    logger = log.Logger("hmm_exporter.test")
    logger.debug("a")
    logger.info("b")
    logger.warning("c")
    logger.error("d")
    assert [read_logfmt(x)["msg"] for x in capfd.readouterr().err.splitlines()] == ["c", "d"]


def test_setting_up_again_does_not_double_the_lines(root: logging.Logger, capfd: pytest.CaptureFixture[str]) -> None:
    log.setup("info", "logfmt")
    log.setup("info", "json")
    log.Logger("hmm_exporter.test").info("x")
    (line,) = capfd.readouterr().err.splitlines()
    assert json.loads(line)["msg"] == "x"


def test_an_exception_in_a_thread_is_one_line(root: logging.Logger, capfd: pytest.CaptureFixture[str]) -> None:
    log.setup("info", "json")

    def fail() -> None:
        raise ValueError("bad")

    thread = threading.Thread(target=fail, name="worker")
    thread.start()
    thread.join()
    (line,) = capfd.readouterr().err.splitlines()
    got = json.loads(line)
    assert (got["msg"], got["error"]) == ("uncaught exception", "ValueError: bad")
    assert got["thread"] == "worker"


def test_a_warning_of_python_is_one_line(root: logging.Logger, capfd: pytest.CaptureFixture[str]) -> None:
    log.setup("info", "json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old\nand bad", stacklevel=1)
    (line,) = capfd.readouterr().err.splitlines()
    assert "old\nand bad" in json.loads(line)["msg"]


def run(program: str, redirect: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run *program* in a shell with *redirect*."""
    command = ["sh", "-c", f'exec "$0" -c "$1" {redirect}', sys.executable, program]
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    return subprocess.run(command, cwd=cwd, env={"PYTHONPATH": paths}, capture_output=True, text=True, check=False)


LOG_AND_GO_ON = """
from hmm_exporter import log
handler = log.setup("info", "logfmt")
logger = log.Logger("x")
for _ in range(3):
    logger.info("x")
print("still here,", handler.lost, "lost")
"""


def test_a_full_disk_does_not_kill_the_process_nor_change_its_status(tmp_path: Path) -> None:
    done = run(LOG_AND_GO_ON, "2>/dev/full", tmp_path)
    assert (done.returncode, done.stdout) == (0, "still here, 3 lost\n")


def test_a_closed_stderr_does_not_kill_the_process(tmp_path: Path) -> None:
    done = run(LOG_AND_GO_ON, "2>&-", tmp_path)
    assert (done.returncode, done.stdout) == (0, "still here, 3 lost\n")


def test_a_reader_of_stderr_that_has_gone_does_not_kill_the_process(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        done = subprocess.run(
            [sys.executable, "-c", LOG_AND_GO_ON],
            stdout=subprocess.PIPE,
            stderr=write,
            env={"PYTHONPATH": paths},
            text=True,
            check=False,
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stdout) == (0, "still here, 3 lost\n")


def test_log_lines_never_go_into_a_file_that_took_the_place_of_stderr(tmp_path: Path) -> None:
    program = """
import os
from hmm_exporter import log
log.fill_standard_files()
victim = os.open("victim", os.O_RDWR | os.O_CREAT)
log.setup("info", "logfmt")
log.Logger("x").error("x")
os.write(victim, str(victim).encode())
"""
    assert run(program, "0<&- 1>&- 2>&-", tmp_path).returncode == 0
    assert int((tmp_path / "victim").read_text()) > 2


def test_lines_of_many_threads_are_not_mixed(root: logging.Logger, capfd: pytest.CaptureFixture[str]) -> None:
    log.setup("info", "json")

    def talk(name: str) -> None:
        for number in range(50):
            log.Logger("x").info(name * 200, number=number)

    threads = [threading.Thread(target=talk, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert len(lines) == 200
    assert all(len(set(line["msg"])) == 1 for line in lines)
