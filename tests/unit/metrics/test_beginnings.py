# SPDX-License-Identifier: Apache-2.0
"""A series that is new is seen at 0 first."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from hmm_exporter.bpf.maps import Row
from hmm_exporter.catalog import tables
from hmm_exporter.metrics.beginnings import Beginnings, looking
from hmm_exporter.metrics.collector import Collector
from tests.unit.metrics.exposed import HEAP, comm, names_with, row, rows_of, samples

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


class Stalls:
    """Collections of a metric whose label sets each process has for itself."""

    def __init__(self, folder: Path) -> None:
        probes = frozenset({"migrate_vma_finalize"})
        self._collector = Collector(probes, names_with(folder), 1000, beginnings=Beginnings(60))

    def at(self, now: float, *rows: Row) -> dict[str, float]:
        families = self._collector.families(rows_of(*((tables.PROCESS_MIGRATION, each) for each in rows)), now)
        found = samples(families).items()
        return {dict(its)["comm"]: value for (name, its), value in found if name.endswith("_stall_seconds_total")}

    def end(self, row: Row) -> None:
        self._collector.end(tables.PROCESS_MIGRATION, row)
        self._collector.forget_ended(rows_of())


@pytest.fixture
def stalls(tmp_path: Path) -> Stalls:
    return Stalls(tmp_path)


STALL = row(tables.PROCESS_MIGRATION, (comm("a"), HEAP[0], 1), fault_stall_ns=3 * 10**9)


def test_a_row_that_ends_while_its_series_is_new_is_seen_at_what_it_had_counted(stalls: Stalls) -> None:
    """Found by the histories of tests/fleet/test_rates.py, with an idle_ttl of a minute."""
    assert stalls.at(0, STALL) == {"a": 0}
    stalls.end(STALL)
    assert [stalls.at(now) for now in (30, 59, 75, 90)] == [{"a": 0}, {"a": 0}, {"a": 3}, {}]


def test_to_look_ends_no_series_that_a_scrape_has_seen(stalls: Stalls) -> None:
    """Begun anew, it would come as far as it was, and nobody would see that it began anew."""
    assert [stalls.at(now, STALL) for now in (0, 60)] == [{"a": 0}, {"a": 3}]
    stalls.end(STALL)
    with looking():
        assert stalls.at(70) == {"a": 3}
    assert stalls.at(75, STALL) == {"a": 6}
