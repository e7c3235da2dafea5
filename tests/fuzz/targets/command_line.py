# SPDX-License-Identifier: Apache-2.0
"""The command line: any arguments are a configuration that keeps every rule, or an error of one line.

An input's arguments are separated by NUL, as in /proc/PID/cmdline.
"""

from __future__ import annotations

import contextlib
import io
import os

from hmm_exporter import cli
from hmm_exporter.config import ConfigError
from hmm_exporter.config_value import options
from hmm_exporter.report import command_line
from tests.fuzz.target import Target, check_message
from tests.fuzz.targets.config_file import check_section


def try_one(data: bytes) -> None:
    arguments = [os.fsdecode(each) for each in data.split(b"\0")]
    if any(each.startswith("--config.file") for each in arguments):
        return  # what files say is config_file's
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            given, command = cli._parse(arguments)
        config = cli._configure(given)
        if given.subcommand:
            config = command_line.configure(given, config)
            command_line.options(given, command)
    except SystemExit as done:  # --help and --version
        if done.code:
            raise
    except (cli._UsageError, ConfigError) as error:
        check_message(cli._one_line(str(error)))
    else:
        check_section(config)


TARGET = Target(
    try_one,
    words=[
        *(flag for flag, _, _ in cli._FLAGS),
        *command_line.FLAGS,
        *dict.fromkeys(choice for option in options() for choice in option.rule.choices),
        *("--check", "--strict", "--version", "--help", "-h", "report", "--", "=", "\0", ":10466", "[::1]:1", "1h"),
    ],
)
