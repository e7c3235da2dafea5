# SPDX-License-Identifier: Apache-2.0
"""What a terminal gets, and what a pipe gets."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import struct
import termios
from collections.abc import Iterator

import pytest

from hmm_exporter.report.terminal import Terminal


class Screen:
    """A pseudo-terminal of so many columns."""

    def __init__(self, columns: int) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.stream = os.fdopen(slave, "w")

    def shown(self) -> bytes:
        """All that was written, in as many pieces as the kernel likes. Nothing can be written any more."""
        self.stream.close()
        pieces = []
        with contextlib.suppress(OSError):  # EIO: that was all
            while piece := os.read(self._master, 1 << 16):
                pieces.append(piece)
        return b"".join(pieces)

    def close(self) -> None:
        self.stream.close()
        os.close(self._master)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    made = Screen(100)
    yield made
    made.close()


def test_the_width_is_the_terminals(screen: Screen) -> None:
    assert Terminal(screen.stream).width == 100


@pytest.mark.parametrize(("columns", "width"), [(0, 80), (10, 40), (400, 160)])
def test_a_width_that_makes_no_sense_is_not_taken(columns: int, width: int) -> None:
    screen = Screen(columns)
    assert Terminal(screen.stream).width == width
    screen.close()


def test_without_a_terminal_the_width_is_80_and_there_is_neither_colour_nor_a_line_that_lives() -> None:
    stream = io.StringIO()
    terminal = Terminal(stream)
    assert terminal.width == 80
    assert not terminal.style.colour
    terminal.show("0:01")
    terminal.write([terminal.style.heading("a"), "b"])
    assert stream.getvalue() == "a\nb\n"


def test_the_line_that_lives_is_erased_before_anything_else_is_written(screen: Screen) -> None:
    terminal = Terminal(screen.stream)
    terminal.show("0:01")
    terminal.show("0:02")
    terminal.write(["a"])
    terminal.write(["b"])
    assert screen.shown() == b"\r\x1b[K\x1b[2m0:01\x1b[0m\r\x1b[K\x1b[2m0:02\x1b[0m\r\x1b[Ka\r\nb\r\n"


def test_the_line_that_lives_does_not_wrap(screen: Screen) -> None:
    terminal = Terminal(screen.stream)
    terminal.show("x" * 300)
    assert screen.shown().count(b"x") == 99


@pytest.mark.parametrize(
    ("variables", "colour"),
    [({}, True), ({"NO_COLOR": ""}, True), ({"NO_COLOR": "0"}, False), ({"TERM": "dumb"}, False)],
)
def test_colour_is_for_terminals_that_have_it_and_for_users_who_want_it(
    screen: Screen, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], colour: bool
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Terminal(screen.stream).style.colour is colour
    assert Terminal(screen.stream).style.bar("@") == ("\x1b[32m@\x1b[0m" if colour else "@")
