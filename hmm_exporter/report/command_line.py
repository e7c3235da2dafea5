# SPDX-License-Identifier: Apache-2.0
"""The flags of ``hmm-exporter report``, and what they may be.

How the command line as a whole is read is ``cli``'s; what a report then does is ``report.run``'s.
"""

from __future__ import annotations

import argparse
import re
import shutil
from dataclasses import dataclass

from hmm_exporter.config import Config, ConfigError, Seconds
from hmm_exporter.config_rule import Rule
from hmm_exporter.config_value import convert, one_line, override

_SECONDS = Rule("", low=0.1, high=30 * 86400)
_INTERVAL = Rule("", low=0.1, high=30 * 86400, never=True)

FLAGS = ("--pid", "--duration", "--interval", "--json")
DESCRIPTION = """\
Watch HMM from this terminal, as hmm-snoop does: a summary at every interval, and at the end a
report with histograms, processes, devices, errors, and the kernel stacks that met EBUSY. It ends
with COMMAND, with --duration, or with Ctrl-C. COMMAND is started once all is attached, and gets
SIGTERM if the report ends before it. Not only COMMAND's events are shown, but those of all
processes; --pid is for processes that run already."""


@dataclass(frozen=True)
class Options:
    """How long, how often, in which form."""

    duration: float | None = None
    interval: float = 5.0
    """Seconds from summary to summary; 0 for none."""
    json: bool = False
    command: tuple[str, ...] = ()


def add_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--pid", action="append", metavar="PID", help="only this process; may be given several times")
    group.add_argument("--duration", metavar="S", help="end after S seconds, or 1m30s and the like")
    group.add_argument(
        "--interval", metavar="S", help="a summary every S seconds, 0 for none (default: 5, with --json 0)"
    )
    group.add_argument(
        "--json",
        action="store_true",
        help="print the report as one line of JSON, and with --interval one for each summary; what COMMAND prints"
        " goes to stderr",
    )


def given_flags(given: argparse.Namespace) -> list[str]:
    """Those of `FLAGS` that the command line has."""
    return [flag for flag in FLAGS if getattr(given, flag.removeprefix("--")) not in (None, False)]


def configure(given: argparse.Namespace, config: Config) -> Config:
    """``config`` with the flags that are options of the configuration. Raises ConfigError."""
    return override(config, "filter.tgids", given.pid, "--pid") if given.pid else config


def options(given: argparse.Namespace, command: tuple[str, ...]) -> Options:
    """Raises ConfigError."""
    if command and shutil.which(command[0]) is None:
        raise ConfigError(f"report: {one_line(command[0])} is not a command that can be run")
    # A machine that asked for a report did not ask for summaries.
    interval = "0" if given.json and given.interval is None else given.interval
    return Options(
        duration=_seconds("--duration", given.duration, _SECONDS) if given.duration is not None else None,
        interval=_seconds("--interval", interval, _INTERVAL) if interval is not None else Options.interval,
        json=given.json,
        command=command,
    )


def _seconds(flag: str, text: str, rule: Rule) -> float:
    """A bare number means seconds, as for sleep(1); the rest is as in the configuration."""
    try:
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
            return float(convert(Seconds, rule, text))
        value = float(text)
        if rule.low <= value <= rule.high or (rule.never and value == 0):
            return value
    except ValueError:
        pass
    never = ", or 0 for none" if rule.never else ""
    raise ConfigError(f"{flag}: {one_line(text)} is not allowed: seconds, or as 90s or 1h30m, from 0.1 to 30d{never}")
