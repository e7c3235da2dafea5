# SPDX-License-Identifier: Apache-2.0
"""Short processes by the ten thousand: every total exact, and nothing of the exporter grows with them.

Each has a command name and a cgroup of its own, so that with pods each would be a row of its own. Other processes of a
second round do the same as those of the first: what a round adds must be the same to the last event, and no entry
of a map, no series may come with it.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hmm_exporter.catalog.values import WORKLOAD_LABELS
from hmm_exporter.config import Config, Host, Kubernetes
from tests.bpf import expected, expected_moves
from tests.bpf.watched import watched_simulator
from tests.exposition import Labels, Samples, labels
from tests.host_files import Container, HostFiles
from tests.process import Exporter, churn

PROCESSES, ROUNDS, WARM_UP = 20_000, 5, 2
ROWS = 64
"""limits.processes' default."""
MOST_GROWTH = 1 << 20
"""Bytes in three rounds: less than 18 for each of 60,000 processes, which is less than to remember a name takes."""

OPEN_LABELS = ("pgmap_owner", "device", "driver", "comm", "caller", *WORKLOAD_LABELS)


@dataclass(frozen=True)
class Round:
    issued: Mapping[str, Any]
    samples: Samples
    added: Samples
    anonymous: int
    """Bytes of the daemon's memory that no file backs."""


def _anonymous(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:"))


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> list[Round]:
    """100,000 processes on a real daemon."""
    done: list[Round] = []
    settings = {"kubernetes": {"enabled": True}, "limits": {"cpu": 0}}  # nothing is shed
    with Exporter(tmp_path_factory.mktemp("churn"), settings) as exporter:
        before = exporter.scrape()
        for number in range(ROUNDS):
            issued = churn(PROCESSES, first=number * PROCESSES)
            samples = exporter.scrape()
            done.append(Round(issued, samples, samples.since(before), _anonymous(exporter.process.pid)))
            before = samples
    return done


def _entries(samples: Samples) -> dict[Labels, float]:
    """Of all maps but that of arrivals, of which it is told what it held at the latest sweep: places, not processes."""
    entries = samples.named("hmm_exporter_map_entries")
    arrivals = labels(map="arrival")
    assert entries.pop(arrivals) <= samples.named("hmm_exporter_map_capacity")[arrivals]
    return entries


def _summed(counts: Mapping[Labels, float]) -> Counter[Labels]:
    """Without labels whose values are unknown before."""
    summed: Counter[Labels] = Counter()
    for its, value in counts.items():
        summed[frozenset((name, text) for name, text in its if name not in OPEN_LABELS)] += int(value)
    return +summed


def _compare(issued: Mapping[str, Any], added: Samples) -> int:
    """Every counter with the books; how many of them have counted anything."""
    owners = dict.fromkeys({event["owner"] for event in issued["migrations"]}, "any")
    counters = itertools.chain(expected.counters(issued, owners), expected_moves.counters(issued, owners))
    compared = 0
    for name, counts in counters:
        if name in added.names():  # the group per_page is off by default
            assert _summed(added.nonzero(name)) == _summed(counts), name
            compared += bool(counts)
    return compared


def test_every_total_of_100_000_processes_is_exact(rounds: list[Round]) -> None:
    for each in rounds:
        assert sum(event["count"] for event in each.issued["migrations"]) == PROCESSES
        assert _compare(each.issued, each.added) > 30
        assert each.samples.get("hmm_exporter_books_balanced") == 1


def test_no_more_processes_than_the_limit_have_a_row_and_the_others_are_counted_as_overflow(
    rounds: list[Round],
) -> None:
    for each in rounds:
        named = {
            dict(its)["comm"]
            for (name, its) in each.samples.values
            if name.startswith("hmm_process_") and ("comm", "other") not in its
        }
        assert len(named) <= ROWS
        others = each.samples.sum("hmm_process_migrations_total", comm="other")
        overflow = each.samples.get("hmm_exporter_label_overflow_events_total", map="process_migration")
        assert others == overflow > 0


def test_what_came_later_went_to_other_alone(rounds: list[Round]) -> None:
    for each in rounds[1:]:
        added = each.added.nonzero("hmm_process_migrations_total")
        of_jobs = {its: value for its, value in added.items() if dict(its)["comm"].startswith("job-")}
        assert of_jobs == {}
        assert each.added.sum("hmm_process_migrations_total", comm="other") > 0.9 * PROCESSES


def test_after_the_warm_up_there_is_no_more_entry_in_any_map_and_no_more_series(rounds: list[Round]) -> None:
    warm = rounds[WARM_UP - 1]
    for each in rounds[WARM_UP:]:
        assert _entries(each.samples) == _entries(warm.samples)
        assert each.samples.values.keys() == warm.samples.values.keys()
        assert each.samples.get("hmm_exporter_series") == warm.samples.get("hmm_exporter_series")


def test_each_round_adds_the_same_to_the_same_series(rounds: list[Round]) -> None:
    for name in sorted(rounds[0].samples.names()):
        if name.endswith("_total") and name.startswith("hmm_") and "seconds" not in name and "exporter" not in name:
            for each in rounds[WARM_UP:]:
                assert each.added.nonzero(name) == rounds[WARM_UP - 1].added.nonzero(name), name


def test_after_the_warm_up_the_daemons_memory_does_not_grow_with_processes(rounds: list[Round]) -> None:
    assert rounds[-1].anonymous - rounds[WARM_UP - 1].anonymous < MOST_GROWTH, [each.anonymous for each in rounds]


PODS = 200
IN_A_ROUND = 2_000


def _pods(files: HostFiles, first: int) -> str:
    """Folders and links for the first processes of a round; lines for the simulator's --cgroups."""
    lines = []
    for number in range(first, first + PODS):
        uid = f"9e1d7c3b-0000-4c5d-8e9f-{number:012d}"
        pod = Container("batch", f"job-{number}", "main", uid, f"{number:064x}")
        files.link(pod)
        lines.append(f"job-{number:07d} {files.make(pod.systemd())}\n")
    return "".join(lines)


def test_pods_that_end_take_their_rows_along_and_the_next_ones_are_admitted(tmp_path: Path) -> None:
    files = HostFiles(tmp_path)
    host = Host(**files.options["host"])
    sizes: list[tuple[float, dict[Labels, float]]] = []
    with watched_simulator(Config(kubernetes=Kubernetes(enabled=True), host=host)) as watched:
        for first in range(0, 4 * IN_A_ROUND, IN_A_ROUND):
            listed = tmp_path / "cgroups"
            listed.write_text(_pods(files, first))
            before = watched.scrape()
            issued = churn(IN_A_ROUND, first, arguments=["--cgroups", str(listed)])
            during = watched.scrape()
            assert _compare(issued, during.since(before)) > 30
            pods = {dict(its)["pod"] for its in during.named("hmm_process_migrations_total")}
            ours = {f"job-{number}" for number in range(first, first + IN_A_ROUND)}
            assert pods - {"other", "unknown"} <= ours
            assert len(pods & ours) > ROWS / 2
            watched.end_what_is_idle()
            after = watched.scrape()
            assert after.get("hmm_exporter_books_balanced") == 1
            for (name, its), value in after.values.items():
                if name.startswith("hmm_") and not name.startswith("hmm_exporter_"):
                    assert value == during.values[name, its], "what ended went to nobody"
            sizes.append((after.get("hmm_exporter_series"), _entries(after)))
    assert sizes[2:] == sizes[1:-1]
