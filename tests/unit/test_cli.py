# SPDX-License-Identifier: Apache-2.0
"""The command: flags, exit status, and the one line that a mistake earns."""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import version as installed
from pathlib import Path
from types import ModuleType

import pytest

import hmm_exporter
from hmm_exporter import cli
from hmm_exporter.config import Config, ConfigError, Web
from hmm_exporter.errors import StartError


class Daemon(ModuleType):
    """Stands where hmm_exporter.daemon does: keeps what it is given, and does as it is told."""

    def __init__(self) -> None:
        super().__init__("hmm_exporter.daemon")
        self.calls: list[tuple[str, Config, bool]] = []
        self.answer: Callable[[], int] = lambda: 0

    def run(self, config: Config, read: Callable[[], Config]) -> int:
        assert read() == config  # a reload reads the same file, beneath the same flags
        self.calls.append(("run", config, False))
        return self.answer()

    def check(self, config: Config, strict: bool) -> int:
        self.calls.append(("check", config, strict))
        return self.answer()


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """A daemon of the test's own, and the logging put back afterwards."""
    made = Daemon()
    monkeypatch.setitem(sys.modules, made.__name__, made)
    monkeypatch.setattr(hmm_exporter, "daemon", made, raising=False)
    root = logging.getLogger()
    before = root.handlers[:], root.level, sys.excepthook, threading.excepthook, sys.unraisablehook
    yield made
    root.handlers[:], root.level = before[:2]
    sys.excepthook, threading.excepthook, sys.unraisablehook = before[2:]
    logging.captureWarnings(False)


def refused(capfd: pytest.CaptureFixture[str], *argv: str) -> str:
    """What the command says of *argv*, which is bad: one line on stderr, and exit status 2."""
    assert cli.main(argv) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("hmm-exporter: error: ")
    assert err.endswith("\n")
    assert err[:-1].isprintable(), f"not one plain line: {err!r}"
    return err[len("hmm-exporter: error: ") : -1]


def test_without_flags_the_daemon_runs_with_the_defaults(daemon: Daemon) -> None:
    assert cli.main([]) == 0
    assert daemon.calls == [("run", Config(), False)]


@pytest.mark.parametrize("status", [0, 1])
def test_the_exit_status_is_the_daemons(daemon: Daemon, status: int) -> None:
    daemon.answer = lambda: status
    assert cli.main([]) == status
    assert cli.main(["--check"]) == status


def test_check_and_strict_reach_the_daemon(daemon: Daemon) -> None:
    cli.main(["--check"])
    cli.main(["--check", "--strict"])
    assert daemon.calls == [("check", Config(), False), ("check", Config(), True)]


def test_flags_beat_the_file_and_the_file_beats_the_defaults(daemon: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "web: {listen_addresses: [':1', ':2'], telemetry_path: /file}\n"
        "log: {level: error, format: json}\nlimits: {series: 2500}\n"
    )
    cli.main(
        [
            f"--config.file={path}",
            *("--web.listen-address", "127.0.0.1:3", "--web.listen-address=[::1]:4"),
            "--log.level=warning",
            "--simulator=./simulator",
        ]
    )
    ((_, config, _),) = daemon.calls
    assert config.web.listen_addresses == ("127.0.0.1:3", "[::1]:4")
    assert config.web.telemetry_path == "/file"
    assert (config.log.level, config.log.format) == ("warning", "json")
    assert config.limits.series == 2500
    assert config.simulator == "./simulator"


def test_a_flag_without_a_value_switches_its_option_on(daemon: Daemon) -> None:
    assert cli.main(["--web.systemd-socket"]) == 0
    assert daemon.calls[-1][1].web == Web(systemd_socket=True)


def test_addresses_are_not_for_who_is_passed_sockets(daemon: Daemon, capfd: pytest.CaptureFixture[str]) -> None:
    said = refused(capfd, "--web.systemd-socket", "--web.listen-address=127.0.0.1:1")
    assert said == "web.listen_addresses and web.systemd_socket: one of the two is allowed"


def test_of_a_flag_given_twice_the_last_counts(daemon: Daemon) -> None:
    cli.main(["--log.level=debug", "--log.level=error", "--web.telemetry-path=/x"])
    ((_, config, _),) = daemon.calls
    assert (config.log.level, config.web.telemetry_path) == ("error", "/x")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (
            ["--web.listen-adress=:1"],
            "unknown argument --web.listen-adress=:1 (did you mean --web.listen-address?)",
        ),
        (["-check"], "unknown argument -check (did you mean --check?)"),
        (["config.yaml"], "unknown argument config.yaml (did you mean --config.file?)"),
        (["--log.lev=info"], "unknown argument --log.lev=info (did you mean --log.level?)"),
        (["xyz\n\x1b[31m"], r"unknown argument xyz\n\x1b[31m"),
        (["--log.level"], "argument --log.level: expected one argument"),
        (["--check=yes"], "argument --check: ignored explicit argument 'yes'"),
        (["--strict"], "--strict is only for --check"),
        (["--" + "x" * 100_000], f"unknown argument --{'x' * 62}"),
        (["--simulator=--"], "-- is no flag's value"),  # found by fuzzing: argparse makes an empty list of it
    ],
)
def test_bad_usage_is_one_line_and_status_2(
    daemon: Daemon, capfd: pytest.CaptureFixture[str], argv: list[str], said: str
) -> None:
    assert refused(capfd, *argv) == f"{said}; see hmm-exporter --help"
    assert daemon.calls == []


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--log.level=loud", "loud is not allowed: one of debug, info, warning, error"),
        ("--log.format=xml", "xml is not allowed: one of logfmt, json"),
        (
            "--web.listen-address=10466",
            "10466 is not allowed: :port, host:port or [IPv6]:port with a port from 0 (any free one) to 65535",
        ),
        (
            "--web.telemetry-path=metrics",
            "metrics is not allowed: a path such as /metrics, of letters, digits and . _ ~ - /, not below /-/",
        ),
        ("--simulator=", '"" is not allowed: the path of a program'),
    ],
)
def test_a_flags_value_is_checked_by_the_files_rules(
    daemon: Daemon, capfd: pytest.CaptureFixture[str], flag: str, said: str
) -> None:
    assert refused(capfd, flag) == f"{flag.partition('=')[0]}: {said}"
    assert daemon.calls == []


def test_a_bad_file_is_one_line_and_status_2(daemon: Daemon, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("limits:\n  processes: -3\n")
    assert refused(capfd, f"--config.file={path}") == (
        f"{path}:2: limits.processes: -3 is not allowed: a whole number from 1 to 4096"
    )
    assert refused(capfd, "--config.file=/nowhere") == ("/nowhere: cannot be read: No such file or directory")


def fail(error: BaseException) -> Callable[[], int]:
    def answer() -> int:
        raise error

    return answer


@pytest.mark.parametrize("more", [[], ["--check"]])
def test_a_bad_web_configuration_is_one_line_and_status_2(
    daemon: Daemon, capfd: pytest.CaptureFixture[str], tmp_path: Path, more: list[str]
) -> None:
    file = tmp_path / "web.yaml"
    file.write_text("basic_auth_users:\n  alice: hunter2\n")
    said = refused(capfd, f"--web.config.file={file}", *more)
    assert said.startswith(f"{file}:2: basic_auth_users.alice: the value is not allowed: a password hashed by bcrypt")
    file.write_text("tls_server_config: {cert_file: no.crt, key_file: no.key}\n")
    said = refused(capfd, f"--web.config.file={file}", *more)
    assert said == f"{file}: tls_server_config.cert_file: {tmp_path}/no.crt: cannot be read: No such file or directory"
    assert daemon.calls == []


def test_a_failed_start_is_one_log_line_in_the_configured_format_and_status_1(
    daemon: Daemon, capfd: pytest.CaptureFixture[str]
) -> None:
    daemon.answer = fail(StartError("cannot listen on :10466: address already in use"))
    assert cli.main(["--log.format=json"]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    got = json.loads(err)
    assert got["level"] == "error"
    assert got["msg"] == "cannot listen on :10466: address already in use"


def test_a_web_configuration_that_is_wrong_by_now_is_one_log_line_and_status_2(
    daemon: Daemon, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise ConfigError("web.yaml:1: nonsense")

    daemon.answer = fail
    assert cli.main(["--log.format=json"]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert (json.loads(line)["level"], json.loads(line)["msg"]) == ("error", "web.yaml:1: nonsense")


def test_a_failed_check_is_one_line_for_a_person_and_status_1(
    daemon: Daemon, capfd: pytest.CaptureFixture[str]
) -> None:
    daemon.answer = fail(StartError("no BTF:\n/sys/kernel/btf/vmlinux is not there"))
    assert cli.main(["--check", "--log.format=json"]) == 1
    assert capfd.readouterr() == (
        "",
        "hmm-exporter: error: no BTF:\\n/sys/kernel/btf/vmlinux is not there\n",
    )


@pytest.mark.parametrize("argv", [[], ["--check"]])
def test_an_error_of_ours_is_one_line_with_its_traceback_and_status_1(
    daemon: Daemon, capfd: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    daemon.answer = fail(ZeroDivisionError("division by zero"))
    assert cli.main(["--log.format=json", *argv]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    got = json.loads(line)
    assert got["error"] == "ZeroDivisionError: division by zero"
    assert "Traceback" in got["traceback"]


def test_an_interrupt_is_silent_and_has_the_shells_status(daemon: Daemon, capfd: pytest.CaptureFixture[str]) -> None:
    daemon.answer = fail(KeyboardInterrupt())
    assert cli.main([]) == 130
    assert capfd.readouterr() == ("", "")


ENVIRONMENT = {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}


def command(*argv: str, redirect: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command as a process of its own, through a shell."""
    return subprocess.run(
        ["sh", "-c", f'exec "$0" -m hmm_exporter "$@" {redirect}', sys.executable, *argv],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_version_names_what_a_bug_report_needs() -> None:
    done = command("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"hmm-exporter {hmm_exporter.__version__} (python {platform.python_version()},"
        f" prometheus_client {installed('prometheus_client')})\n"
    )


def test_the_version_is_a_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", hmm_exporter.__version__)


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_names_every_flag_and_the_exit_statuses(flag: str) -> None:
    done = command(flag)
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("--config.file", "--web.listen-address", "--web.telemetry-path", "--log.level"):
        assert name in done.stdout
    for name in ("--log.format", "--simulator", "--check", "--strict", "--version", "report", "--pid", "--duration"):
        assert name in done.stdout
    assert "exit status:\n  0  " in done.stdout
    assert "(default: :10466)" in done.stdout
    assert all(len(line) <= 100 for line in done.stdout.splitlines())


def test_help_does_not_import_what_only_the_daemon_needs() -> None:
    program = (
        "import sys; from hmm_exporter import cli; cli.main(['--help'])\n"
        "print('prometheus_client' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == "False\n"


def test_bad_usage_of_a_process_is_one_line_and_status_2() -> None:
    done = command("--nonsense")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == ("hmm-exporter: error: unknown argument --nonsense; see hmm-exporter --help\n")


def test_a_reader_that_has_gone_is_no_error_message_and_has_the_shells_status() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "hmm_exporter", "--help"],
            env=ENVIRONMENT,
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_full_disk_is_one_line_and_status_1() -> None:
    done = command("--version", redirect=">/dev/full")
    assert done.returncode == 1
    assert done.stderr == "hmm-exporter: error: cannot write to stdout: No space left on device\n"


def test_closed_standard_files_are_no_error() -> None:
    assert command("--version", redirect="<&- >&-").returncode == 0
    assert command("--nonsense", redirect="<&- >&- 2>&-").returncode == 2
