# SPDX-License-Identifier: Apache-2.0
"""What the metrics of stage 2 must say: what moved, what did not and why, what came back.

As ``expected``, from the simulator's books and ``metrics.md``, not from the exporter's code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from tests.bpf.expected import (
    EMPTY,
    Counts,
    Event,
    Issued,
    comm,
    count,
    device,
    ended,
    figure,
    n,
    sizes_by,
)
from tests.exposition import Labels, labels

DIRECTIONS = ("host_to_device", "device_to_host", "device_to_device", "host_to_host")
REASONS = ("not_selected", "busy", "no_destination", "commit_failed", "not_read")


def unmoved(event: Event, reason: str) -> int:
    """Bytes of a row that did not move for one of the five reasons.

    Where nothing was left to migrate the kernel says so of the whole range (cpages 0), so that no
    array need be read. A hole that the driver does not fill has no destination.
    """
    its = {name: figure(name)(event) for name in (*REASONS, "unfilled")}
    if event["outcome"] in EMPTY:
        its["not_selected"] += its["not_read"]
        its["not_read"] = 0
    its["no_destination"] += its["unfilled"]
    return its[reason]


def counters(issued: Issued, owners: Mapping[str, str]) -> Iterator[tuple[str, Counts]]:
    """Every counter of stage 2: (name, label sets that are not 0)."""
    yield from _migrations(issued, owners)
    yield from _unmoved_and_moved(issued, owners)
    yield from _returned(issued, owners)
    yield from _attempts(issued)
    yield (
        "hmm_device_range_moved_bytes_total",
        count(issued["device_moves"], lambda event: labels(device=event["device"]), figure("device_to_host")),
    )
    for entry, function in (("set", "set_migration_pmd"), ("removed", "remove_migration_pmd")):
        yield (
            f"hmm_migration_pmds_{entry}_total",
            count(
                (event for event in issued["migration_pmds"] if event["function"] == function),
                lambda event: labels(context="hmm" if event["inside"] else "other"),
            ),
        )


def _migrations(issued: Issued, owners: Mapping[str, str]) -> Iterator[tuple[str, Counts]]:
    """What has the labels N. Collected is what was left after pinned and locked pages went back."""

    def its(event: Event) -> Labels:
        return labels(**n(event, owners, device(event)))

    yield (
        "hmm_migration_collected_bytes_total",
        count(ended(issued), its, lambda event: figure("collected")(event) - figure("busy")(event)),
    )
    yield "hmm_migration_zero_filled_bytes_total", count(ended(issued), its, figure("zero_filled"))
    for kind in ("aborted", "partial", "huge"):
        yield f"hmm_migrations_{kind}_total", count(ended(issued), its, figure(kind))


def _unmoved_and_moved(issued: Issued, owners: Mapping[str, str]) -> Iterator[tuple[str, Counts]]:
    by_reason: Counts = Counter()
    moved: Counts = Counter()
    huge: Counts = Counter()
    by_process: Counts = Counter()
    for event in ended(issued):
        where = {"pgmap_owner": owners[event["owner"]], "device": device(event)}
        for reason in REASONS:
            by_reason[labels(**n(event, owners, device(event)), reason=reason)] += unmoved(event, reason)
        for direction in DIRECTIONS:
            bytes_moved = figure(direction)(event)
            moved[labels(direction=direction, trigger=event["trigger"], **where)] += bytes_moved
            huge[labels(direction=direction, **where)] += figure(f"huge_{direction}")(event)
            by_process[labels(direction=direction, comm=comm(event))] += bytes_moved
    yield "hmm_migration_unmoved_bytes_total", +by_reason
    yield "hmm_migration_moved_bytes_total", +moved
    yield "hmm_migration_moved_huge_bytes_total", +huge
    yield "hmm_process_moved_bytes_total", +by_process


def returned(issued: Issued) -> list[Event]:
    """Regions whose arrival was seen and that a CPU fault brought back, all of them within the thrash window."""
    return [event for event in issued["returns"] if event["result"] in ("first", "again")]


def _returned(issued: Issued, owners: Mapping[str, str]) -> Iterator[tuple[str, Counts]]:
    yield (
        "hmm_migration_returned_bytes_total",
        count(
            returned(issued),
            lambda event: labels(pgmap_owner=owners[event["owner"]], device=event["device"]),
            figure("bytes"),
        ),
    )
    yield (
        "hmm_process_returned_bytes_total",
        count(returned(issued), lambda event: labels(comm=comm(event)), figure("bytes")),
    )
    yield (
        "hmm_exporter_residency_misses_total",
        count((event for event in issued["returns"] if event["result"] == "unknown"), lambda event: labels()),
    )


def _attempts(issued: Issued) -> Iterator[tuple[str, Counts]]:
    attempts = issued["range_fault_attempts"]
    yield "hmm_range_fault_attempts_total", count(attempts, lambda event: labels(driver=event["driver"]))
    yield (
        "hmm_range_fault_ebusy_total",
        count(
            (event for event in attempts if event["errno"] == "EBUSY"),
            lambda event: labels(driver=event["driver"], reason=event["cause"]),
        ),
    )


def size_histograms(issued: Issued, owners: Mapping[str, str]) -> Iterator[tuple[str, dict[Labels, Counter[int]]]]:
    """Label set to the sizes observed: of migrations that moved anything."""
    moves = [event for event in issued["migration_moves"] if event["bytes"]]
    sizes = sizes_by(moves, lambda event: labels(pgmap_owner=owners[event["owner"]], **{"class": event["class"]}))
    yield (
        "hmm_migration_moved_size_bytes",
        {its: Counter({size: number for size, number in counts.items() if size}) for its, counts in sizes.items()},
    )


def residencies(issued: Issued) -> dict[Labels, tuple[int, float, float]]:
    """Label set to the number of residencies, and to the least and the most that they can add up to, in seconds."""
    return {
        labels(device=event["device"]): (event["count"], event["inner_ns"] / 1e9, event["outer_ns"] / 1e9)
        for event in issued["timing"]["returns"]
    }
