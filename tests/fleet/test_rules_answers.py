# SPDX-License-Identifier: Apache-2.0
"""The rules in real Prometheus, which has scraped the exporter while every scenario of the simulator was played."""

from __future__ import annotations

import pytest

from hmm_exporter.catalog.values import WORKLOAD_LABELS
from tests.fleet.promql import selectors
from tests.fleet.rules import ALERTS, RECORDS
from tests.fleet.simulated import FIRST, RELEASES, SECOND, Fleet

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
def test_who_thrashes_is_named_though_others_move_far_more_beside_it(fleet: Fleet, release: str) -> None:
    """Scenario `thrash` is train.py's, which the simulated node has in a Slurm job."""
    server = fleet.servers[release]
    process, job, device = (
        server.query(f"hmm_{level}:thrash:ratio_rate5m > 0.5", at=fleet.ended) for level in ("process", "pod", "device")
    )
    assert {(it.labels["node"], it.labels["comm"]) for it in process} == {(FIRST, "train.py")}
    assert {(it.labels["node"], it.labels["slurm_job"]) for it in job} == {(FIRST, "4217")}
    assert {it.labels["node"] for it in device} == {FIRST}


@each_release
def test_a_node_without_pods_and_jobs_is_one_row_of_them(fleet: Fleet, release: str) -> None:
    pods = fleet.servers[release].query(f'hmm_pod:moved_to_device_bytes:rate5m{{node="{SECOND}"}}', at=fleet.ended)
    assert [set(it.labels) & set(WORKLOAD_LABELS) for it in pods] == [set()]
