# SPDX-License-Identifier: Apache-2.0
"""Snapshots: what was counted, sums of it, and what was counted in between."""

from __future__ import annotations

from hmm_exporter.catalog.values import Size
from hmm_exporter.report.snapshot import snapshot
from tests.unit.report.figures import counter, histogram


def test_sums_are_by_the_labels_asked_for_and_over_the_others() -> None:
    now = snapshot([counter("hmm_a", ({"x": "1", "y": "1"}, 2), ({"x": "1", "y": "2"}, 3), ({"x": "2", "y": "1"}, 5))])
    assert now.sums("hmm_a_total", ("x",)) == {("1",): 5, ("2",): 5}
    assert now.sums("hmm_a_total", ("x",), y="1") == {("1",): 2, ("2",): 5}
    assert now.total("hmm_a_total") == 10
    assert now.total("hmm_b_total") == 0


def test_a_metric_that_counted_nothing_is_there_and_one_that_is_not_watched_is_not() -> None:
    now = snapshot([counter("hmm_a", ({}, 0))])
    assert now.has("hmm_a_total")
    assert not now.has("hmm_b_total")
    assert now.sums("hmm_a_total") == {}


def test_the_difference_of_two_snapshots_leaves_out_what_stood_still() -> None:
    earlier = snapshot([counter("hmm_a", ({"x": "1"}, 2), ({"x": "2"}, 7))])
    later = snapshot([counter("hmm_a", ({"x": "1"}, 5), ({"x": "2"}, 7), ({"x": "3"}, 1))])
    assert later.since(earlier).sums("hmm_a_total", ("x",)) == {("1",): 3, ("3",): 1}


def test_what_went_back_has_begun_anew() -> None:
    earlier = snapshot([counter("hmm_a", ({}, 9)), histogram("hmm_h", Size.bytes, {}, {0: 2, 3: 5}, 100)])
    later = snapshot([counter("hmm_a", ({}, 4)), histogram("hmm_h", Size.bytes, {}, {0: 3, 3: 1}, 60)])
    new = later.since(earlier)
    assert new.total("hmm_a_total") == 4
    assert new.distributions("hmm_h", ())[()].count == later.distributions("hmm_h", ())[()].count


def test_of_a_histogram_what_was_observed_in_between_is_left() -> None:
    earlier = snapshot([histogram("hmm_h", Size.bytes, {"x": "1"}, {0: 2, 3: 1}, 100)])
    later = snapshot([histogram("hmm_h", Size.bytes, {"x": "1"}, {0: 2, 3: 5}, 180)])
    (its,) = later.since(earlier).distributions("hmm_h", ("x",)).values()
    assert (its.counts[0], its.counts[3], its.sum) == (0, 4, 80)
    assert later.since(later).distributions("hmm_h", ("x",)) == {}


def test_a_histogram_is_taken_apart_and_added_up() -> None:
    families = [histogram("hmm_h", Size.bytes, {"x": each}, {0: 2, 3: 1, 25: 4}, 100) for each in ("1", "2")]
    families[0].samples += families[1].samples
    now = snapshot(families[:1])
    (its,) = now.distributions("hmm_h", ()).values()
    assert its.counts == (4, 0, 0, 2, *(0 for _ in range(21)), 8)
    assert its.bounds[:2] == ("4096.0", "8192.0")
    assert its.bounds[-1] == "+Inf"
    assert (its.count, its.sum) == (14, 200)
    assert now.distributions("hmm_h", ("x",))[("1",)].count == 7
    assert now.total("hmm_h_count") == 14
