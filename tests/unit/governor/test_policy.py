# SPDX-License-Identifier: Apache-2.0
"""What is shed and when, round by round, with a clock and costs of the test's."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from hmm_exporter.catalog.probes import GROUPS
from hmm_exporter.governor import policy
from hmm_exporter.governor.policy import Decision, Policy

ROUND = 15.0
LIMIT = 0.01
ORDER = [
    "per_page",
    "interval_notifier",
    "device_exclusive",
    "huge_fault",
    "device_range",
    "range_fault",
    "migration",
]


class Node:
    """Groups cost what the test says, as long as they are watched."""

    def __init__(self, limit: float = LIMIT, **costs: float) -> None:
        self.policy = Policy(GROUPS, limit)
        self.costs = costs
        self.seconds = dict.fromkeys(ORDER, 0.0)
        self.now = 1000.0

    def round(self) -> Decision | None:
        decision = self.policy.round(self.now, self.seconds)
        if decision:
            self.policy.done(decision, self.now)
        self.now += ROUND
        for group, cost in self.costs.items():
            if group not in self.policy.shed:
                self.seconds[group] += cost * ROUND
        return decision

    def run(self, seconds: float) -> Iterator[tuple[float, Decision]]:
        """Decisions, and how long after the beginning they were made."""
        begun = self.now
        while self.now - begun < seconds:
            at = self.now
            decision = self.round()
            if decision:
                yield at - begun, decision

    def decisions(self, seconds: float) -> list[tuple[str, bool]]:
        return [(decision.group, decision.shed) for _, decision in self.run(seconds)]


def test_the_order_is_the_catalogues() -> None:
    assert [group.name for group in sorted(GROUPS, key=lambda group: group.shed)] == ORDER
    assert sorted(group.shed for group in GROUPS) == list(range(1, len(GROUPS) + 1))


def test_below_the_limit_nothing_is_ever_shed() -> None:
    assert Node(migration=0.006, range_fault=0.0039).decisions(86400) == []


def test_above_it_one_group_is_shed_a_window_until_it_is_kept() -> None:
    node = Node(per_page=0.03, interval_notifier=0.005, range_fault=0.02, migration=0.006)
    found = list(node.run(600))
    assert [(at, each.group, each.shed) for at, each in found] == [
        (60, "per_page", True),
        (120, "interval_notifier", True),
        (180, "range_fault", True),
    ]
    first = found[0][1]
    assert first.cost == pytest.approx(0.03)
    assert first.total == pytest.approx(0.061)
    assert node.policy.shed == ("per_page", "interval_notifier", "range_fault")


def test_a_group_that_costs_next_to_nothing_is_passed_over() -> None:
    assert Node(per_page=0.0009, huge_fault=0.0001, migration=0.02).decisions(61) == [("migration", True)]


def test_a_burst_shorter_than_the_window_sheds_nothing() -> None:
    node = Node(migration=0.002)
    assert node.decisions(300) == []
    node.costs["migration"] = 0.03
    assert node.decisions(15) == []
    node.costs["migration"] = 0.002
    assert node.decisions(600) == []


def test_nothing_is_decided_before_a_whole_window_was_seen() -> None:
    assert Node(per_page=0.5).decisions(60) == []


def test_without_a_limit_nothing_is_shed() -> None:
    assert Node(limit=0, per_page=50.0).decisions(3600) == []


def test_what_was_shed_for_a_load_that_has_gone_is_taken_back_when_its_cost_is_not_believed_any_more() -> None:
    node = Node(per_page=0.02)
    assert node.decisions(61) == [("per_page", True)]
    node.costs.clear()
    ((at, back),) = node.run(3 * 3600)
    assert (back.group, back.shed) == ("per_page", False)
    # 2% twice halved is half of the limit, and then it has to stay quiet for a while.
    expected = 2 * policy.HALF_LIFE_SECONDS + policy.QUIET_SECONDS
    assert at == pytest.approx(expected, abs=policy.WINDOW_SECONDS)


def test_it_is_not_taken_back_while_the_rest_takes_half_of_the_limit() -> None:
    node = Node(per_page=0.02, migration=0.0051)
    assert node.decisions(86400) == [("per_page", True)]


def test_the_latest_is_taken_back_first() -> None:
    node = Node(per_page=0.02, range_fault=0.02)
    assert node.decisions(121) == [("per_page", True), ("range_fault", True)]
    node.costs.clear()
    assert node.decisions(86400) == [("range_fault", False), ("per_page", False)]


def test_what_is_too_dear_is_tried_again_more_and_more_seldom() -> None:
    node = Node(migration=0.1)
    shed = [at for at, each in node.run(7 * 86400) if each.shed]
    pauses = [later - earlier for earlier, later in itertools.pairwise(shed)]
    assert all(later >= earlier for earlier, later in itertools.pairwise(pauses))
    assert pauses[0] > 40 * 60
    assert pauses[-1] > 12 * 3600
    assert node.seconds["migration"] < LIMIT * 7 * 86400


def test_on_average_it_keeps_the_limit_whatever_a_group_costs() -> None:
    for cost in (0.011, 0.02, 0.05, 0.3, 1.0):
        node = Node(migration=cost)
        list(node.run(86400))
        assert node.seconds["migration"] < LIMIT * 86400, cost


def test_a_group_that_stayed_for_long_is_tried_as_soon_as_the_first_time() -> None:
    node = Node(migration=0.02)
    for _ in range(3):
        assert node.decisions(61)[-1] == ("migration", True)
        node.costs.clear()
        ((at, _),) = node.run(6 * 3600)
        assert at < 2 * policy.HALF_LIFE_SECONDS + policy.QUIET_SECONDS + 60
        assert node.decisions(policy.FORGIVEN_SECONDS) == []
        node.costs["migration"] = 0.02


def test_when_the_limit_is_lifted_all_is_taken_back_at_once() -> None:
    node = Node(per_page=0.02, migration=0.02)
    assert len(node.decisions(121)) == 2
    node.policy.limit = 0
    assert node.decisions(30) == [("migration", False), ("per_page", False)]
    assert node.decisions(3600) == []


def test_with_a_lower_limit_it_goes_on_shedding() -> None:
    node = Node(migration=0.006)
    assert node.decisions(300) == []
    node.policy.limit = 0.005
    assert node.decisions(61) == [("migration", True)]


def test_what_the_configuration_does_not_want_any_more_is_not_taken_back() -> None:
    node = Node(per_page=0.02)
    assert node.decisions(61) == [("per_page", True)]
    node.costs.clear()
    node.policy.keep(())
    assert node.policy.shed == ()
    assert node.decisions(86400) == []


def test_what_could_not_be_taken_back_is_tried_again_after_as_much_quiet() -> None:
    node = Node(per_page=0.011)
    assert node.decisions(61) == [("per_page", True)]
    node.costs.clear()
    tried = []
    for _ in range(500):
        if node.policy.round(node.now, node.seconds):
            tried.append(node.now)
            node.policy.failed()
        node.now += ROUND
    assert {later - earlier for earlier, later in itertools.pairwise(tried)} == {policy.QUIET_SECONDS + ROUND}


def test_after_an_hour_in_which_it_did_not_run_it_looks_at_the_average_of_that_hour() -> None:
    node = Node(migration=0.002)
    assert node.decisions(120) == []
    node.now += 3600
    node.seconds["migration"] += 3600 * 0.002
    assert node.decisions(120) == []
