# SPDX-License-Identifier: Apache-2.0
"""What changes while it runs: probes come and go, limits are set anew; no series goes down, nothing moves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hmm_exporter.bpf.maps import Row
from hmm_exporter.bpf.plan import ATTACHED, SHED, Outcome
from hmm_exporter.catalog import tables
from hmm_exporter.catalog.metrics import METRICS
from hmm_exporter.catalog.probes import GROUPS
from hmm_exporter.catalog.values import DEVICE_NONE, OTHER_POINTER, Class, Intent, RangeFunction, Trigger
from hmm_exporter.config import Config, Limits, Probes, Seconds
from hmm_exporter.metrics.collector import Collector
from tests.unit.bpf.in_memory import map_set
from tests.unit.metrics.exposed import EVERYTHING, HEAP, collector, comm, names_with, row, rows_of, samples
from tests.unit.metrics.test_scrape import OWNER, World

STARTED = "hmm_migrations_started_total"
FAULTS = "hmm_range_faults_total"


@pytest.fixture
def everything(tmp_path: Path) -> Iterator[World]:
    groups = {group.name: True for group in GROUPS}
    with map_set() as (bpf, maps):
        made = World(bpf, maps, tmp_path, Config(probes=Probes(groups=groups)))
        yield made
        made.close()


def without(outcomes: list[Outcome], group: str) -> list[Outcome]:
    return [replace(each, state=SHED, kind="none") if each.probe.group == group else each for each in outcomes]


def total(world: World, name: str) -> float | None:
    """The sum of a metric's series; None if it is absent."""
    found = [value for (series, _), value in samples(world.scrape.collect()).items() if series == name]
    return sum(found) if found else None


def fault(world: World) -> None:
    key = (OTHER_POINTER, RangeFunction.hmm_range_fault, Intent.read)
    world.bpf.book(tables.RANGE_FAULT, key, calls=1)


def test_what_no_attached_probe_feeds_is_absent_and_comes_back_with_what_it_had(everything: World) -> None:
    fault(everything)
    everything.owner_with_rows(OWNER)
    everything.scrape.watch(without(everything.attachments.outcomes, "range_fault"))
    assert (total(everything, FAULTS), total(everything, STARTED)) == (None, 3)
    everything.scrape.watch(everything.attachments.outcomes)
    fault(everything)
    assert (total(everything, FAULTS), total(everything, STARTED)) == (2, 3)


@pytest.mark.parametrize("group", [group.name for group in GROUPS])
def test_a_group_that_goes_takes_its_own_metrics_and_no_other(everything: World, group: str) -> None:
    its_probes = {each.probe.name for each in everything.attachments.outcomes if each.probe.group == group}
    its_metrics = {
        metric.name.removesuffix("_total")
        for metric in METRICS
        if all(its_probes & set(source.probes) for source in metric.sources)
    }
    before = {family.name for family in everything.scrape.collect()}
    everything.scrape.watch(without(everything.attachments.outcomes, group))
    assert before - {family.name for family in everything.scrape.collect()} == its_metrics & before != set()
    everything.scrape.watch(everything.attachments.outcomes)
    assert before == {family.name for family in everything.scrape.collect()}


def test_a_metric_that_is_fed_in_part_keeps_all_that_it_had(everything: World) -> None:
    """Its sum must not go down: Prometheus would take what is left for new."""
    fault(everything)
    key = (OTHER_POINTER, RangeFunction.hmm_range_fault_unlocked_timeout, Intent.read)
    everything.bpf.book(tables.RANGE_FAULT, key, calls=5)
    assert total(everything, FAULTS) == 6
    gone = "hmm_range_fault_unlocked_timeout"
    everything.scrape.watch(
        [replace(each, state=SHED) if each.probe.name == gone else each for each in everything.attachments.outcomes]
    )
    assert total(everything, FAULTS) == 6


def test_a_probe_that_was_never_attached_shows_nothing_until_it_is(tmp_path: Path) -> None:
    with map_set() as (bpf, maps):
        world = World(bpf, maps, tmp_path)
        invalidations = "hmm_mmu_notifier_invalidations_total"
        assert total(world, invalidations) is None
        world.scrape.watch([replace(each, state=ATTACHED) for each in world.attachments.outcomes])
        assert total(world, invalidations) == 0
        world.close()


def test_the_state_of_the_probes_follows(everything: World) -> None:
    everything.scrape.watch(without(everything.attachments.outcomes, "per_page"))
    found = samples(everything.scrape.collect())
    probe = "set_migration_pte"
    assert found[("hmm_exporter_probe_attached", frozenset({("probe", probe)}))] == 0
    labels = {"probe": probe, "function": probe, "kind": "none", "state": "shed"}
    assert found[("hmm_exporter_probe_info", frozenset(labels.items()))] == 1


def stall(name: str, owner: int, seconds: int) -> Row:
    return row(tables.PROCESS_MIGRATION, (comm(name), owner, 1), fault_stall_ns=10**9 * seconds)


def stalled(made: Collector, *rows: Row) -> dict[str, float]:
    found = samples(made.families(rows_of(*((tables.PROCESS_MIGRATION, each) for each in rows))))
    name = "hmm_process_fault_stall_seconds_total"
    return {dict(labels)["comm"]: value for (series, labels), value in found.items() if series == name}


FINALIZE = frozenset({"migrate_vma_finalize"})


def test_what_ends_while_its_metric_is_absent_stays_in_the_sum_of_a_label_set_that_is_still_there(
    tmp_path: Path,
) -> None:
    made = collector(tmp_path, FINALIZE)
    one, two = stall("a", HEAP[0], 5), stall("a", HEAP[1], 7)
    assert stalled(made, one, two) == {"a": 12}
    made.watch(frozenset())
    assert stalled(made, one, two) == {}
    assert made.series == 0
    made.end(tables.PROCESS_MIGRATION, two)
    made.forget_ended(rows_of((tables.PROCESS_MIGRATION, one)))
    assert stalled(made, one) == {}
    made.watch(FINALIZE)
    assert stalled(made, one) == {"a": 12}


def crowded(folder: Path, room: int) -> Collector:
    """Room for so many processes."""
    held_back = 100 - Collector(FINALIZE, names_with(folder), 100).series_limit
    return Collector(FINALIZE, names_with(folder), held_back + room)


A, B, C = stall("a", HEAP[0], 5), stall("b", HEAP[0], 7), stall("c", HEAP[0], 9)


def test_with_more_room_what_is_other_stays_other_and_what_is_new_is_shown(tmp_path: Path) -> None:
    made = crowded(tmp_path, 1)
    assert stalled(made, A, B) == {"a": 5, "other": 7}
    made.limit(100)
    assert stalled(made, A, B, C) == {"a": 5, "other": 7, "c": 9}


def test_with_less_room_what_is_shown_stays_shown_and_what_is_new_is_other(tmp_path: Path) -> None:
    made = crowded(tmp_path, 2)
    assert stalled(made, A, B) == {"a": 5, "b": 7}
    made.limit(made.series_limit)
    assert stalled(made, A, B, C) == {"a": 5, "b": 7, "other": 9}


def test_a_metric_that_is_absent_keeps_its_room(tmp_path: Path) -> None:
    """Or it would not fit when it comes back, and limits.series is a hard ceiling."""
    setup = FINALIZE | {"migrate_vma_setup"}
    names = names_with(tmp_path)
    most = 100 + (100 - Collector(setup, names, 100).series_limit)
    made = Collector(setup, names, most)
    rows = [(tables.PROCESS_MIGRATION, stall(f"job-{number}", HEAP[0], 1)) for number in range(60)]
    made.families(rows_of(*rows))
    full = made.series
    made.watch(FINALIZE)
    rows += [(tables.PROCESS_MIGRATION, stall(f"late-{number}", HEAP[0], 1)) for number in range(60)]
    made.families(rows_of(*rows))
    made.watch(setup)
    made.families(rows_of(*rows))
    assert full <= made.series <= most


def test_with_room_for_fewer_callers_those_that_have_a_name_keep_it(tmp_path: Path) -> None:
    stacks = {1: (0xFFFFFFFFC0101000,), 2: (0xFFFFFFFFC0200000,), 3: (0xFFFFFFFFC0300000,)}
    names = names_with(tmp_path, stacks=stacks, callers=2)
    names.learn({}, [], [1])
    names.limit(1)
    names.learn({}, [], [2])
    names.limit(20)
    names.learn({}, [], [3])
    callers = [names.caller(stack) for stack in stacks]
    assert callers == ["svm_range_restore_pages", "other", "drm_pagemap_migrate_to_devmem"]


def test_a_shorter_ttl_ends_what_has_been_idle_for_so_long_already(
    everything: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything.owner_with_rows(OWNER)
    now = [1000.0]
    assert everything.scrape._idle
    monkeypatch.setattr(everything.scrape._idle, "_clock", lambda: now[0])
    everything.scrape.sweep()
    now[0] += 100
    everything.scrape.sweep()
    key = (OWNER, Class.evict, Trigger.kthread, DEVICE_NONE)
    assert everything.attachments.maps
    assert key in {each.key for each in everything.attachments.maps.read(tables.MIGRATION)}
    everything.scrape.limit(Config(limits=Limits(idle_ttl=Seconds(60.0))))
    everything.scrape.sweep()
    assert key not in {each.key for each in everything.attachments.maps.read(tables.MIGRATION)}


def test_everything_is_there_again_after_all_has_gone_and_come_back(tmp_path: Path) -> None:
    with map_set() as (_, maps):
        made = collector(tmp_path, EVERYTHING)
        rows = {table: maps.read(table) for table in tables.TABLES}
        before = samples(made.families(rows))
        made.watch(frozenset())
        assert made.families(rows) == []
        made.watch(EVERYTHING)
        assert samples(made.families(rows)) == before
