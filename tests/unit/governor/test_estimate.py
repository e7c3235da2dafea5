# SPDX-License-Identifier: Apache-2.0
"""CPU time from runs and from the time of some of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmm_exporter.governor.estimate import ASSUMED_NANOSECONDS, Counted, Estimate

PROBE = "migrate_vma_setup"


def nanoseconds(estimate: Estimate) -> float:
    return estimate.seconds()[PROBE] * 1e9


def observed(*counted: Counted) -> float:
    estimate = Estimate()
    for each in counted:
        estimate.observe({PROBE: each})
    return nanoseconds(estimate)


def test_where_no_run_is_timed_each_takes_what_is_assumed() -> None:
    assert observed(Counted(10), Counted(1000)) == pytest.approx(1000 * ASSUMED_NANOSECONDS)


def test_where_every_run_is_timed_it_is_the_kernels_total() -> None:
    assert observed(Counted(10, 10, 5000), Counted(30, 30, 6000)) == pytest.approx(6000)


def test_runs_that_are_not_timed_take_what_timed_ones_took() -> None:
    assert observed(Counted(100, 100, 50_000), Counted(6000, 100, 50_000)) == pytest.approx(6000 * 500)


def test_later_measurements_weigh_more() -> None:
    """100 runs of 500 ns count half when 100 of 2000 ns have been seen."""
    first, second = Counted(100, 100, 50_000), Counted(200, 200, 250_000)
    a_run = (0.5 * 50_000 + 200_000) / (0.5 * 100 + 100)
    assert observed(first, second, Counted(1200, 200, 250_000)) == pytest.approx(250_000 + 1000 * a_run)


def test_a_run_that_is_counted_but_has_not_ended_is_not_counted_twice() -> None:
    assert observed(Counted(10, 9, 900), Counted(10, 10, 1000)) == pytest.approx(900 + 100 + 100)
    assert observed(Counted(10, 9, 900), Counted(10, 10, 1000), Counted(20, 20, 2000)) == pytest.approx(2000 + 100)


def test_programs_that_are_loaded_anew_are_timed_from_nought() -> None:
    assert observed(Counted(100, 100, 50_000), Counted(110, 10, 5000)) == pytest.approx(55_000)


def test_probes_are_told_apart() -> None:
    estimate = Estimate()
    estimate.observe({"a": Counted(1, 1, 1000), "b": Counted(2, 2, 4000)})
    assert estimate.seconds() == pytest.approx({"a": 1e-6, "b": 4e-6})


steps = st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**9))


@given(st.lists(steps, max_size=30))
def test_it_never_goes_down(growth: list[tuple[int, int, int]]) -> None:
    estimate = Estimate()
    runs = timed = spent = 0
    last = 0.0
    for more_runs, more_timed, more_spent in growth:
        runs += more_runs
        timed = min(timed + more_timed, runs)
        spent += more_spent
        estimate.observe({PROBE: Counted(runs, timed, spent)})
        assert nanoseconds(estimate) >= last
        last = nanoseconds(estimate)
