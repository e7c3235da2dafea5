# SPDX-License-Identifier: Apache-2.0
"""What can be said of an option: what it may be, and the checks of texts.

Which options there are stands in ``config``, and in ``web.web_config`` for that file; what a text given for one
means, in ``config_value``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NewType

Text = NewType("Text", str)
"""A text for which any scalar of YAML counts, as programs in Go read it: ``X-XSS-Protection: 1``."""


@dataclass(frozen=True)
class Rule:
    """What an option is for and what it may be; for a list, what each of its items may be."""

    help: str
    low: float = 0
    high: float = 0
    never: bool = False
    """It may be 0, too, for never."""
    live: bool = False
    """A reload changes it; the others take a restart."""
    choices: tuple[str, ...] = ()
    check: Callable[[str], object] | None = None
    """Raises ValueError for a text that is not allowed."""
    allowed: str = ""
    """What *check* or *choices* allow, in words."""
    least: int = 0
    most: int = 16
    """Items in a list."""
    key: str = ""
    """How a file spells it, where Python could not."""
    secret: bool = False
    """No message may show what was given."""


def rule(help: str, **limits: Any) -> Mapping[str, Rule]:
    return {"rule": Rule(help, **limits)}


def rules_of(section: type[Any]) -> dict[str, Rule]:
    fields = dataclasses.fields(section)
    return {each.name: each.metadata["rule"] for each in fields if "rule" in each.metadata}


def check_comm(text: str) -> None:
    # TASK_COMM_LEN is 16 with the terminating 0; a longer name can match no process.
    if not 1 <= len(text.encode()) <= 15 or "\0" in text:
        raise ValueError


def check_path(text: str) -> None:
    if not text or "\0" in text:
        raise ValueError


def check_absolute(text: str) -> None:
    # The loader is started with privileges: $PATH must not choose it.
    check_path(text)
    if not text.startswith("/"):
        raise ValueError


def check_url_path(text: str) -> None:
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+/?|/", text) or text.startswith("/-/"):
        raise ValueError
