# SPDX-License-Identifier: Apache-2.0
"""A series that is new is seen at 0 first."""

from __future__ import annotations

import threading

from hmm_exporter.metrics.beginnings import Beginnings, looking

A, B = ("hmm_a", ("x",)), ("hmm_b", ("y",))


def new(beginnings: Beginnings, now: float, *series: tuple[str, tuple[str, ...]]) -> set[tuple[str, tuple[str, ...]]]:
    return set(beginnings.new(series, now))


def test_what_is_new_stays_so_for_the_time_from_its_first_collection_on() -> None:
    beginnings = Beginnings(60)
    assert new(beginnings, 100, A) == {A}
    assert new(beginnings, 130, A, B) == {A, B}
    assert new(beginnings, 159.9, A, B) == {A, B}
    assert new(beginnings, 160, A, B) == {B}
    assert new(beginnings, 190, A, B) == set()
    assert new(beginnings, 1e9, A, B) == set()


def test_however_seldom_it_is_collected_it_is_new_once() -> None:
    beginnings = Beginnings(60)
    assert new(beginnings, 0, A) == {A}
    assert new(beginnings, 600, A) == set()


def test_what_was_gone_is_new_again() -> None:
    beginnings = Beginnings(60)
    new(beginnings, 0, A, B)
    new(beginnings, 100, A, B)
    assert new(beginnings, 115, B) == set()
    assert new(beginnings, 130, A, B) == {A}


def test_with_no_time_nothing_is_ever_new() -> None:
    beginnings = Beginnings(0)
    assert new(beginnings, 0, A) == set()
    assert new(beginnings, 15, A, B) == set()


def test_a_time_that_is_changed_counts_for_what_is_new_already() -> None:
    beginnings = Beginnings(60)
    new(beginnings, 0, A)
    beginnings.seconds = 0
    assert new(beginnings, 1, A) == set()
    beginnings.seconds = 60
    assert new(beginnings, 2, A, B) == {B}


def test_who_only_looks_sees_what_there_is_and_makes_nothing_known() -> None:
    beginnings = Beginnings(60)
    with looking():
        assert new(beginnings, 0, A) == set()
    assert new(beginnings, 0, A) == {A}
    with looking():
        assert new(beginnings, 1, A, B) == set()
    assert new(beginnings, 2, A, B) == {A, B}


def test_to_look_is_a_thread_s_own_affair() -> None:
    beginnings = Beginnings(60)
    seen: list[set[tuple[str, tuple[str, ...]]]] = []
    with looking():
        scrape = threading.Thread(target=lambda: seen.append(new(beginnings, 0, A)))
        scrape.start()
        scrape.join()
    assert seen == [{A}]


def test_it_remembers_no_more_than_there_is() -> None:
    beginnings = Beginnings(60)
    for number in range(1000):
        new(beginnings, number * 15.0, ("hmm_a", (str(number),)))
    assert len(beginnings._known) == 1
    assert len(beginnings._since) == 1
