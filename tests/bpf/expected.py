# SPDX-License-Identifier: Apache-2.0
"""What the metrics must say, computed from what the simulator says it issued.

Written against ``metrics.md``'s meaning of each metric and the simulator's README, and not with
the exporter's code: it is the other opinion.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from tests.exposition import Labels, Samples, labels

Event = Mapping[str, Any]
Issued = Mapping[str, Any]
Counts = Counter[Labels]

COMPLETED = ("completed", "completed_without_pages")
EMPTY = ("empty", "empty_finalized")
BYTES_BOUNDS = [2**exponent for exponent in range(12, 37)]


def owner_names(issued: Issued, samples: Samples) -> dict[str, str]:
    """The simulator's owners by the exporter's names.

    Heap owners are numbered as they appear, which depends on threads: the numbering is taken
    under which the started migrations agree, if there is one.
    """
    fixed = {
        "none": "none",
        "g_uvm_global": "nvidia_uvm",
        "dmirror_devices[0]": "test_hmm-0",
        "dmirror_devices[1]": "test_hmm-1",
    }
    heap = sorted({event["owner"] for event in issued["migrations"]} - set(fixed))
    given = sorted(
        {dict(its)["pgmap_owner"] for its in samples.nonzero("hmm_migrations_started_total")} - set(fixed.values())
    )
    for names in itertools.permutations(given, len(heap)):
        candidate = fixed | dict(zip(heap, names))
        if migrations_started(issued, candidate) == samples.nonzero("hmm_migrations_started_total"):
            return candidate
    raise AssertionError(f"no naming of {heap} by {given} explains hmm_migrations_started_total")


def comm(event: Event) -> str:
    """Kernel threads are named up to the first slash or colon, and bytes that are no UTF-8 escaped.

    The simulator writes a comm's bytes as latin-1.
    """
    name: str = event["comm"].encode("latin-1").decode("utf-8", "backslashreplace")
    return name.partition("/")[0] if name.startswith("kworker/") else name


def count(
    events: Iterable[Event],
    of: Callable[[Event], Labels],
    amount: Callable[[Event], int] = lambda event: event["count"],
) -> Counts:
    counts: Counts = Counter()
    for event in events:
        counts[of(event)] += amount(event)
    return Counter({its: value for its, value in counts.items() if value})


def figure(name: str) -> Callable[[Event], int]:
    """That figure of a row, which the simulator leaves out where it is 0."""

    def of(event: Event) -> int:
        value: int = event.get(name, 0)
        return value

    return of


def ended(issued: Issued) -> list[Event]:
    """Bytes are booked when a migration ends; an abandoned one never does."""
    return [event for event in issued["migrations"] if event["outcome"] in COMPLETED + EMPTY]


def device(event: Event) -> str:
    """Of the migration's destination if that is on a device, else of its source."""
    name: str = event["source"] if event["destination"] == "none" else event["destination"]
    return name


def migrations_started(issued: Issued, owners: Mapping[str, str]) -> Counts:
    """Without a device: it is the pages that say which, later."""
    return count(issued["migrations"], lambda event: labels(**n(event, owners, "none")))


def n(event: Event, owners: Mapping[str, str], its_device: str) -> dict[str, str]:
    """The labels that metrics.md calls N."""
    return {
        "class": event["class"],
        "trigger": event["trigger"],
        "pgmap_owner": owners[event["owner"]],
        "device": its_device,
    }


def _migrations(issued: Issued, owners: Mapping[str, str], outcomes: Sequence[str]) -> Counts:
    wanted = (event for event in issued["migrations"] if event["outcome"] in outcomes)
    return count(wanted, lambda event: labels(**n(event, owners, device(event))))


def counters(issued: Issued, owners: Mapping[str, str]) -> Iterator[tuple[str, Counts]]:
    """Every counter of stage 1 that counts events or bytes: (name, label sets that are not 0)."""
    migrations = issued["migrations"]
    accepted = ended(issued)
    refused = [event for event in migrations if event["outcome"] == "failed"]
    yield "hmm_migrations_started_total", migrations_started(issued, owners)
    yield "hmm_migrations_empty_total", _migrations(issued, owners, EMPTY)
    yield "hmm_migrations_completed_total", _migrations(issued, owners, COMPLETED)
    yield (
        "hmm_migration_failures_total",
        count(refused, lambda event: labels(**n(event, owners, "none"), errno=event["errno"])),
    )
    yield (
        "hmm_migration_requested_bytes_total",
        count(accepted, lambda event: labels(**n(event, owners, device(event))), figure("bytes")),
    )
    yield from _process_counters(issued, owners, accepted, refused)
    yield from _range_counters(issued)
    yield from _other_counters(issued)


def _process_counters(
    issued: Issued, owners: Mapping[str, str], accepted: list[Event], refused: list[Event]
) -> Iterator[tuple[str, Counts]]:
    def who(event: Event) -> Labels:
        return labels(comm=comm(event), pgmap_owner=owners[event["owner"]], **{"class": event["class"]})

    def only_comm(event: Event) -> Labels:
        return labels(comm=comm(event))

    yield "hmm_process_migrations_total", count(issued["migrations"], who)
    yield "hmm_process_requested_bytes_total", count(accepted, who, figure("bytes"))
    yield (
        "hmm_process_migration_failures_total",
        count(
            refused,
            lambda event: labels(comm=comm(event), errno=event["errno"], **{"class": event["class"]}),
        ),
    )
    yield "hmm_process_range_faults_total", count(issued["range_faults"], only_comm)
    yield (
        "hmm_process_range_fault_failures_total",
        count(_failed(issued["range_faults"]), lambda event: labels(comm=comm(event), errno=event["errno"])),
    )
    for metric, kind in (
        ("hmm_process_device_exclusive_total", "device_exclusives"),
        ("hmm_process_device_exclusive_restores_total", "device_exclusive_restores"),
        ("hmm_process_interval_notifier_inserts_total", "notifier_inserts"),
        ("hmm_process_interval_notifier_removes_total", "notifier_removes"),
    ):
        yield metric, count(issued[kind], only_comm)
    yield (
        "hmm_process_huge_faults_total",
        count((event for event in issued["huge_faults"] if event["result"] != "RETRY"), only_comm),
    )
    yield "hmm_process_invalidations_total", count(_hmm_invalidations(issued), only_comm)


def _failed(events: Iterable[Event]) -> list[Event]:
    return [event for event in events if event["errno"]]


def _hmm_invalidations(issued: Issued) -> list[Event]:
    return [event for event in issued["invalidations"] if event["event"] in ("migrate", "exclusive")]


def _range_counters(issued: Issued) -> Iterator[tuple[str, Counts]]:
    faults = issued["range_faults"]
    yield (
        "hmm_range_faults_total",
        count(
            faults,
            lambda event: labels(function=event["function"], driver=event["driver"], intent=event["intent"]),
        ),
    )
    yield (
        "hmm_range_fault_failures_total",
        count(
            _failed(faults),
            lambda event: labels(function=event["function"], driver=event["driver"], errno=event["errno"]),
        ),
    )
    yield (
        "hmm_range_fault_ebusy_callers_total",
        count(
            (event for event in faults if event["errno"] == "EBUSY"),
            lambda event: labels(driver=event["driver"], caller=event["caller"]),
        ),
    )


def _other_counters(issued: Issued) -> Iterator[tuple[str, Counts]]:
    def nothing(event: Event) -> Labels:
        return labels()

    exclusives, huge = issued["device_exclusives"], issued["huge_faults"]
    maps, unmaps = issued["dma_maps"], issued["dma_unmaps"]
    yield "hmm_device_exclusive_total", count(exclusives, nothing)
    yield (
        "hmm_device_exclusive_failures_total",
        count(_failed(exclusives), lambda event: labels(errno=event["errno"])),
    )
    yield "hmm_device_exclusive_restores_total", count(issued["device_exclusive_restores"], nothing)
    yield (
        "hmm_interval_notifier_inserts_total",
        count(issued["notifier_inserts"], lambda event: labels(driver=event["driver"])),
    )
    yield (
        "hmm_interval_notifier_insert_failures_total",
        count(
            _failed(issued["notifier_inserts"]),
            lambda event: labels(driver=event["driver"], errno=event["errno"]),
        ),
    )
    yield (
        "hmm_interval_notifier_removes_total",
        count(issued["notifier_removes"], lambda event: labels(driver=event["driver"])),
    )
    yield "hmm_huge_faults_total", count((e for e in huge if e["result"] != "RETRY"), nothing)
    yield "hmm_huge_fault_retries_total", count((e for e in huge if e["result"] == "RETRY"), nothing)
    yield (
        "hmm_huge_fault_failures_total",
        count(
            (e for e in huge if e["result"] not in ("", "RETRY")),
            lambda event: labels(fault=f"VM_FAULT_{event['result']}"),
        ),
    )
    yield "hmm_dma_maps_total", count(maps, nothing)
    yield "hmm_dma_map_failures_total", count((e for e in maps if e["result"] == "failed"), nothing)
    yield "hmm_dma_unmaps_total", count(unmaps, nothing)
    yield "hmm_dma_unmap_misses_total", count((e for e in unmaps if e["result"] == "missed"), nothing)
    yield (
        "hmm_mmu_notifier_invalidations_total",
        count(_hmm_invalidations(issued), lambda event: labels(event=event["event"])),
    )
    yield (
        "hmm_device_range_migrations_total",
        count(issued["device_ranges"], lambda event: labels(function=event["function"], device=event["device"])),
    )
    for metric, function in (
        ("hmm_migration_ptes_set_total", "set_migration_pte"),
        ("hmm_migration_ptes_removed_total", "remove_migration_pte"),
    ):
        yield (
            metric,
            count(
                (event for event in issued["migration_ptes"] if event["function"] == function),
                lambda event: labels(
                    order=event["order"] if int(event["order"]) <= 10 else "other",
                    context="hmm" if event["inside"] else "other",
                ),
            ),
        )


def size_histograms(issued: Issued, owners: Mapping[str, str]) -> Iterator[tuple[str, dict[Labels, Counter[int]]]]:
    """Every histogram of sizes: label set to the sizes observed, in bytes."""
    yield (
        "hmm_migration_request_size_bytes",
        sizes_by(ended(issued), lambda e: labels(pgmap_owner=owners[e["owner"]], **{"class": e["class"]})),
    )
    yield (
        "hmm_range_fault_size_bytes",
        sizes_by(issued["range_faults"], lambda e: labels(function=e["function"], driver=e["driver"])),
    )
    yield "hmm_device_range_size_bytes", sizes_by(issued["device_ranges"], lambda e: labels(function=e["function"]))
    yield (
        "hmm_mmu_notifier_invalidation_size_bytes",
        sizes_by(_hmm_invalidations(issued), lambda e: labels(event=e["event"])),
    )


def device_ranges_not_read_whole(issued: Issued) -> int:
    """Calls with more than 262,144 pages: the rest is not read."""
    sizes = [size for event in issued["device_ranges"] for size in event["sizes"]]
    return sum(int(calls) for length, calls in sizes if length > 1 << 30)


def sizes_by(events: Iterable[Event], of: Callable[[Event], Labels]) -> dict[Labels, Counter[int]]:
    sizes: dict[Labels, Counter[int]] = {}
    for event in events:
        for size, number in event["sizes"]:
            # A range that ends before it starts is refused, and counts as empty.
            sizes.setdefault(of(event), Counter())[max(size, 0)] += number
    return sizes
