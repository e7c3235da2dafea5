# SPDX-License-Identifier: Apache-2.0
"""What a report is written to: how wide it is, whether it shows colours, and the line that lives.

What is written belongs elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TextIO

NO_TERMINAL_WIDTH = 80
_NARROWEST, _WIDEST = 40, 160
_ERASE = "\r\x1b[K"


@dataclass(frozen=True)
class Style:
    """Escape sequences around a text, where colours are wanted."""

    colour: bool = False

    def heading(self, text: str) -> str:
        return self._in(text, "1")

    def bar(self, text: str) -> str:
        return self._in(text, "32")

    def faint(self, text: str) -> str:
        return self._in(text, "2")

    def warning(self, text: str) -> str:
        return self._in(text, "33")

    def _in(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and text else text


class Terminal:
    """stdout, a terminal or not."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_one = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._alive = False
        # https://no-color.org: whatever it is set to, unless to nothing.
        self.style = Style(self._is_one and not os.environ.get("NO_COLOR"))

    @property
    def width(self) -> int:
        """Columns, as of now: terminals are resized."""
        if self._stream.isatty():
            columns = os.get_terminal_size(self._stream.fileno()).columns
            if columns:
                return min(max(columns, _NARROWEST), _WIDEST)
        return NO_TERMINAL_WIDTH

    def show(self, text: str) -> None:
        """The line that lives, in place of its last state; nothing where there is no terminal."""
        if self._is_one:
            self._alive = True  # at first: a Ctrl-C may come as soon as it is seen
            # One short of the width: a terminal that wraps there would begin a new line.
            self._stream.write(_ERASE + self.style.faint(text[: self.width - 1]))
            self._stream.flush()

    def write(self, lines: Iterable[str]) -> None:
        self.erase()
        self._stream.writelines(f"{line}\n" for line in lines)
        self._stream.flush()

    def erase(self) -> None:
        if self._alive:
            self._stream.write(_ERASE)
            self._stream.flush()
            self._alive = False
