# SPDX-License-Identifier: Apache-2.0
"""What watching costs, and groups that are shed and taken back: real programs and helper; the clock is the test's."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from hmm_exporter.bpf.attach import Attachments
from hmm_exporter.bpf.plan import ATTACHED, SHED
from hmm_exporter.bpf.watch import attach_probes
from hmm_exporter.catalog.probes import GROUPS, PROBES
from hmm_exporter.config import Config, Probes, Seconds
from hmm_exporter.governor import governor as governors
from hmm_exporter.governor.governor import Governor
from hmm_exporter.governor.policy import WINDOW_SECONDS
from hmm_exporter.kernel.simulated import simulated_kernel
from hmm_exporter.metrics.exporter import program_runs
from hmm_exporter.metrics.scrape import Scrape
from hmm_exporter.privileged.client import Client
from hmm_exporter.privileged.helper import start
from hmm_exporter.probing import Probing, bits
from tests.exposition import Samples
from tests.process import SIMULATOR, Exporter, issue_exactly

CONFIG = Config(probes=Probes(groups={group.name: True for group in GROUPS}), series_from_zero=Seconds(0.0))
LIMIT = 1e-9
"""Of a CPU: whatever runs is too much."""


class Watched:
    """The daemon's inside on the simulator."""

    def __init__(self, attachments: Attachments, client: Client, limit: float) -> None:
        self.attachments = attachments
        scrape = Scrape(simulated_kernel(Path(SIMULATOR)), CONFIG, attachments, ready_seconds=0)
        self.probing = Probing(CONFIG, attachments, client, scrape)
        self.governor = Governor(limit, self.probing, attachments, scrape)
        self._registry = CollectorRegistry()
        self._registry.register(scrape)
        self._registry.register(self.governor)
        self._now = 1000.0

    def scrape(self) -> Samples:
        return Samples.parse(generate_latest(self._registry).decode())

    def round(self, seconds: float = 0.0) -> None:
        """After so many seconds of the test's clock."""
        self._now += seconds
        self.governor.round(self._now)

    def shed(self) -> set[str]:
        found = self.scrape().named("hmm_exporter_group_shed")
        return {dict(labels)["group"] for labels, value in found.items() if value}

    def take_all_back(self) -> None:
        self.governor.limit(0)
        for _ in range(3 * len(GROUPS)):
            self.round(1)
        assert self.shed() == set()
        assert {each.state for each in self.probing.outcomes} == {ATTACHED}

    def seconds(self) -> float:
        return self.scrape().get("hmm_exporter_bpf_cpu_seconds_total")

    def timed_seconds(self) -> float:
        """By the kernel's own account."""
        return sum(program_runs(program.fd).nanoseconds for program in self.attachments.programs) / 1e9

    def threads_inside(self, groups: Collection[str]) -> int:
        assert self.attachments.maps
        wanted = bits([probe.name for probe in PROBES if probe.group in groups])
        return sum(bool(thread.inside & wanted) for thread in self.attachments.maps.read_threads())


@pytest.fixture(scope="module")
def attached() -> Iterator[tuple[Attachments, Client]]:
    kernel = simulated_kernel(Path(SIMULATOR))
    attachments, _ = attach_probes(kernel, CONFIG)
    client = Client(start(kernel, CONFIG, attachments), patience=60)
    yield attachments, client
    client.close()
    attachments.close()


@pytest.fixture
def watched(attached: tuple[Attachments, Client]) -> Iterator[Watched]:
    """All groups are attached, and whatever runs is too much."""
    made = Watched(*attached, LIMIT)
    yield made
    made.governor.close()


def test_the_estimate_is_what_the_kernel_says_where_all_is_timed_and_near_it_elsewhere(
    watched: Watched,
) -> None:
    watched.governor.limit(0)
    issue_exactly(200)
    watched.round()  # the runs before take what is assumed; a second that is timed begins
    estimated, timed = watched.seconds(), watched.timed_seconds()
    assert estimated > 0
    before = governors.counted(watched.attachments)
    issue_exactly(2000)
    after = governors.counted(watched.attachments)
    assert all(its.runs - before[probe].runs == its.timed - before[probe].timed > 0 for probe, its in after.items()), (
        "the programs count what the kernel counts"
    )
    kernels_own = watched.timed_seconds() - timed
    assert watched.seconds() - estimated == pytest.approx(kernels_own, rel=0.001)
    watched.round(governors.TIMED_SECONDS)
    estimated = watched.seconds()
    issue_exactly(2000)
    # The same events, so that it took about as long, on a machine that others use, too.
    assert kernels_own / 4 < watched.seconds() - estimated < kernels_own * 4


def test_groups_are_shed_one_by_one_and_taken_back_and_every_total_is_exact(watched: Watched) -> None:
    started, faults = "hmm_migrations_started_total", "hmm_range_faults_total"
    order = [group.name for group in sorted(GROUPS, key=lambda group: group.shed)]
    before = watched.scrape()
    watched.round()
    for number in range(1, len(order)):
        for _ in range(3):  # some cost next to nothing now and then, and are passed over
            issue_exactly(300)
            watched.round(WINDOW_SECONDS)
            watched.round()  # no call is under way: the returns follow
            if len(watched.shed()) == number:
                break
        assert watched.shed() == set(order[:number])
        assert watched.threads_inside(order[:number]) == 0
    without = watched.scrape()
    for each in watched.probing.outcomes:
        assert each.state == (ATTACHED if each.probe.group == "migration" else SHED)
        assert without.get("hmm_exporter_probe_attached", probe=each.probe.name) == (each.state == ATTACHED)
    assert faults in before.names() - without.names()
    issued = issue_exactly(1000)
    more = watched.scrape().since(without)
    assert more.sum(started) == sum(each["count"] for each in issued["migrations"])
    assert watched.scrape().get("hmm_exporter_books_balanced") == 1
    assert [without.get("hmm_exporter_sheds_total", group=group) for group in order] == [1] * 6 + [0]

    watched.take_all_back()
    back = watched.scrape()
    assert back.sum(faults) > before.sum(faults), "it goes on from where it was"
    issued = issue_exactly(1000)
    more = watched.scrape().since(back)
    assert more.sum(started) == sum(each["count"] for each in issued["migrations"])
    assert more.sum(faults) == sum(each["count"] for each in issued["range_faults"])
    assert more.sum("hmm_exporter_probe_missed_total") == 0
    assert watched.scrape().get("hmm_exporter_books_balanced") == 1


def test_what_is_shed_under_load_leaves_no_thread_behind_and_the_books_balance(watched: Watched) -> None:
    with subprocess.Popen([SIMULATOR, "run", "--threads", "4"], stdout=subprocess.DEVNULL) as load:
        try:
            watched.round()
            for _ in range(4 * len(GROUPS)):
                watched.round(WINDOW_SECONDS)
                time.sleep(0.05)
                watched.round(1)
                if len(watched.shed()) == len(GROUPS):
                    break
            assert watched.shed() == {group.name for group in GROUPS}
            watched.round(governors.GRACE_SECONDS)
            assert watched.attachments.maps
            assert watched.attachments.maps.read_threads() == []
            samples = watched.scrape()
            assert samples.get("hmm_exporter_books_balanced") == 1
            assert not any(name.startswith("hmm_migration") for name in samples.names())
            watched.take_all_back()
        finally:
            load.kill()
    before = watched.scrape()
    issued = issue_exactly(500)
    after = watched.scrape()
    assert after.since(before).sum("hmm_migrations_started_total") == sum(m["count"] for m in issued["migrations"])
    assert after.get("hmm_exporter_books_balanced") == 1


def test_the_daemon_tells_what_watching_costs(tmp_path: Path) -> None:
    with Exporter(tmp_path) as exporter:
        issue_exactly(500)
        first = exporter.scrape()
        assert first.get("hmm_exporter_bpf_cpu_seconds_total") > 0
        assert first.get("hmm_exporter_bpf_cpu_measured") == 1
        groups = {group.name for group in GROUPS if group.default}
        assert first.named("hmm_exporter_group_shed") == {frozenset({("group", name)}): 0 for name in groups}
        issue_exactly(500)
        assert exporter.scrape().since(first).get("hmm_exporter_bpf_cpu_seconds_total") > 0


def test_without_the_right_to_measure_the_cost_is_assumed_and_the_log_says_so(tmp_path: Path) -> None:
    """No uprobe is attached either: that takes the same right."""
    with Exporter(tmp_path, prefix=["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]) as exporter:
        assert exporter.scrape().get("hmm_exporter_bpf_cpu_measured") == 0
        assert "is assumed, not measured" in exporter.log
