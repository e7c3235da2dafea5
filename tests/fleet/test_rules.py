# SPDX-License-Identifier: Apache-2.0
"""The rules of Prometheus: what promtool says of them, that their tests notice mistakes, and that what they name exists."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hmm_exporter.catalog.metric import Type
from hmm_exporter.catalog.metrics import METRICS
from hmm_exporter.catalog.values import WORKLOAD_LABELS
from tests.fleet.promql import Fault, Labels, labels_of
from tests.fleet.tools import ROOT, run, tool
from tests.unit.metrics.test_scrape import COUNTERS, GAUGES

RULES = ROOT / "deploy/prometheus"
TESTS = ROOT / "tests/fleet/rules"
RUNBOOK = ROOT / "docs/runbook.md"
Rule = dict[str, Any]
Rules = dict[str, Any]

#: Prometheus 3, and the oldest that the rules are for.
each_release = pytest.mark.parametrize("release", ["sid", "bookworm"])

#: What a level of a recorded name tells apart.
LEVELS = {
    "hmm_instance": set[str](),
    "hmm_pod": set(WORKLOAD_LABELS) - {"container"},
    "hmm_process": {"comm", *WORKLOAD_LABELS},
}


def _load(name: str) -> Rules:
    loaded: Rules = yaml.safe_load((RULES / name).read_text())
    return loaded


def _rules(loaded: Rules) -> Iterator[Rule]:
    return (rule for group in loaded["groups"] for rule in group["rules"])


ALERTS = list(_rules(_load("alerts.yaml")))
RECORDS = list(_rules(_load("recording.yaml")))
NAMES = sorted({alert["alert"] for alert in ALERTS})


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
        rules = _load(name)
        if tests.startswith(name.removesuffix(".yaml")):
            for rule in _rules(rules):
                mutate(rule)
        (folder / name).write_text(yaml.safe_dump(rules))
    text = (TESTS / tests).read_text().replace("../../../deploy/prometheus", str(folder))
    (folder / tests).write_text(text)
    done = run(tool("sid", "promtool"), "test", "rules", folder / tests, check=False)
    assert "could not parse" not in done.stderr, done.stderr
    return done.stdout + done.stderr


def test_a_recording_rule_that_says_too_much_is_noticed(tmp_path: Path) -> None:
    def exaggerate(rule: Rule) -> None:
        rule["expr"] = f"1 + ({rule['expr']})"

    said = _failing(tmp_path, "recording_test.yaml", exaggerate)
    assert {record["record"] for record in RECORDS} == set(re.findall(r'expr: "round\(([\w:]+), 0\.001\)"', said))


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


def _chapters(runbook: str) -> set[str]:
    """Anchors, as GitHub makes them of headings of one word."""
    return {title.lower() for title in re.findall(r"^## (Hmm\w+)$", runbook, re.MULTILINE)}


def _anchors() -> set[str]:
    prefix = "https://github.com/hmm-exporter/hmm-exporter/blob/main/docs/runbook.md#"
    assert all(rule["annotations"]["runbook_url"].startswith(prefix) for rule in ALERTS)
    return {rule["annotations"]["runbook_url"].removeprefix(prefix) for rule in ALERTS}


def test_the_runbook_has_a_chapter_for_each_alert_and_for_nothing_else() -> None:
    assert _anchors() == {name.lower() for name in NAMES} == _chapters(RUNBOOK.read_text())


def test_an_alert_without_a_chapter_is_noticed() -> None:
    assert _anchors() - _chapters(RUNBOOK.read_text().replace("## HmmThrashing", "## Thrashing")) == {"hmmthrashing"}


@pytest.mark.parametrize("alert", NAMES)
def test_a_chapter_answers_what_somebody_asks_who_was_called(alert: str) -> None:
    chapter = RUNBOOK.read_text().split(f"## {alert}\n")[1].split("\n## ")[0]
    asked = ["Meaning", "What users feel", "Why this threshold", "Look", "Do", "When it is wrong"]
    assert re.findall(r"^\*\*([\w ]+)\.\*\*", chapter, re.MULTILINE) == asked


def test_every_alert_says_how_severe_and_how_long_and_what_it_is_about() -> None:
    for rule in ALERTS:
        assert rule["for"] in ("15m", "30m"), rule
        assert rule["labels"]["severity"] in ("warning", "info"), rule
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}, rule
        assert "{{" not in rule["annotations"]["summary"], f"{rule}: a summary stands for a group of alerts"
        assert "$labels.instance" in rule["annotations"]["description"], rule


def _exposed() -> dict[str, Labels]:
    """Every metric of the exporter with its labels."""
    labels: dict[str, Labels] = {"up": Labels()}
    for metric in METRICS:
        its = Labels(metric.labels) | (Labels(WORKLOAD_LABELS) if metric.per_process else Labels())
        if metric.type is Type.HISTOGRAM:
            labels |= {f"{metric.name}_bucket": its | {"le"}, f"{metric.name}_sum": its, f"{metric.name}_count": its}
        else:
            labels[metric.name] = its
    labels |= {name: Labels(its) for name, its in GAUGES.items()}
    return labels | {f"{name}_total": Labels(its) for name, its in COUNTERS.items()}


def _recorded(rules: Rules) -> dict[str, Labels]:
    """The labels of everything that can be asked for once the rules have run."""
    known = _exposed()
    for rule in _rules(rules):
        known[rule["record"]] = labels_of(rule["expr"], known) | Labels(rule.get("labels", {}))
    return known


def test_rules_ask_for_metrics_and_labels_that_exist_and_join_what_can_match() -> None:
    known = _recorded(_load("recording.yaml"))
    for rule in ALERTS:
        labels_of(rule["expr"], known)


def test_a_recorded_name_says_which_labels_it_has() -> None:
    known = _recorded(_load("recording.yaml"))
    for record in RECORDS:
        level, _, operations = record["record"].split(":")
        assert known[record["record"]] == LEVELS.get(level, {level.removeprefix("hmm_")}), record
        assert operations.endswith("rate5m"), record


@pytest.mark.parametrize(
    ("good", "bad", "fault"),
    [
        ("hmm_migration_returned_bytes_total", "hmm_migrations_returned_bytes_total", "no such metric"),
        ("hmm_device:returned_bytes:rate5m /", "hmm_device:returned_byte:rate5m /", "no such metric"),
        ('reason!="lock_dropped"', 'reasons!="lock_dropped"', "no such label"),
        ("sum without (pgmap_owner)", "sum without (owner)", "no such label"),
        ("ignoring (reason) group_left ()", "", "one side alone has ['reason']"),
        ("sum without (reason) (rate(", "max without () (rate(", "one side alone has ['reason']"),
    ],
)
def test_what_prometheus_would_answer_with_nothing_is_noticed(good: str, bad: str, fault: str) -> None:
    text = (RULES / "recording.yaml").read_text()
    assert good in text
    with pytest.raises(Fault, match=re.escape(fault)):
        _recorded(yaml.safe_load(text.replace(good, bad)))


