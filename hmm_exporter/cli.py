# SPDX-License-Identifier: Apache-2.0
"""The command ``hmm-exporter``: flags, exit status, and what a person reads when it goes wrong.

What the flags set is ``config``'s to check; what happens then is ``daemon``'s work.

Errors on stderr: until the configuration is known, and of ``--check``, which is a command for
people, as ``hmm-exporter: error: ...``; of the daemon as a log line in the configured format.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.metadata
import os
import platform
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from hmm_exporter import __version__, capabilities, log
from hmm_exporter.config import Config, ConfigError, Web
from hmm_exporter.config_file import load
from hmm_exporter.config_value import options, override
from hmm_exporter.errors import StartError
from hmm_exporter.report import command_line

PROG = "hmm-exporter"

_MOST_SHOWN = 64
"""Characters of an argument that is wrong."""

EXIT_FAILED = 1
EXIT_USAGE = 2

# Flag, option, and what the flag's value is called; a flag without one switches its option on.
_FLAGS = (
    ("--web.listen-address", "web.listen_addresses", "ADDRESS"),
    ("--web.telemetry-path", "web.telemetry_path", "PATH"),
    ("--web.systemd-socket", "web.systemd_socket", ""),
    ("--web.enable-lifecycle", "web.enable_lifecycle", ""),
    ("--web.config.file", "web.config_file", "FILE"),
    ("--log.level", "log.level", "LEVEL"),
    ("--log.format", "log.format", "FORMAT"),
    ("--simulator", "simulator", "PROGRAM"),
)

_EPILOG = """\
A flag beats the configuration file, and a file beats the defaults.

exit status:
  0  ended as asked; with --check: the exporter can run
  1  could not run; with --check --strict also when a probe that the kernel has is not attached
  2  bad usage or configuration
  of report: COMMAND's, 128 + N if signal N ended it; 0 when --duration or Ctrl-C came first
  128 + N  interrupted by signal N before it ran
"""


class _UsageError(Exception):
    """What is wrong with the command line, in one line."""


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises instead of printing its usage and ending the process."""

    def error(self, message: str) -> NoReturn:
        raise _UsageError(message[: 4 * _MOST_SHOWN])  # it may quote an argument


class _Version(argparse.Action):
    """Prints the version; looks the others up only when asked, because that reads many files."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        print(version())
        parser.exit()


def version() -> str:
    """``hmm-exporter 0.1.0 (python 3.11.2, prometheus_client 0.16.0)``"""
    try:
        client = importlib.metadata.version("prometheus_client")
    except importlib.metadata.PackageNotFoundError:
        client = "missing"
    return f"{PROG} {__version__} (python {platform.python_version()}, prometheus_client {client})"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with *argv*, by default the process's own; returns the exit status."""
    log.fill_standard_files()
    try:
        status = _main(argv)
        if sys.stdout is not None:  # it is None when the process was started without
            sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except OSError as error:
        # Python must not try to write the rest when it exits: it would fail once more, loudly.
        os.dup2(log.open_nothing(), 1)
        if isinstance(error, BrokenPipeError):  # --help | head
            return 128 + signal.SIGPIPE
        _complain(f"cannot write to stdout: {error.strerror}")
        return EXIT_FAILED


def _main(argv: Sequence[str] | None) -> int:
    try:
        given, command = _parse(argv)
        config = _configure(given)
        report = None
        if given.subcommand:
            config = command_line.configure(given, config)
            report = command_line.options(given, command)
    except SystemExit as done:  # --help and --version
        return int(done.code or 0)
    except _UsageError as error:
        _complain(f"{error}; see {PROG} --help")
        return EXIT_USAGE
    except ConfigError as error:
        _complain(str(error))
        return EXIT_USAGE
    log.setup(config.log.level, config.log.format)
    logger = log.Logger(__name__)
    for_people = given.check or report is not None
    capabilities.put_into_effect()
    try:
        # Not earlier: it brings prometheus_client with it, and --help should be quick.
        from hmm_exporter import daemon

        if report:
            from hmm_exporter.report import run

            return run.run(config, report)
        return daemon.check(config, given.strict) if given.check else daemon.run(config, lambda: _configure(given))
    except (StartError, ConfigError) as error:  # ConfigError: the web configuration has changed since it was read
        if for_people:
            _complain(str(error))
        else:
            logger.error(str(error))
        return EXIT_USAGE if isinstance(error, ConfigError) else EXIT_FAILED
    except (KeyboardInterrupt, BrokenPipeError):
        raise
    except Exception as error:
        if for_people and isinstance(error, OSError):  # its output could not be written
            raise
        logger.exception("internal error, please report it", version=version())
    return EXIT_FAILED


def _configure(given: argparse.Namespace) -> Config:
    """The configuration of the file, if any, and the flags; raises ConfigError."""
    config = Config() if given.config_file is None else load(given.config_file)
    for flag, key, _ in _FLAGS:
        texts = getattr(given, key)
        if texts is not None:
            config = override(config, key, texts, flag)
    if config.web.systemd_socket and config.web.listen_addresses != Web().listen_addresses:
        raise ConfigError("web.listen_addresses and web.systemd_socket: one of the two is allowed")
    if config.web.config_file is not None:
        from hmm_exporter.web import protection  # it brings ssl with it

        protection.load(config.web.config_file)
    return config


def _parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, tuple[str, ...]]:
    """The command line, and what stands behind ``--``; raises _UsageError, and SystemExit after --help or --version."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    separator = arguments.index("--") if "--" in arguments else len(arguments)
    command = tuple(arguments[separator + 1 :])
    parser = _parser()
    if any(argument.partition("=")[2] == "--" for argument in arguments[:separator]):
        raise _UsageError("-- is no flag's value")  # argparse makes a list of it
    given, unknown = parser.parse_known_args(arguments[:separator])
    if given.subcommand not in (None, "report"):
        unknown.insert(0, given.subcommand)
    if unknown and given.subcommand == "report" and not unknown[0].startswith("-"):
        raise _UsageError(
            f"unknown argument {_one_line(unknown[0][:_MOST_SHOWN])}: a command for report stands after --"
        )
    if unknown:
        flags = ["--config.file", "--check", "--strict", "--version", "--help", *command_line.FLAGS]
        name = "--" + unknown[0].partition("=")[0].lstrip("-")
        close = difflib.get_close_matches(name, flags + [flag for flag, _, _ in _FLAGS], 1)
        guess = f" (did you mean {close[0]}?)" if close else ""
        raise _UsageError(f"unknown argument {_one_line(unknown[0][:_MOST_SHOWN])}{guess}")
    if given.strict and not given.check:
        raise _UsageError("--strict is only for --check")
    if given.subcommand and given.check:
        raise _UsageError("--check and report are two commands: one is allowed")
    only = [*command_line.given_flags(given), *(["--"] if separator < len(arguments) else [])]
    if only and not given.subcommand:
        raise _UsageError(f"{only[0]} is only for report")
    if only[-1:] == ["--"] and not command:
        raise _UsageError("after -- comes a command")
    return given, command


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROG,
        usage=f"{PROG} [--config.file=FILE] [flag ...]\n       {PROG} --check [--strict] [...]"
        f"\n       {PROG} [...] report [flag ...] [-- COMMAND [ARGUMENT ...]]",
        description="A Prometheus exporter for Linux HMM (heterogeneous memory management).",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument("-h", "--help", action="help", help="show this and exit")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    parser.add_argument(
        "--config.file",
        dest="config_file",
        metavar="FILE",
        help="configuration in YAML; config.example.yaml describes it (default: none)",
    )
    known = {option.key: option for option in options()}
    for flag, key, metavar in _FLAGS:
        default, text = known[key].default, known[key].rule.help
        if known[key].rule.choices:
            text += ": " + ", ".join(known[key].rule.choices)
        if isinstance(default, tuple):
            text += "; may be given several times"
            default = " ".join(default)
        if not metavar:
            parser.add_argument(flag, dest=key, action="append_const", const="true", help=text)
            continue
        text += f" (default: {default or 'none'})"
        parser.add_argument(flag, dest=key, metavar=metavar, action="append", help=text)
    parser.add_argument(
        "--check",
        action="store_true",
        help="attach all probes, say what can and what cannot be watched here and why, and exit",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="with --check: fail when a probe that this kernel has cannot be attached",
    )
    group = parser.add_argument_group("report", command_line.DESCRIPTION)
    group.add_argument("subcommand", nargs="?", metavar="report", help="watch at this terminal, serve nothing")
    command_line.add_flags(group)
    return parser


def _complain(message: str) -> None:
    """One line on stderr; unbuffered, so that a full disk does not change the exit status."""
    line = f"{PROG}: error: {_one_line(message)}\n"
    try:
        os.write(2, line.encode("utf-8", "backslashreplace"))
    except OSError:
        pass  # nobody can be told


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
