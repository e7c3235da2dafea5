# SPDX-License-Identifier: Apache-2.0
"""The flags of a report: what they become, and the one line that a mistake earns."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

import hmm_exporter.report
from hmm_exporter import cli, log
from hmm_exporter.config import Config
from hmm_exporter.errors import StartError
from hmm_exporter.report.command_line import Options


class Run(ModuleType):
    """Stands where hmm_exporter.report.run does: keeps what it is given."""

    def __init__(self) -> None:
        super().__init__("hmm_exporter.report.run")
        self.calls: list[tuple[Config, Options]] = []
        self.refusal = ""

    def run(self, config: Config, options: Options) -> int:
        self.calls.append((config, options))
        if self.refusal:
            raise StartError(self.refusal)
        return 42


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    made = Run()
    monkeypatch.setitem(sys.modules, made.__name__, made)
    monkeypatch.setattr(hmm_exporter.report, "run", made, raising=False)
    monkeypatch.setattr(log, "setup", lambda level, format: None)
    return made


@pytest.mark.parametrize(
    ("argv", "options"),
    [
        ((), Options()),
        (("--duration", "90"), Options(duration=90)),
        (("--duration=1m30s",), Options(duration=90)),
        (("--duration", "0.5", "--interval", "0.25"), Options(duration=0.5, interval=0.25)),
        (("--interval", "0"), Options(interval=0)),
        (("--json",), Options(interval=0, json=True)),
        (("--json", "--interval", "2s"), Options(interval=2, json=True)),
        (("--", "ls", "--json", "--", "-x"), Options(command=("ls", "--json", "--", "-x"))),
    ],
)
def test_flags_become_options(run: Run, argv: tuple[str, ...], options: Options) -> None:
    assert cli.main(["report", *argv]) == 42
    assert run.calls == [(Config(), options)]


def test_the_flags_of_the_configuration_stand_before_the_command_or_behind_it(run: Run) -> None:
    cli.main(["--simulator", "s", "report", "--pid", "7", "--pid", "8"])
    cli.main(["report", "--pid", "7", "--simulator", "s", "--pid", "8"])
    (first, _), (second, _) = run.calls
    assert first == second
    assert (first.simulator, first.filter.tgids) == ("s", (7, 8))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("report", "--pid", "x"), "--pid: x is not allowed: a whole number from 1 to 4194304"),
        (
            ("report", "--duration", "0"),
            "--duration: 0 is not allowed: seconds, or as 90s or 1h30m, from 0.1 to 30d",
        ),
        (
            ("report", "--interval", "soon"),
            "--interval: soon is not allowed: seconds, or as 90s or 1h30m, from 0.1 to 30d, or 0 for none",
        ),
        (("report", "--intervall", "1"), "unknown argument --intervall (did you mean --interval?); see"),
        (("report", "ls"), "unknown argument ls: a command for report stands after --; see"),
        (("rapport",), "unknown argument rapport; see"),
        (("report", "--"), "after -- comes a command; see"),
        (("report", "--", "no-such-command"), "report: no-such-command is not a command that can be run"),
        (("report", "--check"), "--check and report are two commands: one is allowed; see"),
        (("--json",), "--json is only for report; see"),
        (("--", "ls"), "-- is only for report; see"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(
    run: Run, capfd: pytest.CaptureFixture[str], argv: tuple[str, ...], message: str
) -> None:
    assert cli.main(argv) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"hmm-exporter: error: {message}")
    assert err.count("\n") == 1
    assert not run.calls


def test_what_keeps_it_from_running_is_one_line_for_people_and_status_1(
    run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    run.refusal = "nothing can be watched"
    assert cli.main(["report"]) == 1
    assert capfd.readouterr() == ("", "hmm-exporter: error: nothing can be watched\n")
