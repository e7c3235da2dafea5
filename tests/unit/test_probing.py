# SPDX-License-Identifier: Apache-2.0
"""Which probes are attached after what, with a helper that does as the test says. The real one is tests/bpf's."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hmm_exporter import probing as module
from hmm_exporter.bpf.attach import Attachments, wanted_programs
from hmm_exporter.bpf.link import Program
from hmm_exporter.bpf.plan import ATTACHED, DISABLED, ERROR, SHED, Outcome
from hmm_exporter.catalog.probes import GROUPS, PROBES
from hmm_exporter.config import Config
from hmm_exporter.privileged.message import Attach, Attached, Busy, Refused
from hmm_exporter.probing import Probing
from tests.unit.bpf.in_memory import map_set
from tests.unit.metrics.test_scrape import World

_PROBES = {probe.name: probe for probe in PROBES}


class Helper:
    """Attaches whatever it is asked for, with descriptors of /dev/null."""

    def __init__(self) -> None:
        self.asked: list[Attach] = []
        self.alive = True
        self.before: Callable[[Attach], None] = lambda request: None

    def attach(self, request: Attach, soon: bool = False) -> Attached:
        self.asked.append(request)
        self.before(request)
        outcomes = [Outcome(_PROBES[name], name, ATTACHED, "fentry") for name in request.probes]
        if request.load_only:
            return Attached(outcomes, [])
        groups = frozenset(request.groups)
        programs = [
            (Program(name, program, "fentry", os.open("/dev/null", os.O_RDONLY), name), os.open("/", os.O_RDONLY))
            for name in request.probes
            for program in reversed(wanted_programs(_PROBES[name], groups))
        ]
        return Attached(outcomes, programs)

    def statistics(self) -> int | None:
        return None

    def close(self) -> None:
        self.alive = False


class Node:
    def __init__(self, world: World, helper: Helper) -> None:
        self.config = world.config
        self.attachments = world.attachments
        self.scrape = world.scrape
        self.bpf = world.bpf
        self.helper = helper
        world.attachments.programs.clear()
        world.attachments.outcomes = [Outcome(probe, probe.name, DISABLED) for probe in PROBES]
        self.probing = Probing(self.without(*(group.name for group in GROUPS)), world.attachments, helper, world.scrape)  # type: ignore[arg-type]
        self.probing.regroup(self.config)
        helper.asked.clear()

    def without(self, *groups: str, exclude: tuple[str, ...] = ()) -> Config:
        on = {name: on and name not in groups for name, on in self.config.probes.groups.items()}
        return replace(self.config, probes=replace(self.config.probes, groups=on, exclude=exclude))

    def with_per_page(self) -> Config:
        groups = {**self.config.probes.groups, "per_page": True}
        return replace(self.config, probes=replace(self.config.probes, groups=groups))

    @property
    def attached(self) -> set[str]:
        """By their links."""
        return {program.probe for program, _ in self.attachments.links}

    def states(self, *states: str) -> set[str]:
        return {each.probe.name for each in self.probing.outcomes if each.state in states}


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setattr(module, "RETURN_SECONDS", 0.01)
    with map_set() as (bpf, maps):
        world = World(bpf, maps, tmp_path)
        yield Node(world, Helper())
        world.attachments.detach(world.attachments.probes)
        world.close()


def enabled(*groups: str) -> set[str]:
    return {probe.name for probe in PROBES if probe.group in groups}


DEFAULT = enabled(*(group.name for group in GROUPS if group.default))


def test_what_is_wanted_is_attached_and_the_rest_says_why_not(node: Node) -> None:
    assert node.attached == node.states(ATTACHED) == DEFAULT
    reasons = {each.reason for each in node.probing.outcomes if each.state == DISABLED}
    assert reasons == {"probes.groups.per_page is false"}


def test_who_needs_a_probe_that_is_excluded_goes_with_it_and_comes_back_with_it(node: Node) -> None:
    node.probing.regroup(node.without(exclude=("migrate_vma_setup",)))
    gone = {"migrate_vma_setup", "migrate_vma_pages", "migrate_vma_finalize", "migrate_device_unmap"}
    assert node.attached == node.states(ATTACHED) == DEFAULT - gone
    reasons = {each.probe.name: each.reason for each in node.probing.outcomes if each.probe.name in gone}
    assert reasons["migrate_vma_setup"] == "named in probes.exclude"
    assert reasons["migrate_vma_pages"] == "needs migrate_vma_setup"
    node.probing.regroup(node.config)
    assert node.attached == node.states(ATTACHED) == DEFAULT


def test_programs_that_are_others_with_another_group_are_loaded_before_the_old_ones_go(node: Node) -> None:
    attached_at_load: list[set[str]] = []
    node.helper.before = lambda request: attached_at_load.append(node.attached) if request.load_only else None
    node.probing.regroup(node.with_per_page())
    stale = {"migrate_device_range", "migrate_device_pfns"}
    first, *others = node.helper.asked
    assert (first.load_only, set(first.probes)) == (True, stale)
    assert attached_at_load == [DEFAULT]
    assert [set(each.probes) for each in others] == [enabled("per_page"), stale]
    assert node.attached == {probe.name for probe in PROBES}


def test_what_is_refused_has_changed_nothing(node: Node) -> None:
    def refuse(request: Attach) -> None:
        raise Refused("loader: killed by SIGSEGV while compiling")

    links = node.attachments.links
    node.helper.before = refuse
    with pytest.raises(Refused, match="SIGSEGV"):
        node.probing.regroup(node.with_per_page())
    assert node.attachments.links == links
    assert node.states(ATTACHED) == DEFAULT


def test_what_cannot_come_back_says_so(node: Node) -> None:
    def refuse(request: Attach) -> None:
        if "migrate_device_range" in request.probes and not request.load_only:
            raise Refused("the helper has ended")

    node.helper.before = refuse
    node.probing.regroup(node.with_per_page())
    assert node.states(ERROR) == {"migrate_device_range", "migrate_device_pfns"}
    assert node.attached == node.states(ATTACHED)


def test_what_is_shed_is_not_attached_by_a_reload_but_loaded_where_its_programs_are_others(node: Node) -> None:
    stale = ["migrate_device_range", "migrate_device_pfns"]
    node.probing.shed(stale, "too dear")
    node.probing.shed(stale, "too dear")
    node.probing.regroup(node.with_per_page())
    assert node.states(SHED) == set(stale)
    assert not node.attached & set(stale)
    assert [set(each.probes) for each in node.helper.asked if each.load_only] == [set(stale)]
    node.probing.take_back(stale)
    assert node.attached == node.states(ATTACHED) == {probe.name for probe in PROBES}


def test_what_is_shed_and_then_switched_off_is_disabled(node: Node) -> None:
    node.probing.shed(["do_huge_pmd_device_private"], "too dear")
    node.probing.regroup(node.without("huge_fault"))
    assert node.states(SHED) == set()
    assert "do_huge_pmd_device_private" not in node.attached | node.states(ATTACHED)


def test_what_arrived_on_a_device_while_nobody_saw_it_leave_is_forgotten(node: Node) -> None:
    node.probing.regroup(node.without("migration"))
    node.bpf.arrive(7, 9, 1)
    node.probing.regroup(node.config)
    assert node.bpf.maps["arrival_map"].rows == node.bpf.maps["resident_map"].rows == {}


def test_a_reload_of_other_options_asks_for_nothing(node: Node) -> None:
    node.probing.regroup(replace(node.config))
    assert node.helper.asked == []


def test_while_a_reload_is_under_way_nobody_waits_for_it(node: Node) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait(request: Attach) -> None:
        begun.set()
        assert go_on.wait(10)

    node.helper.before = wait
    reload = threading.Thread(target=node.probing.regroup, args=[node.with_per_page()])
    reload.start()
    assert begun.wait(10)
    for ask in (
        node.probing.statistics,
        lambda: node.probing.shed(["hmm_range_fault"], ""),
        lambda: node.probing.take_back(["hmm_range_fault"]),
    ):
        with pytest.raises(Busy):
            ask()
    go_on.set()
    reload.join()
    assert node.probing.statistics() is None


def test_it_is_closed_once_and_for_all(node: Node) -> None:
    attachments = Attachments()
    probe, link = (os.open("/dev/null", os.O_RDONLY) for _ in range(2))
    attachments.keep(Program("hmm_range_fault", "enter_hmm_range_fault", "fentry", probe, "hmm_range_fault"), link)
    probing = Probing(node.config, attachments, node.helper, node.scrape)  # type: ignore[arg-type]
    probing.close()
    assert not attachments.links
    assert not probing.can_attach
