# SPDX-License-Identifier: Apache-2.0
"""What the exporter must say that one of the kernel's tests moved: the pages of a prediction as metrics.

Of migrations, device ranges and attempts of hmm_range_fault. All else of a prediction is prediction.py's.
"""

from __future__ import annotations

from collections import Counter

from tests.exposition import Labels, labels
from tests.lab.prediction import CLASSES, PAGE, Counts, Prediction, trigger_of

HUGE_PAGES = 512
DIRECTIONS = {"prefetch": "host_to_device", "fault_back": "device_to_host", "evict": "device_to_host"}
REASONS = ("not_selected", "busy", "no_destination", "commit_failed", "not_read")

#: Where pages lie, by the suffix of a word. The kernel gives the highest free addresses first (kernel/resource.c:
#: get_free_mem_region), and so do numbers. A chunk that test_hmm adds while a test runs has no name until the exporter
#: looks again.
DEVICES = {"": "hmm_dmirror-0", "@1": "hmm_dmirror-1", "@new": "other"}
#: What the third chunk is called if it looked in the middle of a test.
THIRD = "hmm_dmirror-2"


def by_device(of: Prediction, word: str) -> dict[str, int]:
    return {device: of.number(word + suffix) for suffix, device in DEVICES.items() if of.number(word + suffix)}


def requested(of: Prediction, kind: str) -> int:
    """Pages of the migrations that collected something."""
    return sum(calls * pages for calls, pages in of.requests(kind))


def empty(of: Prediction, kind: str) -> int:
    return sum(calls * pages for calls, pages in of.requests(f"{kind}.empty"))


def moved(of: Prediction, kind: str) -> dict[str, int]:
    """Pages copied, by device. What no word says lies on device 0, and huge folios in a chunk of their own."""
    pages = Counter(by_device(of, f"{kind}.moved"))
    if f"{kind}.moved@new" not in of.words:
        pages[DEVICES["@new"]] += of.number(f"{kind}.huge") * HUGE_PAGES
    apart = sum(of.number(f"{kind}.{reason}") for reason in REASONS) + sum(by_device(of, f"{kind}.filled").values())
    pages[DEVICES[""]] = requested(of, kind) - apart - pages.total()
    return dict(+pages)


def returned(of: Prediction) -> dict[str, int]:
    """Pages that CPU faults bring back, but for those that came back at another address or in another process."""
    if trigger_of(of, "fault_back") != "cpu_fault":
        return {}
    return dict(Counter(moved(of, "fault_back")) - Counter(by_device(of, "fault_back.strayed")))


def counters(of: Prediction) -> dict[str, Counts]:
    """Every counter of what moved, with the label sets that it moves."""
    counts: dict[str, Counts] = {
        f"hmm_migration_{name}_bytes_total": Counter()
        for name in ("collected", "moved", "moved_huge", "zero_filled", "unmoved")
    }
    process: Counts = Counter()
    for kind in CLASSES:
        of_kind = {"class": kind, "trigger": trigger_of(of, kind)}
        direction = DIRECTIONS[kind]
        copied = moved(of, kind)
        huge = of.number(f"{kind}.huge") * HUGE_PAGES * PAGE
        unmoved = Counter({reason: of.number(f"{kind}.{reason}") for reason in REASONS})
        collected = sum(copied.values()) + unmoved["no_destination"] + unmoved["commit_failed"]
        counts["hmm_migration_collected_bytes_total"] += _only(
            labels(**of_kind), int(of.words.get(f"{kind}.collected", collected)) * PAGE
        )
        unmoved["not_selected"] += empty(of, kind)
        for reason, pages in unmoved.items():
            counts["hmm_migration_unmoved_bytes_total"] += _only(labels(**of_kind, reason=reason), pages * PAGE)
        for device, pages in copied.items():
            its = labels(direction=direction, trigger=of_kind["trigger"], device=device)
            counts["hmm_migration_moved_bytes_total"] += _only(its, pages * PAGE)
        for device, pages in by_device(of, f"{kind}.filled").items():
            counts["hmm_migration_zero_filled_bytes_total"] += _only(labels(**of_kind, device=device), pages * PAGE)
        counts["hmm_migration_moved_huge_bytes_total"] += _only(
            labels(direction=direction, device=DEVICES["@new"]), huge
        )
        process += _only(labels(comm="hmm-tests", direction=direction), sum(copied.values()) * PAGE)
        for name, word in (("partial", "partial"), ("huge", "huge"), ("aborted", "aborted")):
            its_counts = counts.setdefault(f"hmm_migrations_{name}_total", Counter())
            its_counts += _only(labels(**of_kind), of.number(f"{kind}.{word}"))
    return (
        counts
        | _attempts(of)
        | {
            "hmm_process_moved_bytes_total": process,
            "hmm_device_range_moved_bytes_total": Counter(
                {labels(device=device): pages * PAGE for device, pages in by_device(of, "evicted").items()}
            ),
            "hmm_migration_pmds_set_total": _only(labels(context="hmm"), of.number("pmd_set")),
            "hmm_migration_pmds_removed_total": _only(labels(context="hmm"), of.number("pmd_removed")),
        }
    )


def moved_sizes(of: Prediction) -> tuple[int, int]:
    """(migrations that copied something, bytes that they copied)"""
    calls = sum(calls for kind in CLASSES for calls, _ in of.requests(kind))
    idle = sum(of.number(f"{kind}.unmoving") for kind in CLASSES)
    return calls - idle, sum(pages for kind in CLASSES for pages in moved(of, kind).values()) * PAGE


def _attempts(of: Prediction) -> dict[str, Counts]:
    calls = sum(int(number) for word, number in of.words.items() if word.startswith("range_fault."))
    return {
        "hmm_range_fault_attempts_total": _only(labels(driver="test_hmm"), calls + of.number("attempts")),
        "hmm_range_fault_ebusy_total": _only(
            # One thread alone: what invalidates the range is the fault that its own walk handles.
            labels(driver="test_hmm", reason="own_fault"),
            of.number("range_fault.EBUSY"),
        )
        + _only(labels(driver="test_hmm", reason="lock_dropped"), of.number("lock_dropped")),
    }


def _only(its: Labels, value: int) -> Counts:
    return Counter({its: value} if value else {})
