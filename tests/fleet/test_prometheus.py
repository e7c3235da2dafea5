# SPDX-License-Identifier: Apache-2.0
"""The harness itself: what other tests conclude from an empty answer holds only if a real one would have come."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fleet.prometheus import Prometheus, Refused
from tests.fleet.simulated import NODES, RELEASES, Fleet


@pytest.mark.parametrize("release", RELEASES)
def test_every_node_is_scraped_under_its_name(fleet: Fleet, release: str) -> None:
    up = fleet.servers[release].query('up{job="hmm-exporter"}')
    assert {series.labels["node"]: series.value for series in up} == dict.fromkeys(NODES, 1)


@pytest.mark.parametrize("release", RELEASES)
def test_counters_begin_before_the_first_event_so_that_an_increase_is_the_count(fleet: Fleet, release: str) -> None:
    server = fleet.servers[release]
    (before,) = server.query("sum(hmm_migrations_started_total)", at=fleet.started)
    (after,) = server.query("sum(hmm_migrations_started_total)")
    assert before.value == 0
    assert after.value > 1000


@pytest.mark.parametrize("release", RELEASES)
def test_a_question_that_is_no_promql_is_refused_and_one_about_nothing_is_answered_by_nothing(
    fleet: Fleet, release: str
) -> None:
    server = fleet.servers[release]
    assert server.query("hmm_no_such_metric") == []
    with pytest.raises(Refused, match="parse error"):
        server.query("sum(hmm_migrations_started_total")


def test_a_rule_is_evaluated(tmp_path: Path) -> None:
    file = tmp_path / "rules.yml"
    file.write_text("groups: [{name: one, rules: [{record: 'one:one:one', expr: vector(1)}]}]")
    with Prometheus(tmp_path, rule_files=[file]) as server:
        assert [rule["name"] for rule in server.rules()] == ["one:one:one"]
        assert [series.value for series in server.wait_for("one:one:one")] == [1]


def test_a_configuration_that_prometheus_refuses_fails_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="no_such_field"), Prometheus(tmp_path, [{"no_such_field": 1}]):
        pass
