# SPDX-License-Identifier: Apache-2.0
"""What a target is, what the targets have in common, and where their inputs are kept."""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz import targets

CORPUS = Path(__file__).with_name("corpus")
"""Inputs that together reach everything that was ever reached, by target."""

LONGEST_MESSAGE = 4096
"""A message quotes little of what it complains about."""


@dataclass(frozen=True)
class Target:
    """``try_one`` raises whatever it likes for an input for which something does not hold."""

    try_one: Callable[[bytes], object]
    words: Sequence[str | bytes] = ()
    """What inputs are made of, that a fuzzer would be long in guessing."""
    most_bytes: int = 2048


def names() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(targets.__path__)]


def load(name: str) -> Target:
    target: Target = importlib.import_module(f"{targets.__name__}.{name}").TARGET
    return target


def inputs(name: str) -> list[Path]:
    """The kept inputs of a target."""
    return sorted((CORPUS / name).iterdir())


def check_message(message: str) -> None:
    """A message to a person is one line, can be printed anywhere, and is not a page long."""
    assert message, "says nothing"
    assert message.isprintable(), f"not one printable line: {message!a}"
    assert len(message) <= LONGEST_MESSAGE, f"{len(message)} characters long"


class ScratchFile:
    """A file in memory, for readers that want a path; what it contains is written anew for each input."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("fuzz")
        self.path = Path(f"/proc/self/fd/{self._fd}")

    def write(self, data: bytes) -> Path:
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, data, 0)
        return self.path
