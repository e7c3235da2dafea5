# SPDX-License-Identifier: Apache-2.0
"""Rules and runbook ask for metrics and labels that exist: Prometheus would not say so."""

from __future__ import annotations

import re

import pytest
import yaml

from hmm_exporter.catalog.values import WORKLOAD_LABELS
from tests.fleet.promql import Fault, labels_of
from tests.fleet.rules import ALERTS, RECORDS, RULES, load, recorded

#: What a level of a recorded name tells apart.
LEVELS = {
    "hmm_instance": set[str](),
    "hmm_pod": set(WORKLOAD_LABELS) - {"container"},
    "hmm_process": {"comm", *WORKLOAD_LABELS},
}


def test_rules_ask_for_metrics_and_labels_that_exist_and_join_what_can_match() -> None:
    known = recorded(load("recording.yaml"))
    for rule in ALERTS:
        labels_of(rule["expr"], known)


def test_a_recorded_name_says_which_labels_it_has() -> None:
    known = recorded(load("recording.yaml"))
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
        recorded(yaml.safe_load(text.replace(good, bad)))
