# SPDX-License-Identifier: Apache-2.0
"""The rules in real Prometheus, which has scraped the exporter while every scenario of the simulator was played."""

from __future__ import annotations

import pytest

from tests.fleet.promql import selectors
from tests.fleet.rules import ALERTS, RECORDS
from tests.fleet.simulated import RELEASES, Fleet

each_release = pytest.mark.parametrize("release", RELEASES)

RECORDED = {record["record"] for record in RECORDS}


@each_release
def test_every_rule_is_loaded_and_healthy(fleet: Fleet, release: str) -> None:
    there = fleet.servers[release].rules()
    assert len(there) == len(ALERTS) + len(RECORDS)
    assert {rule["name"]: rule.get("lastError", "") for rule in there if rule["health"] != "ok"} == {}


@each_release
def test_every_recording_rule_has_an_answer(fleet: Fleet, release: str) -> None:
    server = fleet.servers[release]
    assert {name for name in RECORDED if not server.query(f'{{__name__="{name}"}}', at=fleet.ended)} == set()


@each_release
def test_there_is_something_for_each_selector_of_each_rule(fleet: Fleet, release: str) -> None:
    """A value of a label that is misspelt, above all, which no check of names finds."""
    asked = {selector for rule in ALERTS + RECORDS for selector in selectors(rule["expr"])}
    assert 'hmm_reason:unmoved_bytes:rate5m{reason="busy"}' in asked
    assert {selector for selector in asked if not fleet.servers[release].query(selector, at=fleet.ended)} == set()


@each_release
def test_no_answer_is_nan(fleet: Fleet, release: str) -> None:
    server = fleet.servers[release]
    answers = {name: server.query(f'{{__name__="{name}"}}', at=fleet.ended) for name in RECORDED}
    assert {name for name, answer in answers.items() if any(it.value != it.value for it in answer)} == set()


@each_release
def test_of_two_nodes_the_process_that_thrashes_is_named_on_each(fleet: Fleet, release: str) -> None:
    """Scenario `thrash` is train.py's; the others move hundreds of times as much beside it."""
    found = fleet.servers[release].query("hmm_process:thrash:ratio_rate5m > 0.5", at=fleet.ended)
    assert {(it.labels["node"], it.labels["comm"]) for it in found} == {("gpu-1", "train.py"), ("gpu-2", "train.py")}
    devices = fleet.servers[release].query("hmm_device:thrash:ratio_rate5m > 0.5", at=fleet.ended)
    assert {it.labels["node"] for it in devices} == {"gpu-1", "gpu-2"}


def test_the_pod_that_thrashes_is_named_where_there_are_pods_and_is_the_whole_node_where_not(fleet: Fleet) -> None:
    found = fleet.servers["sid"].query("hmm_pod:thrash:ratio_rate5m > 0.5", at=fleet.ended)
    assert {it.labels["pod"] for it in found} == {"train-0"}
    found = fleet.servers["bookworm"].query("hmm_pod:thrash:ratio_rate5m", at=fleet.ended)
    assert sorted(it.labels["node"] for it in found) == ["gpu-1", "gpu-2"]
