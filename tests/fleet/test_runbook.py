# SPDX-License-Identifier: Apache-2.0
"""The runbook: what somebody finds there who was called by an alert."""

from __future__ import annotations

import re

import pytest

from tests.fleet.dashboards import files
from tests.fleet.promql import Fault, labels_of
from tests.fleet.rules import ALERTS, NAMES, load, recorded
from tests.fleet.tools import ROOT

RUNBOOK = ROOT / "docs/runbook.md"
URL = "https://github.com/hmm-exporter/hmm-exporter/blob/main/docs/runbook.md"


def _chapters(runbook: str) -> set[str]:
    """Anchors, as GitHub makes them of headings of one word."""
    return {title.lower() for title in re.findall(r"^## (Hmm\w+)$", runbook, re.MULTILINE)}


def _without_chapter(runbook: str) -> set[str]:
    chapters = _chapters(runbook)
    return {rule["alert"] for rule in ALERTS if rule["annotations"]["runbook_url"].rpartition("#")[2] not in chapters}


def test_every_alert_leads_to_its_chapter_and_there_is_no_other() -> None:
    for rule in ALERTS:
        assert rule["annotations"]["runbook_url"] == f"{URL}#{rule['alert'].lower()}"
    assert _without_chapter(RUNBOOK.read_text()) == set()
    assert _chapters(RUNBOOK.read_text()) == {name.lower() for name in NAMES}


def test_an_alert_without_a_chapter_is_noticed() -> None:
    assert _without_chapter(RUNBOOK.read_text().replace("## HmmThrashing", "## Thrashing")) == {"HmmThrashing"}


def test_panels_that_point_to_the_runbook_point_to_a_chapter() -> None:
    panels = "".join(file.read_text() for file in files())
    anchors = set(re.findall(rf"{re.escape(URL)}#(\w+)", panels))
    assert "hmmexporterlabeloverflow" in anchors
    assert anchors <= _chapters(RUNBOOK.read_text())


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


def _queries(runbook: str) -> list[str]:
    """Lines that are indented by four, and those that continue them, which are indented by more."""
    queries: list[str] = []
    for line in runbook.splitlines():
        if line.startswith("      "):
            queries[-1] += line
        elif line.startswith("    "):
            queries.append(line)
    return queries


def test_queries_of_the_runbook_ask_for_what_exists() -> None:
    known = recorded(load("recording.yaml"))
    queries = _queries(RUNBOOK.read_text())
    assert len(queries) > 20
    for query in queries:
        labels_of(query, known)
    with pytest.raises(Fault, match="no such metric"):
        labels_of(queries[0].replace("returned", "retuned"), known)
