# SPDX-License-Identifier: Apache-2.0
"""The metrics of device mirrors (hmm_range_fault) and of the rest of the probes: node tier."""

from __future__ import annotations

from hmm_exporter.catalog import tables
from hmm_exporter.catalog.metric import INSERT_PROBES, RANGE_PROBES, Metric, Scale, Source, counter, histogram
from hmm_exporter.catalog.values import Entry, Event, Failure, RangeFunction

# Errors that each function can return, read in 6.1, 6.12, 7.2 and 7.3.
_RANGE_ERRORS = ("EBUSY", "EFAULT", "EPERM", "EINVAL", "ENOMEM", "EINTR")  # the last two since 7.3
_EXCLUSIVE_ERRORS = ("EFAULT", "ENOMEM", "EINTR", "EINVAL", "EOPNOTSUPP")  # mm/rmap.c:2862 and GUP's
_INSERT_ERRORS = ("EOVERFLOW", "ENOMEM", "EINTR", "EINVAL")  # mm/mmu_notifier.c:936


def _range_sources(column: str, sum: str = "") -> tuple[Source, ...]:
    return tuple(
        Source(tables.RANGE_FAULT, column, (member.name,), where={"function": member}, sum=sum)
        for member in RangeFunction
    )


def _event(name: str, help: str, event: Event, probe: str) -> Metric:
    return counter(name, help, {}, Source(tables.EVENT, "calls", (probe,), where={"event": event}))


RANGE_FAULTS = (
    counter(
        "hmm_range_faults_total",
        "Calls of hmm_range_fault and (7.3 and newer) hmm_range_fault_unlocked_timeout. intent is what was asked"
        " for: snapshot, read, write (default_flags), or per_page (pfn_flags_mask).",
        {"function": "function", "driver": "ops", "intent": "intent"},
        *_range_sources("calls"),
    ),
    counter(
        "hmm_range_fault_failures_total",
        "Calls that returned an error. EBUSY of hmm_range_fault is every lost race, also one that the call's own"
        " faults caused; hmm_range_fault_unlocked_timeout retries inside and returns it only after its timeout.",
        {"function": "", "driver": "subject", "errno": "errno"},
        *(
            Source(
                tables.FAILURE,
                "calls",
                (member.name,),
                where={"function": failure},
                labels={"function": member.name},
                errnos=_RANGE_ERRORS,
            )
            for member, failure in (
                (RangeFunction.hmm_range_fault, Failure.range_fault),
                (RangeFunction.hmm_range_fault_unlocked_timeout, Failure.range_fault_unlocked),
            )
        ),
    ),
    histogram(
        "hmm_range_fault_size_bytes",
        "Size of the range, of every call; 0 where it ends before it starts.",
        {"function": "function", "driver": "ops"},
        *_range_sources("size", "bytes"),
    ),
    histogram(
        "hmm_range_fault_duration_seconds",
        "From entry to return, faults and whole migrations inside included.",
        {"function": "function", "driver": "ops"},
        *_range_sources("duration", "duration_ns"),
        scale=Scale.nanoseconds,
    ),
    counter(
        "hmm_range_fault_ebusy_callers_total",
        "Returns of EBUSY by the function that called, from the kernel stack.",
        {"driver": "ops", "caller": "stack"},
        *(Source(tables.EBUSY, "calls", (member.name,), where={"function": member}) for member in RangeFunction),
    ),
    counter(
        "hmm_range_fault_attempts_total",
        "Walks of a range: returns of hmm_range_fault (to 7.2) or hmm_range_fault_locked (7.3 and newer), which"
        " hmm_range_fault_unlocked_timeout calls until one succeeds.",
        {"driver": "ops"},
        Source(tables.RANGE_ATTEMPT, "attempts", RANGE_PROBES, any_probe=True, options=("range_attempts",)),
    ),
    counter(
        "hmm_range_fault_ebusy_total",
        "Walks that ended in EBUSY: raced (the CPU invalidated the range), own_fault (a fault of the walk itself did,"
        " such as copy on write), lock_dropped (7.3 and newer: a fault gave mmap_lock away, which is progress).",
        {"driver": "ops", "reason": ""},
        *(
            Source(
                tables.RANGE_ATTEMPT,
                reason,
                RANGE_PROBES,
                labels={"reason": reason},
                any_probe=True,
                options=("range_attempts",),
            )
            for reason in ("raced", "own_fault", "lock_dropped")
        ),
    ),
)

REST = (
    _event(
        "hmm_device_exclusive_total",
        "Calls of make_device_exclusive: one page each from 6.15 on; before, calls of make_device_exclusive_range,"
        " of any number of pages.",
        Event.device_exclusive,
        "make_device_exclusive",
    ),
    counter(
        "hmm_device_exclusive_failures_total",
        "Calls of make_device_exclusive (to 6.14 _range) that returned an error.",
        {"errno": "errno"},
        Source(
            tables.FAILURE,
            "calls",
            ("make_device_exclusive",),
            where={"function": Failure.device_exclusive},
            errnos=_EXCLUSIVE_ERRORS,
        ),
    ),
    _event(
        "hmm_device_exclusive_restores_total",
        "Calls of restore_exclusive_pte: a page went back to the CPU, by its access, a fork, or the driver's own"
        " next make_device_exclusive.",
        Event.device_exclusive_restore,
        "restore_exclusive_pte",
    ),
    counter(
        "hmm_interval_notifier_inserts_total",
        "Calls of mmu_interval_notifier_insert and _insert_locked: a mirrored range, not a process that attaches;"
        " RDMA, userptr, xen gntdev and hfi1 call them, too.",
        {"driver": "ops"},
        Source(tables.INTERVAL_NOTIFIER, "inserts", INSERT_PROBES, any_probe=True),
    ),
    counter(
        "hmm_interval_notifier_insert_failures_total",
        "Calls of mmu_interval_notifier_insert and _insert_locked that returned an error.",
        {"driver": "subject", "errno": "errno"},
        Source(
            tables.FAILURE,
            "calls",
            INSERT_PROBES,
            where={"function": Failure.interval_notifier_insert},
            errnos=_INSERT_ERRORS,
            any_probe=True,
        ),
    ),
    counter(
        "hmm_interval_notifier_removes_total",
        "Calls of mmu_interval_notifier_remove.",
        {"driver": "ops"},
        Source(tables.INTERVAL_NOTIFIER, "removes", ("mmu_interval_notifier_remove",)),
    ),
    _event(
        "hmm_huge_faults_total",
        "Calls of do_huge_pmd_device_private (6.19 and newer) that did not return VM_FAULT_RETRY: faults on a huge"
        " page on the device, also those of hmm_range_fault and those that found its lock taken and come again.",
        Event.huge_fault,
        "do_huge_pmd_device_private",
    ),
    _event(
        "hmm_huge_fault_retries_total",
        "Calls of do_huge_pmd_device_private that returned VM_FAULT_RETRY: the first half of nearly every huge fault.",
        Event.huge_fault_retry,
        "do_huge_pmd_device_private",
    ),
    counter(
        "hmm_huge_fault_failures_total",
        "Calls of do_huge_pmd_device_private that returned an error, by VM_FAULT code.",
        {"fault": "errno"},
        Source(
            tables.FAILURE,
            "calls",
            ("do_huge_pmd_device_private",),
            where={"function": Failure.huge_fault},
            errnos=("VM_FAULT_SIGBUS", "VM_FAULT_OOM"),
        ),
    ),
    _event("hmm_dma_maps_total", "Calls of hmm_dma_map_pfn, one page each.", Event.dma_map, "hmm_dma_map_pfn"),
    _event(
        "hmm_dma_map_failures_total",
        "Calls of hmm_dma_map_pfn that returned DMA_MAPPING_ERROR.",
        Event.dma_map_failure,
        "hmm_dma_map_pfn",
    ),
    _event("hmm_dma_unmaps_total", "Calls of hmm_dma_unmap_pfn, one page each.", Event.dma_unmap, "hmm_dma_unmap_pfn"),
    _event(
        "hmm_dma_unmap_misses_total",
        "Calls of hmm_dma_unmap_pfn that returned false: the page was not mapped.",
        Event.dma_unmap_miss,
        "hmm_dma_unmap_pfn",
    ),
    counter(
        "hmm_mmu_notifier_invalidations_total",
        "Calls of __mmu_notifier_invalidate_range_start with MMU_NOTIFY_MIGRATE (one a migrate_vma_setup, one more"
        " where migrate_vma_pages fills a hole) or MMU_NOTIFY_EXCLUSIVE (made exclusive; to 6.14 taken back, too).",
        {"event": "event"},
        Source(tables.INVALIDATION, "calls", ("__mmu_notifier_invalidate_range_start",)),
    ),
    histogram(
        "hmm_mmu_notifier_invalidation_size_bytes",
        "Size of the invalidated range.",
        {"event": "event"},
        Source(tables.INVALIDATION, "size", ("__mmu_notifier_invalidate_range_start",), sum="bytes"),
    ),
    *(
        counter(
            f"hmm_migration_ptes_{entry.name}_total",
            f"Migration entries {entry.name} (tracepoint migrate:{probe}), by the folio's order. context is hmm when"
            " the thread is inside an HMM call; other is compaction, NUMA balancing, splitting a huge page.",
            {"order": "order", "context": "context"},
            Source(tables.MIGRATION_PTE, "entries", (probe,), where={"entry": entry}),
        )
        for entry, probe in ((Entry.set, "set_migration_pte"), (Entry.removed, "remove_migration_pte"))
    ),
    *(
        counter(
            f"hmm_migration_pmds_{entry.name}_total",
            f"Migration entries of huge pages {entry.name} (tracepoint thp:{probe}). context as with"
            " hmm_migration_ptes.",
            {"context": "context"},
            Source(tables.MIGRATION_PMD, "entries", (probe,), where={"entry": entry}),
        )
        for entry, probe in ((Entry.set, "set_migration_pmd"), (Entry.removed, "remove_migration_pmd"))
    ),
)
