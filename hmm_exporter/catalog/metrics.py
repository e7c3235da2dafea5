# SPDX-License-Identifier: Apache-2.0
"""The metrics: name, what one unit of it is, its labels, and the table columns it is made of.

Data only; ``metrics.collector`` reads it. A metric exists when the probes that feed it are
attached: a figure that nobody counts is absent, not zero. Metrics about the exporter itself are
in ``metrics.exporter``, beside what they measure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from hmm_exporter.catalog import tables
from hmm_exporter.catalog.tables import Entry, Event, Failure, RangeFunction, Table


class Type(Enum):
    COUNTER = "counter"
    HISTOGRAM = "histogram"


class Scale(Enum):
    """What a column's number is divided by to give the metric's base unit."""

    one = 1
    nanoseconds = 1_000_000_000


@dataclass(frozen=True)
class Source:
    """A column of a table: rows where the key fields have these values, with these labels added.

    ``sum`` is the column that holds a histogram's sum. ``probes`` must all be attached, or with
    ``any_probe`` one of them. ``errnos`` are the errors that the function can return: their series
    exist at 0.
    """

    table: Table
    column: str
    probes: tuple[str, ...]
    where: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    sum: str = ""
    errnos: tuple[str, ...] = ()
    any_probe: bool = False


@dataclass(frozen=True)
class Metric:
    """``labels`` maps a label to the key field that it is the name of."""

    name: str
    type: Type
    help: str
    labels: Mapping[str, str]
    sources: tuple[Source, ...]
    scale: Scale = Scale.one
    per_process: bool = False
    """Process tier: a series appears when its event occurs, and not at 0."""


_SETUP = ("migrate_vma_setup",)
_COMPLETED = ("migrate_vma_setup", "migrate_vma_finalize")
_PHASES = ("migrate_vma_setup", "migrate_vma_pages", "migrate_vma_finalize")
_RANGE_PROBES = ("hmm_range_fault", "hmm_range_fault_unlocked_timeout")
_INSERT_PROBES = ("mmu_interval_notifier_insert", "mmu_interval_notifier_insert_locked")

_N = {"class": "class", "trigger": "trigger", "pgmap_owner": "owner"}
_CLASS_OWNER = {"class": "class", "pgmap_owner": "owner"}
_CLASS_NOTE = "class is what was asked for (fault_page, flags), not the direction in which pages moved"
_TRIGGER_NOTE = (
    "trigger is what the thread was doing: nested (inside hmm_range_fault or make_device_exclusive),"
    " kthread (a GPU fault's or an eviction's worker), cpu_fault (a fault on its own memory; get_user_pages on"
    " its own memory included), syscall (the rest)"
)

# Errors that each function can return, read in 6.1, 6.12, 7.2 and 7.3.
_SETUP_ERRORS = ("EINVAL",)  # mm/migrate_device.c:746-761
_RANGE_ERRORS = ("EBUSY", "EFAULT", "EPERM", "EINVAL", "ENOMEM", "EINTR")  # the last two since 7.3
_EXCLUSIVE_ERRORS = ("EFAULT", "ENOMEM", "EINTR", "EINVAL", "EOPNOTSUPP")  # mm/rmap.c:2862 and GUP's
_INSERT_ERRORS = ("EOVERFLOW", "ENOMEM", "EINTR", "EINVAL")  # mm/mmu_notifier.c:936


def _counter(
    name: str,
    help: str,
    labels: Mapping[str, str],
    *sources: Source,
    scale: Scale = Scale.one,
    per_process: bool = False,
) -> Metric:
    return Metric(name, Type.COUNTER, help, labels, sources, scale, per_process)


def _histogram(name: str, help: str, labels: Mapping[str, str], *sources: Source, scale: Scale = Scale.one) -> Metric:
    return Metric(name, Type.HISTOGRAM, help, labels, sources, scale)


def _event(name: str, help: str, event: Event, probe: str) -> Metric:
    return _counter(name, help, {}, Source(tables.EVENT, "calls", (probe,), where={"event": event}))


def _process(name: str, help: str, column: str, *probes: str, scale: Scale = Scale.one) -> Metric:
    source = Source(tables.PROCESS, column, probes, any_probe=True)
    return _counter(name, help, {"comm": "comm"}, source, scale=scale, per_process=True)


_MIGRATIONS = (
    _counter(
        "hmm_migrations_started_total",
        f"Calls of migrate_vma_setup. {_CLASS_NOTE}; {_TRIGGER_NOTE}.",
        _N,
        Source(tables.MIGRATION, "started", _SETUP),
    ),
    _counter(
        "hmm_migration_failures_total",
        "Calls of migrate_vma_setup that returned an error; all of them are EINVAL to 7.3.",
        {"class": "class", "trigger": "trigger", "pgmap_owner": "subject", "errno": "errno"},
        Source(tables.FAILURE, "calls", _SETUP, where={"function": Failure.migration}, errnos=_SETUP_ERRORS),
    ),
    _counter(
        "hmm_migrations_empty_total",
        "Migrations for which migrate_vma_setup returned 0 and had collected nothing (cpages 0).",
        _N,
        Source(tables.MIGRATION, "empty", _SETUP),
    ),
    _counter(
        "hmm_migrations_completed_total",
        "Migrations that had collected something and whose migrate_vma_finalize returned, moved or not.",
        _N,
        Source(tables.MIGRATION, "completed", _COMPLETED),
    ),
    _counter(
        "hmm_migration_requested_bytes_total",
        "Page-aligned size of the ranges given to migrate_vma_setup, when it returned 0.",
        _N,
        Source(tables.MIGRATION, "requested_bytes", _SETUP),
    ),
    _histogram(
        "hmm_migration_request_size_bytes",
        "Page-aligned size of the range given to migrate_vma_setup, when it returned 0.",
        _CLASS_OWNER,
        Source(tables.MIGRATION, "request_size", _SETUP, sum="requested_bytes"),
    ),
    _histogram(
        "hmm_migration_duration_seconds",
        "From migrate_vma_setup's entry to migrate_vma_finalize's return, of completed migrations.",
        _CLASS_OWNER,
        Source(tables.MIGRATION, "duration", _COMPLETED, sum="duration_ns"),
        scale=Scale.nanoseconds,
    ),
    _counter(
        "hmm_migration_phase_seconds_total",
        "Time of completed migrations by phase: setup (migrate_vma_setup), driver_prepare (to migrate_vma_pages;"
        " drm_pagemap and test_hmm copy here), commit (migrate_vma_pages), driver_complete (to migrate_vma_finalize;"
        " amdgpu, nouveau and nvidia-uvm wait for the copy here), finalize (migrate_vma_finalize)."
        " Where pages never ran, only setup and finalize.",
        _CLASS_OWNER | {"phase": ""},
        *(Source(tables.MIGRATION, f"{phase}_ns", _PHASES, labels={"phase": phase}) for phase in tables.PHASES),
        scale=Scale.nanoseconds,
    ),
    _histogram(
        "hmm_migration_phase_duration_seconds",
        "Each phase of hmm_migration_phase_seconds_total as a histogram (histograms.migration_phases).",
        {"class": "class", "phase": ""},
        *(
            Source(
                tables.MIGRATION_PHASE, "duration", _PHASES, where={"phase": number}, labels={"phase": phase}, sum="ns"
            )
            for number, phase in enumerate(tables.PHASES)
        ),
        scale=Scale.nanoseconds,
    ),
)

_DEVICE_RANGES = (
    _counter(
        "hmm_device_range_migrations_total",
        "Calls of migrate_device_range and migrate_device_pfns: eviction in xe and nvidia-uvm (which calls it once"
        " a page), teardown elsewhere. xe tries up to three times for one eviction.",
        {"function": "function"},
        *(
            Source(tables.DEVICE_RANGE, "calls", (member.name,), where={"function": member})
            for member in tables.DeviceFunction
        ),
    ),
    _histogram(
        "hmm_device_range_size_bytes",
        "Size of the array given to migrate_device_range or migrate_device_pfns, resident or not, in pages' bytes.",
        {"function": "function"},
        *(
            Source(tables.DEVICE_RANGE, "size", (member.name,), where={"function": member}, sum="bytes")
            for member in tables.DeviceFunction
        ),
    ),
)


def _range_sources(column: str, sum: str = "") -> tuple[Source, ...]:
    return tuple(
        Source(tables.RANGE_FAULT, column, (member.name,), where={"function": member}, sum=sum)
        for member in RangeFunction
    )


_RANGE_FAULTS = (
    _counter(
        "hmm_range_faults_total",
        "Calls of hmm_range_fault and (7.3 and newer) hmm_range_fault_unlocked_timeout. intent is what was asked"
        " for: snapshot, read, write (default_flags), or per_page (pfn_flags_mask).",
        {"function": "function", "driver": "ops", "intent": "intent"},
        *_range_sources("calls"),
    ),
    _counter(
        "hmm_range_fault_failures_total",
        "Calls that returned an error. To 7.2 EBUSY is every lost race, also one that the call's own faults caused;"
        " hmm_range_fault_unlocked_timeout retries inside and returns it only after its timeout.",
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
    _histogram(
        "hmm_range_fault_size_bytes",
        "Size of the range, of every call; 0 where it ends before it starts.",
        {"function": "function", "driver": "ops"},
        *_range_sources("size", "bytes"),
    ),
    _histogram(
        "hmm_range_fault_duration_seconds",
        "From entry to return, faults and whole migrations inside included.",
        {"function": "function", "driver": "ops"},
        *_range_sources("duration", "duration_ns"),
        scale=Scale.nanoseconds,
    ),
    _counter(
        "hmm_range_fault_ebusy_callers_total",
        "Returns of EBUSY by the function that called, from the kernel stack.",
        {"driver": "ops", "caller": "stack"},
        *(Source(tables.EBUSY, "calls", (member.name,), where={"function": member}) for member in RangeFunction),
    ),
)

_PROCESSES = (
    _counter(
        "hmm_process_migrations_total",
        "Calls of migrate_vma_setup, by the process that owns the memory.",
        {"comm": "comm", "class": "class", "pgmap_owner": "owner"},
        Source(tables.PROCESS_MIGRATION, "started", _SETUP),
        per_process=True,
    ),
    _counter(
        "hmm_process_migration_failures_total",
        "Calls of migrate_vma_setup that returned an error, by the process that owns the memory.",
        {"comm": "comm", "class": "class", "errno": "errno"},
        Source(tables.PROCESS_FAILURE, "calls", _SETUP, where={"function": Failure.migration}),
        per_process=True,
    ),
    _counter(
        "hmm_process_requested_bytes_total",
        "Page-aligned size of the ranges given to migrate_vma_setup when it returned 0, by the memory's owner.",
        {"comm": "comm", "class": "class", "pgmap_owner": "owner"},
        Source(tables.PROCESS_MIGRATION, "requested_bytes", _SETUP),
        per_process=True,
    ),
    _process(
        "hmm_process_fault_stall_seconds_total",
        "Time from migrate_vma_setup to migrate_vma_finalize's return with trigger cpu_fault: a lower bound of"
        " what the process's threads waited for memory to come back.",
        "fault_stall_ns",
        "migrate_vma_finalize",
        scale=Scale.nanoseconds,
    ),
    _process(
        "hmm_process_range_faults_total",
        "Calls of hmm_range_fault and hmm_range_fault_unlocked_timeout, by the process that owns the memory.",
        "range_faults",
        *_RANGE_PROBES,
    ),
    _counter(
        "hmm_process_range_fault_failures_total",
        "Calls of hmm_range_fault and hmm_range_fault_unlocked_timeout that returned an error, by the memory's owner.",
        {"comm": "comm", "errno": "errno"},
        Source(tables.PROCESS_FAILURE, "calls", _RANGE_PROBES, where={"function": Failure.range_fault}, any_probe=True),
        per_process=True,
    ),
    _process(
        "hmm_process_device_exclusive_total",
        "Calls of make_device_exclusive, by the process that owns the memory.",
        "device_exclusive",
        "make_device_exclusive",
    ),
    _process(
        "hmm_process_device_exclusive_restores_total",
        "Calls of restore_exclusive_pte, by the process that owns the memory.",
        "device_exclusive_restores",
        "restore_exclusive_pte",
    ),
    _process(
        "hmm_process_huge_faults_total",
        "Faults handled by do_huge_pmd_device_private, by the process that owns the memory.",
        "huge_faults",
        "do_huge_pmd_device_private",
    ),
    _process(
        "hmm_process_interval_notifier_inserts_total",
        "Calls of mmu_interval_notifier_insert and _insert_locked, by the process that owns the memory.",
        "interval_notifier_inserts",
        *_INSERT_PROBES,
    ),
    _process(
        "hmm_process_interval_notifier_removes_total",
        "Calls of mmu_interval_notifier_remove, by the process that owns the memory.",
        "interval_notifier_removes",
        "mmu_interval_notifier_remove",
    ),
    _process(
        "hmm_process_invalidations_total",
        "MMU_NOTIFY_MIGRATE and MMU_NOTIFY_EXCLUSIVE invalidations, by the process that owns the memory.",
        "invalidations",
        "__mmu_notifier_invalidate_range_start",
    ),
)

_REST = (
    _event(
        "hmm_device_exclusive_total",
        "Calls of make_device_exclusive: one page each from 6.15 on; before, calls of make_device_exclusive_range,"
        " of any number of pages.",
        Event.device_exclusive,
        "make_device_exclusive",
    ),
    _counter(
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
    _counter(
        "hmm_interval_notifier_inserts_total",
        "Calls of mmu_interval_notifier_insert and _insert_locked: a mirrored range, not a process that attaches;"
        " KVM, RDMA and userptr drivers call them, too.",
        {"driver": "ops"},
        Source(tables.INTERVAL_NOTIFIER, "inserts", _INSERT_PROBES, any_probe=True),
    ),
    _counter(
        "hmm_interval_notifier_insert_failures_total",
        "Calls of mmu_interval_notifier_insert and _insert_locked that returned an error.",
        {"driver": "subject", "errno": "errno"},
        Source(
            tables.FAILURE,
            "calls",
            _INSERT_PROBES,
            where={"function": Failure.interval_notifier_insert},
            errnos=_INSERT_ERRORS,
            any_probe=True,
        ),
    ),
    _counter(
        "hmm_interval_notifier_removes_total",
        "Calls of mmu_interval_notifier_remove.",
        {"driver": "ops"},
        Source(tables.INTERVAL_NOTIFIER, "removes", ("mmu_interval_notifier_remove",)),
    ),
    _event(
        "hmm_huge_faults_total",
        "CPU faults on a huge page on the device that do_huge_pmd_device_private handled (6.19 and newer); calls"
        " that return VM_FAULT_RETRY are hmm_huge_fault_retries_total.",
        Event.huge_fault,
        "do_huge_pmd_device_private",
    ),
    _event(
        "hmm_huge_fault_retries_total",
        "Calls of do_huge_pmd_device_private that returned VM_FAULT_RETRY: the first half of nearly every huge fault.",
        Event.huge_fault_retry,
        "do_huge_pmd_device_private",
    ),
    _counter(
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
    _counter(
        "hmm_mmu_notifier_invalidations_total",
        "Calls of __mmu_notifier_invalidate_range_start with MMU_NOTIFY_MIGRATE (one a migrate_vma_setup, one more"
        " where migrate_vma_pages fills a hole) or MMU_NOTIFY_EXCLUSIVE (made exclusive; to 6.14 taken back, too).",
        {"event": "event"},
        Source(tables.INVALIDATION, "calls", ("__mmu_notifier_invalidate_range_start",)),
    ),
    _histogram(
        "hmm_mmu_notifier_invalidation_size_bytes",
        "Size of the invalidated range.",
        {"event": "event"},
        Source(tables.INVALIDATION, "size", ("__mmu_notifier_invalidate_range_start",), sum="bytes"),
    ),
    *(
        _counter(
            f"hmm_migration_ptes_{entry.name}_total",
            f"Migration entries {entry.name} (tracepoint migrate:{probe}), by the folio's order. context is hmm when"
            " the thread is inside an HMM call; other is compaction, NUMA balancing, splitting a huge page.",
            {"order": "order", "context": "context"},
            Source(tables.MIGRATION_PTE, "entries", (probe,), where={"entry": entry}),
        )
        for entry, probe in ((Entry.set, "set_migration_pte"), (Entry.removed, "remove_migration_pte"))
    ),
)

METRICS = _MIGRATIONS + _DEVICE_RANGES + _RANGE_FAULTS + _PROCESSES + _REST
