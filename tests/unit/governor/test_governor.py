# SPDX-License-Identifier: Apache-2.0
"""How a decision is put into effect: step by step, threads inside, what fails; over maps in memory."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from hmm_exporter.bpf.plan import ATTACHED, DISABLED, SHED, Outcome
from hmm_exporter.catalog import tables
from hmm_exporter.catalog.probes import GROUPS, PROBES
from hmm_exporter.config import Config, Probes
from hmm_exporter.governor import governor as governors
from hmm_exporter.governor.governor import GRACE_SECONDS, Governor
from hmm_exporter.governor.policy import WINDOW_SECONDS
from hmm_exporter.metrics.books import IN_MIGRATION
from hmm_exporter.metrics.exporter import Runs
from hmm_exporter.privileged.message import Busy, Refused
from hmm_exporter.probing import begins, bits
from tests.unit.bpf.in_memory import map_set
from tests.unit.metrics.exposed import samples
from tests.unit.metrics.test_scrape import World

GAUGES = {
    "hmm_exporter_bpf_cpu_measured": set[str](),
    "hmm_exporter_group_shed": {"group"},
    "hmm_exporter_helper_up": set[str](),
}
COUNTERS = {"hmm_exporter_bpf_cpu_seconds": set[str](), "hmm_exporter_sheds": {"group"}}
"""The contract."""

NUMBER = {probe.name: number for number, probe in enumerate(PROBES)}
LIMIT = 0.01


class Attaching:
    """Stands where `hmm_exporter.probing.Probing` does, and notes what is asked of it."""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        self.outcomes: Sequence[Outcome] = outcomes
        self.permitted = True
        self.refusal = ""
        self.asked: list[tuple[str, frozenset[str]]] = []
        self.fds: list[int] = []
        self.can_attach = True
        self.busy = False

    def statistics(self) -> int | None:
        self._at_once()
        if not self.permitted:
            return None
        self.fds.append(os.open(os.devnull, os.O_RDONLY))
        return self.fds[-1]

    def shed(self, probes: Collection[str], reason: str) -> None:
        assert "limits.cpu (1% of a CPU)" in reason
        self._at_once()
        if not probes:
            return
        again = all(each.state == SHED for each in self.outcomes if each.probe.name in probes)
        self.asked.append(("returns" if again else "entries", frozenset(probes)))
        self._become(probes, SHED)

    def take_back(self, probes: Collection[str]) -> None:
        self._at_once()
        if self.refusal:
            raise Refused(self.refusal)
        self.asked.append(("take back", frozenset(probes)))
        self._become(probes, ATTACHED)

    def _at_once(self) -> None:
        if self.busy:
            raise Busy("a reload is under way")

    def _become(self, probes: Collection[str], state: str) -> None:
        self.outcomes = [replace(o, state=state) if o.probe.name in probes else o for o in self.outcomes]


class Node:
    """A governor, and programs that run as often as the test says."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.attaching = Attaching(world.attachments.outcomes)
        self.told = 0
        self.governor = Governor(LIMIT, self.attaching, world.attachments, world.scrape, self.tell)
        self.now = 0.0
        self.governor.round(self.now)

    def tell(self) -> None:
        self.told += 1

    def round(self, seconds: float) -> float:
        self.now += seconds
        return self.governor.round(self.now)

    def runs(self, probe: str, count: int) -> None:
        self.world.bpf.book(tables.PROBE_CALL, (NUMBER[probe],), runs=count)

    def shed(self, probe: str) -> None:
        """By a minute in which it ran a million times: 2% of a CPU."""
        self.runs(probe, 10**6)
        self.round(WINDOW_SECONDS)

    def found(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        return samples(self.governor.collect())

    def group(self, name: str, group: str) -> float:
        return self.found()[(f"hmm_exporter_{name}", frozenset({("group", group)}))]

    def threads(self) -> set[bytes]:
        assert self.world.attachments.maps
        return {thread.key for thread in self.world.attachments.maps.read_threads()}


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setattr(governors, "statistics_are_on", lambda: False)
    with map_set() as (bpf, maps):
        config = Config(probes=Probes(groups={group.name: True for group in GROUPS}))
        world = World(bpf, maps, tmp_path, config)
        made = Node(world)
        yield made
        made.governor.close()
        world.close()


RANGE = frozenset({"hmm_range_fault", "hmm_range_fault_unlocked_timeout"})
LOCKED = frozenset({"hmm_range_fault_locked"})
MIGRATION = frozenset({"migrate_vma_pages", "migrate_vma_finalize", "migrate_device_unmap"})


def test_the_exposition_has_the_metrics_of_the_contract_and_no_others(node: Node) -> None:
    families = {family.name: family for family in node.governor.collect()}
    assert families.keys() == GAUGES.keys() | COUNTERS.keys()
    for name, labels in (GAUGES | COUNTERS).items():
        assert families[name].type == ("counter" if name in COUNTERS else "gauge")
        assert {frozenset(sample.labels) for sample in families[name].samples} == {frozenset(labels)}, name
        assert families[name].documentation.isprintable()


def test_only_what_begins_a_call_is_let_go_of_first() -> None:
    followers = {probe.name for probe in PROBES if not begins(probe.name)}
    assert followers == LOCKED | MIGRATION


def test_a_group_goes_in_steps_its_returns_when_no_thread_is_inside(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    node.world.bpf.enter(1, bits(["hmm_range_fault"]), 1 << 62)
    with caplog.at_level(logging.WARNING):
        node.shed("hmm_range_fault")
    assert node.attaching.asked == [("entries", RANGE)]
    assert node.round(1) == governors.TIMED_SECONDS
    assert node.attaching.asked == [("entries", RANGE)]
    node.world.bpf.leave(1)
    node.round(1)
    assert node.attaching.asked == [("entries", RANGE), ("entries", LOCKED), ("returns", RANGE | LOCKED)]
    assert node.told == 2
    (record,) = caplog.records
    assert record.getMessage() == "group of probes shed: watching takes more than limits.cpu"
    assert vars(record)["fields"]["group"] == "range_fault"
    assert vars(record)["fields"]["cpu"] == "2.17%"


def test_of_a_migration_the_end_is_seen_if_its_beginning_was(node: Node) -> None:
    node.world.bpf.enter(1, IN_MIGRATION, 1 << 62)
    node.shed("migrate_vma_setup")
    node.round(1)
    assert node.attaching.asked == [("entries", frozenset({"migrate_vma_setup"}))]
    node.world.bpf.leave(1)
    node.round(1)
    everything = MIGRATION | {"migrate_vma_setup"}
    assert node.attaching.asked[1:] == [("entries", MIGRATION), ("returns", everything)]


def test_a_call_that_takes_too_long_is_not_waited_for_and_its_thread_is_forgotten(node: Node) -> None:
    node.world.bpf.enter(1, IN_MIGRATION | bits(["migrate_vma_setup"]), 1 << 62)
    node.shed("migrate_vma_setup")
    node.round(GRACE_SECONDS - 1)
    assert node.threads()
    node.round(1)
    assert node.attaching.asked[-1][0] == "returns"
    assert not node.threads()
    found = samples(node.world.scrape.collect())
    assert found[("hmm_exporter_migrations_abandoned_total", frozenset())] == 1


def test_a_thread_that_is_inside_of_what_is_still_watched_is_kept_until_that_returns(node: Node) -> None:
    inside = bits(["hmm_range_fault"])
    node.world.bpf.enter(1, inside | IN_MIGRATION, 1 << 62)
    node.world.bpf.enter(2, inside, 1 << 62)
    node.world.bpf.enter(3, 0, 1 << 62)
    node.shed("hmm_range_fault")
    node.round(GRACE_SECONDS)
    assert {int.from_bytes(key, "little") for key in node.threads()} == {1, 3}
    node.world.bpf.enter(1, inside, 1 << 62)  # the migration is over
    node.round(1)
    assert {int.from_bytes(key, "little") for key in node.threads()} == {3}


def test_while_it_is_shed_metrics_say_so_and_its_own_are_absent(node: Node) -> None:
    assert (node.group("group_shed", "range_fault"), node.group("sheds_total", "range_fault")) == (0, 0)
    node.shed("hmm_range_fault")
    assert (node.group("group_shed", "range_fault"), node.group("sheds_total", "range_fault")) == (1, 1)
    assert node.group("group_shed", "migration") == 0
    assert "hmm_range_faults" not in {family.name for family in node.world.scrape.collect()}


def test_it_is_taken_back_whole(node: Node) -> None:
    node.shed("migrate_vma_setup")
    node.round(1)
    node.governor.limit(0)
    node.round(1)
    assert node.attaching.asked[-1] == ("take back", MIGRATION | {"migrate_vma_setup"})
    assert (node.group("group_shed", "migration"), node.group("sheds_total", "migration")) == (0, 1)
    assert "hmm_migrations_started" in {family.name for family in node.world.scrape.collect()}


def test_what_is_refused_stays_shed_and_is_tried_again(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    node.shed("hmm_range_fault")
    node.round(1)
    node.attaching.refusal = "the helper has ended"
    node.governor.limit(0)
    node.round(1)
    assert node.group("group_shed", "range_fault") == 1
    assert "group of probes not taken back" in caplog.text
    node.attaching.refusal = ""
    node.round(1)
    assert node.group("group_shed", "range_fault") == 0


def test_a_group_that_a_reload_switches_off_is_not_the_governors_any_more(node: Node) -> None:
    node.world.bpf.enter(1, bits(["hmm_range_fault"]), 1 << 62)
    node.shed("hmm_range_fault")
    asked = list(node.attaching.asked)
    node.attaching.outcomes = [
        replace(each, state=DISABLED) if each.probe.group == "range_fault" else each for each in node.attaching.outcomes
    ]
    node.round(1)
    assert node.attaching.asked == asked
    assert not node.threads(), "nobody sees it return"
    shed = {dict(labels)["group"] for name, labels in node.found() if name == "hmm_exporter_group_shed"}
    assert shed == {group.name for group in GROUPS} - {"range_fault"}


def test_a_second_in_sixty_is_timed(node: Node) -> None:
    (fd,) = node.attaching.fds
    os.fstat(fd)
    assert node.round(0.5) == pytest.approx(0.5)
    os.fstat(fd)
    assert node.round(0.5) == governors.ROUND_SECONDS
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    node.round(59.9)
    assert len(node.attaching.fds) == 1
    node.round(0.1)
    assert len(node.attaching.fds) == 2


def test_where_the_kernel_times_everything_nobody_asks_for_it(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.round(1)
    monkeypatch.setattr(governors, "statistics_are_on", lambda: True)
    node.round(60)
    assert len(node.attaching.fds) == 1
    assert node.found()[("hmm_exporter_bpf_cpu_measured", frozenset())] == 1


def test_where_it_is_forbidden_the_cost_is_assumed_and_that_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(governors, "statistics_are_on", lambda: False)
    monkeypatch.setattr(Attaching, "statistics", lambda attaching: None)
    with map_set() as (bpf, maps), caplog.at_level(logging.INFO):
        world = World(bpf, maps, tmp_path)
        node = Node(world)
        for _ in range(10):
            assert node.round(60) == governors.ROUND_SECONDS
        node.runs("hmm_range_fault", 1000)
        found = node.found()
        world.close()
    assert caplog.text.count("is assumed, not measured") == 1
    assert found[("hmm_exporter_bpf_cpu_measured", frozenset())] == 0
    assert found[("hmm_exporter_bpf_cpu_seconds_total", frozenset())] == pytest.approx(0.0013)


def test_what_the_kernel_times_is_of_all_programs_of_a_probe(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = node.world.attachments.programs
    programs.append(replace(programs[0], name="leave_migrate_vma_setup"))
    monkeypatch.setattr(governors, "program_runs", lambda fd: Runs(10, 5000, 0))
    node.runs("migrate_vma_setup", 20)
    counted = governors.counted(node.world.attachments)["migrate_vma_setup"]
    assert (counted.runs, counted.timed, counted.nanoseconds) == (20, 20, 10000)


def test_a_round_in_which_a_map_cannot_be_read_is_logged_and_the_next_one_goes_on(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(attachments: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(governors, "counted", refuse)
        node.round(15)
    assert "cannot see what watching costs" in caplog.text
    node.shed("hmm_range_fault")
    assert node.group("group_shed", "range_fault") == 1


def test_while_a_reload_is_under_way_it_waits_for_another_round(node: Node) -> None:
    node.attaching.busy = True
    node.shed("hmm_range_fault")
    assert node.attaching.asked == []
    node.attaching.busy = False
    node.shed("hmm_range_fault")
    assert node.group("group_shed", "range_fault") == 1


def test_without_the_helper_nothing_is_shed_that_could_not_come_back(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    node.attaching.can_attach = False
    node.shed("hmm_range_fault")
    node.shed("hmm_range_fault")
    assert node.attaching.asked == []
    assert caplog.text.count("the helper has ended") == 1
    assert node.found()[("hmm_exporter_helper_up", frozenset())] == 0
