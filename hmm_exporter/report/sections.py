# SPDX-License-Identifier: Apache-2.0
"""What a final report says, as data: every metric of the catalogue; a test holds that none is left out."""

from __future__ import annotations

from hmm_exporter.catalog.values import PHASES, Context, Direction, Entry
from hmm_exporter.report.blocks import Column, Drawing, Section, StackList, Table
from hmm_exporter.report.shared import (
    ATTEMPTS,
    DMA,
    EXCLUSIVE,
    INVALIDATIONS,
    MIGRATION_PTES,
    MIGRATION_SECONDS,
    NOTIFIERS,
    PROCESS,
    PROCESS_COUNTS,
    RANGE_FAULT_COLUMNS,
    by_class,
    by_direction,
    size_column,
    time_column,
)
from hmm_exporter.report.units import Unit

_PROCESSES, _ERRORS, _STACKS = 40, 20, 10

_MIGRATIONS = Section(
    "Migrations",
    (
        Table(
            "calls of migrate_vma_setup, by what was asked for",
            ("class",),
            (
                Column("started", "hmm_migrations_started_total"),
                Column("completed", "hmm_migrations_completed_total"),
                Column("empty", "hmm_migrations_empty_total"),
                Column("failed", "hmm_migration_failures_total"),
                Column("aborted", "hmm_migrations_aborted_total"),
                Column("partial", "hmm_migrations_partial_total"),
                Column("huge", "hmm_migrations_huge_total"),
            ),
        ),
        Table(
            "their bytes",
            ("class",),
            (
                size_column("requested", "hmm_migration_requested_bytes_total"),
                size_column("collected", "hmm_migration_collected_bytes_total"),
                size_column("moved", "hmm_migration_moved_size_bytes_sum"),
                size_column("zero-filled", "hmm_migration_zero_filled_bytes_total"),
                size_column("not moved", "hmm_migration_unmoved_bytes_total"),
            ),
        ),
        Table("calls by what the thread was doing", ("trigger",), by_class("hmm_migrations_started_total")),
        Table("return codes of migrate_vma_setup", ("errno",), by_class("hmm_migration_failures_total")),
    ),
    note="empty: nothing was collected; aborted: nothing moved; partial: something was busy, had no destination, or"
    " was refused; huge: at least one huge page moved.",
)
_UNMOVED = Section(
    "What did not move, and why",
    (Table("", ("reason",), by_class("hmm_migration_unmoved_bytes_total", Unit.bytes)),),
    note="not_selected: a hole, already there, another owner's, or locked. busy: pinned or locked. no_destination: the"
    " device is full, or the driver declined. commit_failed: refused by migrate_vma_pages.",
)
_DEVICES = Section(
    "Devices",
    (
        Table("moved by device", ("device",), by_direction("hmm_migration_moved_bytes_total")),
        Table("of it in huge pages", ("device",), by_direction("hmm_migration_moved_huge_bytes_total")),
        Table("migrations by owner of device memory", ("pgmap_owner",), by_class("hmm_migrations_started_total")),
        Table("moved by owner of device memory", ("pgmap_owner",), by_direction("hmm_migration_moved_bytes_total")),
    ),
)
_THRASH = Section(
    "Thrash: memory that a CPU fault brings back",
    (
        Table(
            "soon after its arrival",
            ("device", "pgmap_owner"),
            (size_column("returned", "hmm_migration_returned_bytes_total"),),
        ),
        Drawing("until a CPU fault", "hmm_device_residency_seconds", ("device",), Unit.seconds, "regions"),
    ),
)
_TIMES = Section(
    "Where the time goes",
    (
        Drawing("setup to finalize", MIGRATION_SECONDS, ("class",), Unit.seconds, "migrations"),
        Table(
            "phases, added up",
            ("class",),
            tuple(
                Column(phase, "hmm_migration_phase_seconds_total", Unit.seconds, {"phase": phase}) for phase in PHASES
            ),
        ),
        Drawing("phase", "hmm_migration_phase_duration_seconds", ("phase",), Unit.seconds, "migrations"),
    ),
)
_SIZES = Section(
    "Sizes of migrations",
    (
        Drawing("requested", "hmm_migration_request_size_bytes", ("class",), Unit.bytes, "migrations"),
        Drawing("moved", "hmm_migration_moved_size_bytes", ("class",), Unit.bytes, "migrations"),
    ),
)
_PROCESS_TIER = Section(
    "Processes that own the memory",
    (
        Table(
            "migrations",
            PROCESS,
            (
                *PROCESS_COUNTS,
                Column("failed", "hmm_process_migration_failures_total"),
                time_column("stalled", "hmm_process_fault_stall_seconds_total"),
            ),
            top=_PROCESSES,
        ),
        Table(
            "bytes of migrations",
            PROCESS,
            (
                size_column("requested", "hmm_process_requested_bytes_total"),
                size_column("to device", "hmm_process_moved_bytes_total", direction=Direction.host_to_device.name),
                size_column("to host", "hmm_process_moved_bytes_total", direction=Direction.device_to_host.name),
                size_column("thrashed", "hmm_process_returned_bytes_total"),
            ),
            top=_PROCESSES,
        ),
        Table(
            "hmm_range_fault",
            PROCESS,
            (
                Column("calls", "hmm_process_range_faults_total"),
                Column("EBUSY", "hmm_process_range_fault_failures_total", where={"errno": "EBUSY"}),
                Column("all errors", "hmm_process_range_fault_failures_total"),
            ),
            top=_PROCESSES,
        ),
        Table(
            "the rest",
            PROCESS,
            (
                Column("exclusive", "hmm_process_device_exclusive_total"),
                Column("restores", "hmm_process_device_exclusive_restores_total"),
                Column("huge faults", "hmm_process_huge_faults_total"),
                Column("invalidated", "hmm_process_invalidations_total"),
            ),
            top=_PROCESSES,
        ),
        Table(
            "mirrored ranges",
            PROCESS,
            (
                Column("inserts", "hmm_process_interval_notifier_inserts_total"),
                Column("removes", "hmm_process_interval_notifier_removes_total"),
            ),
            top=_PROCESSES,
        ),
    ),
    note="stalled: what threads waited at least for CPU faults to bring memory back. thrashed: bytes brought back soon"
    " after their arrival on a device.",
)
_RANGE_FAULT = Section(
    "hmm_range_fault: what a device asks of the CPU's page tables",
    (
        Table("calls by driver", ("driver", "function"), RANGE_FAULT_COLUMNS),
        Table(
            "by what was asked for",
            ("driver",),
            tuple(
                Column(intent, "hmm_range_faults_total", where={"intent": intent})
                for intent in ("snapshot", "read", "write", "per_page")
            ),
        ),
        Table("return codes", ("errno", "driver"), (Column("calls", "hmm_range_fault_failures_total"),), top=_ERRORS),
        ATTEMPTS,
        Table(
            "callers that met EBUSY", ("driver", "caller"), (Column("calls", "hmm_range_fault_ebusy_callers_total"),)
        ),
        StackList("kernel stacks that met EBUSY", top=_STACKS),
        Drawing("entry to return", "hmm_range_fault_duration_seconds", ("function",), Unit.seconds, "calls"),
        Drawing("size of the range", "hmm_range_fault_size_bytes", ("function",), Unit.bytes, "calls"),
    ),
)
_DEVICE_RANGES = Section(
    "Device ranges: eviction in xe and nvidia-uvm, teardown elsewhere",
    (
        Table("calls", ("function", "device"), (Column("calls", "hmm_device_range_migrations_total"),)),
        Table("moved", ("device",), (size_column("moved", "hmm_device_range_moved_bytes_total"),)),
        Drawing("size of the array", "hmm_device_range_size_bytes", ("function",), Unit.bytes, "calls"),
    ),
)
_REST = (
    Section(
        "Device-exclusive: atomics of a GPU",
        (
            EXCLUSIVE,
            Table("return codes", ("errno",), (Column("calls", "hmm_device_exclusive_failures_total"),)),
        ),
    ),
    Section(
        "Mirrored ranges: mmu_interval_notifier",
        (
            NOTIFIERS,
            Table(
                "return codes", ("driver", "errno"), (Column("inserts", "hmm_interval_notifier_insert_failures_total"),)
            ),
        ),
    ),
    Section(
        "CPU faults on huge pages of a device",
        (
            Table(
                "",
                (),
                (Column("faults", "hmm_huge_faults_total"), Column("retries", "hmm_huge_fault_retries_total")),
            ),
            Table("return codes", ("fault",), (Column("faults", "hmm_huge_fault_failures_total"),)),
        ),
    ),
    Section(
        "Page by page",
        (
            INVALIDATIONS,
            Drawing(
                "size of invalidations",
                "hmm_mmu_notifier_invalidation_size_bytes",
                ("event",),
                Unit.bytes,
                "invalidations",
            ),
            MIGRATION_PTES,
            Table(
                "migration entries by the folio's order",
                ("order",),
                tuple(
                    Column(
                        f"{entry.name}, {context.name}",
                        f"hmm_migration_ptes_{entry.name}_total",
                        where={"context": context.name},
                    )
                    for entry in Entry
                    for context in reversed(Context)
                ),
            ),
            DMA,
        ),
        note="context hmm: inside of an HMM call; other: compaction, NUMA balancing, splitting a huge page. Entries are"
        " set only for pages that are still mapped when they are collected, so more are removed than set.",
    ),
)
FINAL = (
    _MIGRATIONS,
    _UNMOVED,
    _DEVICES,
    _THRASH,
    _TIMES,
    _SIZES,
    _PROCESS_TIER,
    _RANGE_FAULT,
    _DEVICE_RANGES,
    *_REST,
)
