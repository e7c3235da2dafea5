# SPDX-License-Identifier: Apache-2.0
"""What promtool says of the rules, and that their tests notice mistakes which it cannot see."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.fleet.rules import ALERTS, NAMES, RECORDS, RULES, Rule, each, load
from tests.fleet.tools import ROOT, run, tool

TESTS = ROOT / "tests/fleet/promtool"

#: Prometheus 3, and the oldest that the rules are for.
each_release = pytest.mark.parametrize("release", ["sid", "bookworm"])


def _check(release: str, *files: Path) -> str:
    done = run(tool(release, "promtool"), "check", "rules", "--lint=all", "--lint-fatal", *files, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@each_release
def test_promtool_finds_nothing_to_say_about_the_rules(release: str) -> None:
    assert _check(release, *sorted(RULES.glob("*.yaml"))) == ""


@each_release
@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("sum without (device)", "sum wihtout (device)"),
        ("for: 15m", "for: 15 minutes"),
        ("severity: warning", "severity: {warning"),
        ("{{ or $labels.node", "{{ or $label.node"),
        ("summary:", "sumary: {}"),
    ],
)
def test_promtool_refuses_what_is_misspelt(release: str, good: str, bad: str, tmp_path: Path) -> None:
    for name in ("alerts.yaml", "recording.yaml"):
        (tmp_path / name).write_text((RULES / name).read_text().replace(good, bad))
    assert "FAILED" in _check(release, *tmp_path.iterdir())


@each_release
def test_rules_do_what_is_expected(release: str) -> None:
    run(tool(release, "promtool"), "test", "rules", *sorted(TESTS.glob("*.yaml")))


def _failing(folder: Path, tests: str, mutate: Callable[[Rule], None]) -> str:
    """What promtool says of a file of tests when every rule is changed."""
    for name in ("recording.yaml", "alerts.yaml"):
        rules = load(name)
        if tests.startswith(name.removesuffix(".yaml")):
            for rule in each(rules):
                mutate(rule)
        (folder / name).write_text(yaml.safe_dump(rules))
    text = (TESTS / tests).read_text().replace("../../../deploy/prometheus", str(folder))
    (folder / tests).write_text(text)
    done = run(tool("sid", "promtool"), "test", "rules", folder / tests, check=False)
    assert "could not parse" not in done.stderr, done.stderr
    return done.stdout + done.stderr


def _records_noticed(said: str) -> set[str]:
    return set(re.findall(r'expr: "round\(([\w:]+), 0\.001\)"', said))


def test_a_recording_rule_that_says_too_much_is_noticed(tmp_path: Path) -> None:
    def exaggerate(rule: Rule) -> None:
        rule["expr"] = f"1 + ({rule['expr']})"

    said = _failing(tmp_path, "recording_test.yaml", exaggerate)
    assert _records_noticed(said) == {record["record"] for record in RECORDS}


def test_a_ratio_or_quantile_of_nothing_is_noticed(tmp_path: Path) -> None:
    """Each guard against 0/0, which would be recorded as NaN."""

    def trust(rule: Rule) -> None:
        rule["expr"] = re.sub(r">=? 0\b", "", rule["expr"])

    guarded = {record["record"] for record in RECORDS if re.search(r">=? 0\b", record["expr"])}
    assert {name for name in guarded if "ratio" in name or "seconds:p" in name} == guarded
    assert _records_noticed(_failing(tmp_path, "recording_test.yaml", trust)) == guarded


_THRESHOLD = re.compile(r"> ((?!0\b)[\d.]+(?:(?: \* |\^)\d+)*|0\.\d+)")


def _scaled(expression: str, which: int, factor: str) -> str:
    found = list(_THRESHOLD.finditer(expression))
    if which >= len(found):
        return expression
    return f"{expression[: found[which].start()]}> {factor} * ({found[which][1]}){expression[found[which].end() :]}"


def _alerts_noticed(said: str) -> set[str]:
    return set(re.findall(r"alertname: (\w+)", said))


@pytest.mark.parametrize("factor", ["0.5", "2"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_threshold_that_is_half_or_twice_as_high_is_noticed(which: int, factor: str, tmp_path: Path) -> None:
    changed = {rule["alert"] for rule in ALERTS if _scaled(rule["expr"], which, factor) != rule["expr"]}

    def scale(rule: Rule) -> None:
        rule["expr"] = _scaled(rule["expr"], which, factor)

    assert changed
    assert _alerts_noticed(_failing(tmp_path, "alerts_test.yaml", scale)) == changed


def test_an_alert_that_does_not_wait_is_noticed(tmp_path: Path) -> None:
    said = _failing(tmp_path, "alerts_test.yaml", lambda rule: rule.pop("for"))
    assert _alerts_noticed(said) == set(NAMES)


def _cases(tests: str) -> Iterator[tuple[str, str, bool]]:
    """Of each case: its name, the alert, and whether it fires."""
    for group in yaml.safe_load(tests)["tests"]:
        for case in group["alert_rule_test"]:
            yield group["name"], case["alertname"], bool(case["exp_alerts"])


def _without_cases(tests: str) -> set[tuple[str, str]]:
    cases = list(_cases(tests))
    fires = {alert for name, alert, firing in cases if firing and name.startswith(f"{alert} fires")}
    silent = {
        alert
        for name, alert, _ in cases
        if name.startswith(f"{alert} is silent") and not any(firing for case, _, firing in cases if case == name)
    }
    return {(name, "fires") for name in NAMES if name not in fires} | {
        (name, "is silent") for name in NAMES if name not in silent
    }


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_is_silent() -> None:
    tests = (TESTS / "alerts_test.yaml").read_text()
    assert _without_cases(tests) == set()
    assert _without_cases(tests.replace("HmmThrashing is", "A job is")) == {("HmmThrashing", "is silent")}
