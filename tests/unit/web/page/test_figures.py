# SPDX-License-Identifier: Apache-2.0
"""Rates: since when, over how long, and for whom."""

from __future__ import annotations

import pytest
from prometheus_client.metrics_core import Metric as Family

from hmm_exporter.report.units import Unit
from hmm_exporter.web.page.figures import FORGET_SECONDS, SHORTEST_SECONDS, Figures, Memory, percent, written
from hmm_exporter.web.telemetry import Busy
from tests.unit.report.figures import counter
from tests.unit.web.page.viewer import Clock


class Counter:
    """A scrape of one counter; how often it was asked for."""

    def __init__(self) -> None:
        self.value = 0
        self.asked = 0
        self.clock = Clock()
        self.memory = Memory(self.families, self.clock)

    def families(self, patience: float) -> list[Family]:
        self.asked += 1
        return [counter("hmm_a", ({"x": "1"}, self.value))]

    def look(self, value: int, after: float = 0) -> Figures:
        self.value = value
        self.clock.seconds += after
        return self.memory.look(1)


def test_the_first_look_has_what_was_counted_in_all() -> None:
    figures = Counter().look(30)
    assert (figures.seconds, figures.time) == (0, "all the time")
    assert figures.rate(figures.new.total("hmm_a_total"), Unit.count) == "30"


def test_the_next_look_has_exact_rates_over_the_time_in_between() -> None:
    seen = Counter()
    seen.look(30)
    figures = seen.look(60, after=12)
    assert (figures.total.total("hmm_a_total"), figures.new.total("hmm_a_total"), figures.seconds) == (60, 30, 12)
    assert figures.rate(30, Unit.count) == "2.5/s"
    assert figures.time == "the last 12\xa0s"
    assert seen.look(60, after=150).time == "the last 2.50\xa0min"


def test_of_two_who_look_in_turn_each_sees_the_time_since_the_others_look() -> None:
    seen = Counter()
    seen.look(0)
    assert [seen.look(value, after=5).rate(10, Unit.count) for value in (10, 20)] == ["2/s", "2/s"]


def test_who_looks_again_at_once_sees_the_same_and_nothing_is_asked() -> None:
    seen = Counter()
    seen.look(0)
    first = seen.look(10, after=10)
    assert all(seen.look(value, after=SHORTEST_SECONDS / 8) is first for value in (11, 12, 13))
    assert seen.asked == 2
    assert seen.look(30, after=SHORTEST_SECONDS).new.total("hmm_a_total") == 20


def test_a_look_after_an_hour_is_a_first_one() -> None:
    seen = Counter()
    seen.look(10)
    assert seen.look(20, after=FORGET_SECONDS).seconds == 0


def test_a_counter_that_began_anew_has_counted_what_it_says() -> None:
    seen = Counter()
    seen.look(100)
    assert seen.look(7, after=10).new.total("hmm_a_total") == 7


def test_a_scrape_that_is_busy_takes_nothing_from_the_next_look() -> None:
    seen = Counter()
    busy = iter((False, True, False))

    def sometimes(patience: float) -> list[Family]:
        if next(busy):
            raise Busy("others are running")
        return seen.families(patience)

    memory = Memory(sometimes, seen.clock)
    memory.look(1)
    seen.value, seen.clock.seconds = 20, seen.clock.seconds + 5
    with pytest.raises(Busy):
        memory.look(1)
    seen.clock.seconds += 5
    figures = memory.look(1)
    assert (figures.seconds, figures.new.total("hmm_a_total")) == (10, 20)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, Unit.count, "0"),
        (0.25, Unit.count, "0.25"),
        (7.816, Unit.count, "7.82"),
        (12345.6, Unit.count, "12,346"),
        (1536, Unit.bytes, "1.50\xa0KiB"),
        (2.0**-15, Unit.seconds, "30.5\xa0µs"),
    ],
)
def test_a_figure_is_short_and_stays_on_one_line(value: float, unit: Unit, text: str) -> None:
    assert written(value, unit) == text


@pytest.mark.parametrize(("share", "text"), [(0, "0"), (0.003, "0.3"), (0.0996, "10"), (0.42, "42"), (1.2, "120")])
def test_a_share_is_a_percentage(share: float, text: str) -> None:
    assert percent(share) == f"{text}\xa0%"
