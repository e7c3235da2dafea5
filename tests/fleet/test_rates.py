# SPDX-License-Identifier: Apache-2.0
"""`sum(rate())` of a real Prometheus against the truth of random histories: admission, overflow, end, reload, restart.

What Prometheus can know is what it has scraped, and increase() counts from a series' first sample on. So there are two
kinds of histories, both summed over the labels whose values nobody knows beforehand:

* As the exporter is by default, a new series is shown at 0 for longer than there is no scrape (`series_from_zero`).
  Then increase() alone, without anything else, never counts what has not happened, and in the end has counted all of
  it, through restarts, too. It may be that late, so that there is some quiet before each restart and at the end: what
  nobody has scraped when a daemon is killed, nobody can know.
* With `series_from_zero: 0` nothing is late, and it holds exactly for any two scrapes that follow each other:
  increase(over both) + first samples of series that were not in the earlier one = what happened in between. Only what a
  counter hides that has already passed after a restart what it had before, the test has to add.

Both hold if nothing is counted twice, nothing moves between series, and no series goes down, though label sets end and
begin anew between two scrapes. With a window of two samples and a millisecond, increase() extrapolates by that
millisecond, which rounding takes away again.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest
from prometheus_client.metrics_core import Metric

from hmm_exporter.bpf.maps import KeyValues
from hmm_exporter.catalog.tables import Table
from hmm_exporter.metrics.collector import Rows
from tests.fleet.history import BYTES_OF_PROCESSES, FROM_ZERO, PAGE, WATCHED, Daemon, History, Scraped, Truth, live
from tests.fleet.prometheus import Prometheus, Series

HISTORIES = int(os.environ.get("HMM_HISTORIES", "6"))
ALONE = "alone "
"""So begin the names of histories whose series begin at 0."""
UNKNOWN_BEFOREHAND = "pgmap_owner, device, driver, comm"
_SAMPLE = re.compile(r"(?P<name>\w+)\{(?P<labels>.*)\} (?P<value>\S+)")


def _forget_what_ended(daemon: Daemon) -> None:
    """A series that two rows share goes down when one of them ends."""
    daemon.idle._ended = lambda table, row: None


def _book_anew(daemon: Daemon) -> None:
    """What found no room among the series gets one of its own as soon as there is, with all that it has counted."""
    families = daemon.collector.families

    def forgetful(rows: Rows, now: float = 0.0) -> list[Metric]:
        daemon.collector._booked_as = {}
        return families(rows, now)

    daemon.collector.families = forgetful  # type: ignore[method-assign]


def _name_anew(daemon: Daemon) -> None:
    """An owner on the heap is called differently in each scrape."""
    families = daemon.collector.families

    def forgetful(rows: Rows, now: float = 0.0) -> list[Metric]:
        answer = families(rows, now)
        daemon.scrape.names.forget(list(daemon.scrape.names._owners), [])
        return answer

    daemon.collector.families = forgetful  # type: ignore[method-assign]


def _count_twice(daemon: Daemon) -> None:
    """Who is admitted after having been in `other` takes along what it had there."""
    count = daemon.programs.count
    refused: Counter[object] = Counter()

    def twice(table: Table, key: KeyValues, **amounts: int | list[int]) -> KeyValues:
        before = daemon.programs.overflow
        booked = count(table, key, **amounts)
        if daemon.programs.overflow > before:
            refused[table, key] += 1
        elif refused.pop((table, key), 0):
            count(table, key, **amounts)
        return booked

    daemon.programs.count = twice  # type: ignore[method-assign]


def _show_at_once(daemon: Daemon) -> None:
    """A series begins at what it has counted."""
    daemon.scrape._beginnings.new = lambda series, now: ()  # type: ignore[method-assign]


FAULTS: Mapping[str, Callable[[Daemon], None]] = {
    each.__name__.strip("_"): each for each in (_forget_what_ended, _book_anew, _name_anew, _count_twice)
}
FAULTS_ALONE = {**FAULTS, "show_at_once": _show_at_once}


@pytest.fixture(scope="module")
def histories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, History]:
    """By a label's value: sound ones by their seed, others by what is wrong with them."""
    folder = tmp_path_factory.mktemp("histories")
    start = int(time.time()) // 3600 * 3600 - 3 * 3600
    made: dict[str, History] = {}
    for kind, from_zero, faults in (("", 0.0, FAULTS), (ALONE, FROM_ZERO, FAULTS_ALONE)):
        made |= {f"{kind}{seed}": live(folder, seed, start, from_zero) for seed in range(HISTORIES)}
        made |= {f"{kind}{name}": live(folder, 1, start, from_zero, spoil) for name, spoil in faults.items()}
    return made


@pytest.fixture(scope="module")
def prometheus(histories: Mapping[str, History], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """One that has scraped them all."""
    folder = tmp_path_factory.mktemp("rates")
    past = folder / "past"
    with past.open("w") as file:
        for name, history in histories.items():
            file.writelines(_with_times(name, history))
        file.write("# EOF\n")
    with Prometheus(folder, past=past) as running:
        yield running


def _with_times(name: str, history: History) -> Iterator[str]:
    """Expositions as one, with labels for what aggregation and increase() would else take away."""
    for scrape in history.scrapes:
        for line in scrape.exposition.splitlines():
            sample = _SAMPLE.fullmatch(line) or re.fullmatch(r"(?P<name>\w+)(?P<labels>) (?P<value>\S+)", line)
            if sample and sample["name"] in WATCHED:
                its = f'history="{name}",metric="{sample["name"]}",{sample["labels"]}'.rstrip(",")
                yield f"{sample['name']}{{{its}}} {sample['value']} {scrape.at}\n"


def _counted(prometheus: Prometheus, name: str, before_it: Scraped, scrape: Scraped) -> Truth:
    """What Prometheus makes of a scrape and the one before it: of increase() alone, where series begin at 0."""
    gap = scrape.at - before_it.at
    series = f'{{history="{name}",metric!=""}}'
    now, before = f"last_over_time({series}[1ms])", f"last_over_time({series}[1ms] offset {gap}s)"
    parts = [f"increase({series}[{gap}s1ms])"]
    if not name.startswith(ALONE):
        parts.append(f"({now} unless {before})")
        if scrape.restarted:
            parts.append(f"({before} <= {now})")
    counted: Truth = Counter()
    for part in parts:
        answer = prometheus.query(f"sum without ({UNKNOWN_BEFOREHAND}) ({part})", scrape.at)
        counted.update(dict(_exact(each) for each in answer))
    return +counted


def _exact(series: Series) -> tuple[tuple[str, frozenset[tuple[str, str]]], int]:
    its = dict(series.labels)
    del its["history"]
    metric = its.pop("metric")
    unit = PAGE if metric == BYTES_OF_PROCESSES else 1
    return (metric, frozenset(its.items())), round(series.value / unit) * unit


def _differences(prometheus: Prometheus, name: str, history: History) -> Sequence[object]:
    found: list[object] = []
    for before, scrape in zip(history.scrapes, history.scrapes[1:]):
        counted = _counted(prometheus, name, before, scrape)
        if counted != scrape.truth:
            found.append((scrape.at, counted - scrape.truth, scrape.truth - counted))
    return found


def _differences_in_all(prometheus: Prometheus, name: str, history: History) -> Sequence[object]:
    """What was ever counted without having happened, and what was not counted in the end."""
    found: list[object] = []
    counted: Truth = Counter()
    truth: Truth = Counter()
    for before, scrape in zip(history.scrapes, history.scrapes[1:]):
        counted += _counted(prometheus, name, before, scrape)
        truth += scrape.truth
        if counted - truth:
            found.append((scrape.at, counted - truth))
    return [*found, *(truth - counted).items()]


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_what_prometheus_counts_between_two_scrapes_is_what_happened(
    prometheus: Prometheus, histories: Mapping[str, History], seed: int
) -> None:
    assert _differences(prometheus, str(seed), histories[str(seed)]) == []


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_increase_alone_is_in_the_end_what_happened_and_never_more(
    prometheus: Prometheus, histories: Mapping[str, History], seed: int
) -> None:
    name = f"{ALONE}{seed}"
    assert _differences_in_all(prometheus, name, histories[name]) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_it_would_show_if_it_were_otherwise(
    prometheus: Prometheus, histories: Mapping[str, History], fault: str
) -> None:
    assert _differences(prometheus, fault, histories[fault])


@pytest.mark.parametrize("fault", FAULTS_ALONE)
def test_of_increase_alone_it_would_show_too(
    prometheus: Prometheus, histories: Mapping[str, History], fault: str
) -> None:
    name = f"{ALONE}{fault}"
    assert _differences_in_all(prometheus, name, histories[name])


def test_there_was_everything_in_the_histories(histories: Mapping[str, History]) -> None:
    for kind in ("", ALONE):
        sound = [histories[f"{kind}{seed}"] for seed in range(HISTORIES)]
        happened = sum((each.happened for each in sound), Counter[str]())
        assert min(happened[what] for what in ("ended", "anew", "overflow", "reload", "restart")) > 10, happened
        assert sum(sum(scrape.truth.values()) for each in sound for scrape in each.scrapes) > 10_000
