# SPDX-License-Identifier: Apache-2.0
"""Log lines: one event is one line on stderr, in logfmt or JSON, whatever it contains.

How the standard ``logging`` is set up belongs here, and how a record becomes a line; what is worth
logging belongs to whoever does it.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
import threading
import time
import traceback
from types import TracebackType
from typing import Any

_LEVELS = {
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warning",
    logging.ERROR: "error",
    logging.CRITICAL: "error",
}

# What needs no quotes in logfmt for any reader: printable ASCII but space, ", = and \.
_BARE = re.compile(r"[!#-<>-\[\]-~]+")
_NOT_A_KEY = re.compile(r"[^A-Za-z0-9_.-]")


class Logger:
    """A named logger whose fields are keyword arguments: ``log.info("attached", probe=name)``.

    A field is text, a number, a truth value or None; anything else is written as its ``str``.
    No method raises.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, message: str, /, **fields: object) -> None:
        self._log(logging.DEBUG, message, fields)

    def info(self, message: str, /, **fields: object) -> None:
        self._log(logging.INFO, message, fields)

    def warning(self, message: str, /, **fields: object) -> None:
        self._log(logging.WARNING, message, fields)

    def error(self, message: str, /, **fields: object) -> None:
        self._log(logging.ERROR, message, fields)

    def exception(self, message: str, /, **fields: object) -> None:
        """An error with the exception now being handled, its traceback in a field."""
        self._log(logging.ERROR, message, fields, exc_info=True)

    def _log(self, level: int, message: str, fields: dict[str, object], **more: Any) -> None:
        if self._logger.isEnabledFor(level):
            # As an argument, because a message may contain a per cent sign.
            self._logger.log(level, "%s", message, extra={"fields": fields}, **more)


class LogfmtFormatter(logging.Formatter):
    """``ts=2026-11-23T05:44:00.123Z level=info msg="probe attached" probe=hmm_range_fault``

    A value in quotes is a JSON string, which is what every reader of logfmt takes it for.
    """

    def format(self, record: logging.LogRecord) -> str:
        return " ".join(f"{_NOT_A_KEY.sub('_', key) or '_'}={_logfmt(value)}" for key, value in _event(record).items())


class JsonFormatter(logging.Formatter):
    """``{"ts": "2026-11-23T05:44:00.123Z", "level": "info", "msg": "probe attached", ...}``"""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_event(record), ensure_ascii=True, allow_nan=False)


class StderrHandler(logging.Handler):
    """Writes to a file descriptor, unbuffered, and never fails.

    Not through ``sys.stderr``: what its buffer could not write (disk full) would be tried again
    with every line, and once more at exit, whose status would then be 120.
    """

    def __init__(self, descriptor: int = 2) -> None:
        super().__init__()
        self._descriptor = descriptor
        self.lost = 0
        """Lines that could not be written."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
            while line:
                line = line[os.write(self._descriptor, line) :]
        except Exception:  # a full disk, a closed pipe, a field whose __str__ raises
            self.lost += 1


def setup(level: str, format: str) -> StderrHandler:
    """Send all log records of at least *level* to stderr, written in *format*; returns the handler.

    ``config.Log`` says what both may be. Warnings of Python, and exceptions that nothing caught,
    become log lines, too. May be called again.
    """
    handler = StderrHandler()
    handler.setFormatter(JsonFormatter() if format == "json" else LogfmtFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(
        args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback, args.thread
    )
    sys.unraisablehook = lambda args: _uncaught(args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback)
    return handler


def fill_standard_files() -> None:
    """Open /dev/null as each of the descriptors 0, 1 and 2 that is closed.

    Otherwise the next file opened, a BPF map or a socket, would be descriptor 2, and log lines
    would be written into it.
    """
    while (descriptor := open_nothing()) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def open_nothing() -> int:
    """A descriptor of /dev/null; where there is none, of the folder /, which can be neither read nor written."""
    try:
        return os.open(os.devnull, os.O_RDWR)
    except OSError:
        return os.open("/", os.O_RDONLY | os.O_DIRECTORY)


def _uncaught(
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
    thread: threading.Thread | None = None,
) -> None:
    if issubclass(kind, (KeyboardInterrupt, SystemExit)):
        return
    fields = {"thread": thread.name} if thread else {}
    logging.getLogger("hmm_exporter").error(
        "uncaught exception", exc_info=(kind, error, trace), extra={"fields": fields}
    )


def _event(record: logging.LogRecord) -> dict[str, str | int | float | bool | None]:
    """The record's pairs, in order; a field never takes the place of ts, level or msg."""
    event: dict[str, Any] = {
        "ts": _timestamp(record.created),
        "level": _LEVELS.get(record.levelno, record.levelname.lower()),
        "msg": _message(record),
    }
    fields = dict(getattr(record, "fields", None) or {})
    if record.exc_info and record.exc_info[1] is not None:
        fields.setdefault("error", _error(record.exc_info[1]))
        fields["traceback"] = "".join(traceback.format_exception(*record.exc_info)).rstrip()
    for key, value in fields.items():
        name = str(key)
        while name in event:
            name += "_"
        event[name] = _plain(value)
    return event


def _plain(value: object) -> str | int | float | bool | None:
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    try:
        return os.fsdecode(value) if isinstance(value, bytes) else str(value)
    except Exception as error:  # the line matters more than this field
        return f"<{type(value).__name__}: {type(error).__name__}>"


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # arguments that do not fit the format
        return f"{record.msg} {record.args!r}"


def _error(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _logfmt(value: str | int | float | bool | None) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    if _BARE.fullmatch(value):
        return value
    # JSON leaves DEL, the C1 controls, and what turns the direction of text as they are; on a
    # terminal they are as bad as the others.
    quoted = json.dumps(value, ensure_ascii=False)
    return "".join(char if char.isprintable() else json.dumps(char, ensure_ascii=True)[1:-1] for char in quoted)


def _timestamp(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"
