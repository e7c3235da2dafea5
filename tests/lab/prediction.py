# SPDX-License-Identifier: Apache-2.0
"""What the exporter must say about one of the kernel's tests: predictions-KERNEL.txt as metrics.

Written against the meaning of each metric, not with the exporter's code. What of it moved is prediction_moves.py's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tests.exposition import Labels, labels
from tests.lab.recipe import chosen

KERNEL = chosen().kernel
FILE = Path(__file__).with_name(f"predictions-{KERNEL}.txt")
PAGE = 4096
CHUNK_PAGES = 65536
CLASSES = ("prefetch", "fault_back", "evict")

#: Faults on device memory that no CPU's access caused: device 0 faults on what device 1 holds.
NESTED = frozenset({"hmm2.hmm2_device_private.double_map"})
#: A thread mirrors memory that another one unmaps: how far it gets is a matter of timing.
RACES = frozenset({"hmm.hmm_device_private.anon_teardown"})

#: What is in mm/ of 7.3 and in neither of the 6.x.
_SINCE_7 = frozenset(
    {
        "do_huge_pmd_device_private",
        "hmm_dma_map_pfn",
        "hmm_dma_unmap_pfn",
        "hmm_range_fault_locked",
        "hmm_range_fault_unlocked_timeout",
        "migrate_device_pfns",
    }
)
#: The probes whose function this kernel does not have.
ABSENT: frozenset[str] = {"6.1": _SINCE_7, "6.12": _SINCE_7, "7.3": frozenset[str]()}[KERNEL]

#: Whether a huge folio moves whole.
MOVES_HUGE_PAGES = "do_huge_pmd_device_private" not in ABSENT

Counts = Counter[Labels]


@dataclass(frozen=True)
class Prediction:
    """One line of the file."""

    test: str
    huge_pages: str
    words: Mapping[str, str]

    @property
    def outcome(self) -> str:
        """How the kernel's test itself ends."""
        return self.words.get("outcome", "passed")

    def number(self, word: str) -> int:
        return int(self.words.get(word, 0))

    def requests(self, word: str) -> list[tuple[int, int]]:
        """(calls, pages each)"""
        pairs = [each.split("x") for each in self.words.get(word, "").split("+") if each]
        return [(int(calls), int(pages)) for calls, pages in pairs]


def with_lost_races(of: Prediction, ebusy: int) -> Prediction:
    """The same with the EBUSY that was met, if it is a few more: on a busy machine the driver loses again, and retries.

    All other figures must then still fit; the referee counts the very same races.
    """
    predicted = of.number("range_fault.EBUSY")
    if 0 < predicted < ebusy <= predicted + 3:
        return replace(of, words={**of.words, "range_fault.EBUSY": str(ebusy)})
    return of


def read() -> list[Prediction]:
    predictions = []
    for line in FILE.read_text().splitlines():
        if line and not line.startswith("#"):
            test, huge_pages, *words = line.split()
            predictions.append(Prediction(test, huge_pages, dict(word.split("=", 1) for word in words)))
    return predictions


def trigger_of(of: Prediction, kind: str) -> str:
    fault = "nested" if of.test in NESTED else "cpu_fault"
    return fault if kind == "fault_back" else "syscall"


def counters(of: Prediction) -> dict[str, Counts]:
    """Every counter of calls and requests that this test moves or leaves alone, with the label sets that it moves."""
    counts = _migrations(of) | _range_faults(of)
    for metric, word, its in (
        ("hmm_device_range_migrations_total", "device_range", labels(function="migrate_device_range")),
        ("hmm_device_exclusive_total", "exclusive", labels()),
        ("hmm_device_exclusive_restores_total", "restore", labels()),
        ("hmm_interval_notifier_inserts_total", "insert", labels(driver="test_hmm")),
        ("hmm_interval_notifier_removes_total", "remove", labels(driver="test_hmm")),
        ("hmm_huge_faults_total", "huge", labels()),
        ("hmm_huge_fault_retries_total", "huge_retry", labels()),
        ("hmm_process_device_exclusive_total", "exclusive", labels(comm="hmm-tests")),
        ("hmm_process_device_exclusive_restores_total", "restore", labels(comm="hmm-tests")),
        ("hmm_process_huge_faults_total", "huge", labels(comm="hmm-tests")),
        ("hmm_process_interval_notifier_inserts_total", "insert", labels(comm="hmm-tests")),
        ("hmm_process_interval_notifier_removes_total", "remove", labels(comm="hmm-tests")),
    ):
        counts[metric] = _only(its, of.number(word))
    migrate, exclusive = of.number("notify_migrate"), of.number("notify_exclusive")
    counts["hmm_mmu_notifier_invalidations_total"] = _only(labels(event="migrate"), migrate) + _only(
        labels(event="exclusive"), exclusive
    )
    counts["hmm_process_invalidations_total"] = _only(labels(comm="hmm-tests"), migrate + exclusive)
    for metric in (
        "hmm_device_exclusive_failures_total",
        "hmm_interval_notifier_insert_failures_total",
        "hmm_huge_fault_failures_total",
        "hmm_dma_maps_total",
        "hmm_dma_unmaps_total",
        "hmm_exporter_migrations_abandoned_total",
        "hmm_exporter_probe_missed_total",
        "hmm_exporter_label_overflow_events_total",
    ):
        counts[metric] = Counter()
    return counts


def histogram_counts(of: Prediction) -> dict[str, Counter[int]]:
    """Sizes in bytes that each size histogram observes, over all its label sets."""
    sizes: Counter[int] = Counter()
    for kind in CLASSES:
        for word in (kind, f"{kind}.empty"):
            for calls, pages in of.requests(word):
                sizes[pages * PAGE] += calls
    chunks = Counter({CHUNK_PAGES * PAGE: of.number("device_range")})
    return {"hmm_migration_request_size_bytes": sizes, "hmm_device_range_size_bytes": chunks}


def _only(its: Labels, value: int) -> Counts:
    return Counter({its: value} if value else {})


def _migrations(of: Prediction) -> dict[str, Counts]:
    names = ("started", "empty", "completed")
    counts: dict[str, Counts] = {f"hmm_migrations_{name}_total": Counter() for name in names}
    requested: Counts = Counter()
    process: Counts = Counter()
    process_bytes: Counts = Counter()
    for kind in CLASSES:
        trigger = trigger_of(of, kind)
        for word, outcome in ((kind, "completed"), (f"{kind}.empty", "empty")):
            for calls, pages in of.requests(word):
                its = labels(trigger=trigger, **{"class": kind})
                who = labels(comm="hmm-tests", **{"class": kind})
                counts["hmm_migrations_started_total"][its] += calls
                counts[f"hmm_migrations_{outcome}_total"][its] += calls
                requested[its] += calls * pages * PAGE
                process[who] += calls
                process_bytes[who] += calls * pages * PAGE
    return counts | {
        "hmm_migration_failures_total": Counter(),
        "hmm_migration_requested_bytes_total": requested,
        "hmm_process_migrations_total": process,
        "hmm_process_requested_bytes_total": process_bytes,
    }


def _range_faults(of: Prediction) -> dict[str, Counts]:
    calls: Counts = Counter()
    failures: Counts = Counter()
    process: Counts = Counter()
    process_failures: Counts = Counter()
    for word, number in of.words.items():
        kind, _, result = word.partition(".")
        function = {"range_fault": "hmm_range_fault", "unlocked": "hmm_range_fault_unlocked_timeout"}.get(kind)
        if function is None:
            continue
        calls[labels(function=function, driver="test_hmm")] += int(number)
        process[labels(comm="hmm-tests")] += int(number)
        if result != "ok":
            failures[labels(function=function, driver="test_hmm", errno=result)] += int(number)
            process_failures[labels(comm="hmm-tests", errno=result)] += int(number)
    ebusy = sum(value for its, value in failures.items() if ("errno", "EBUSY") in its)
    return {
        "hmm_range_faults_total": calls,
        "hmm_range_fault_failures_total": failures,
        "hmm_process_range_faults_total": process,
        "hmm_process_range_fault_failures_total": process_failures,
        # dmirror_fault is where test_hmm calls from; range_fault's own frames are left out.
        "hmm_range_fault_ebusy_callers_total": _only(labels(driver="test_hmm", caller="dmirror_fault"), ebusy),
    }
