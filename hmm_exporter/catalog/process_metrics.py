# SPDX-License-Identifier: Apache-2.0
"""The process tier: who. A series appears when its event occurs."""

from __future__ import annotations

from hmm_exporter.catalog import tables
from hmm_exporter.catalog.metric import INSERT_PROBES, RANGE_PROBES, Metric, Scale, Source, counter
from hmm_exporter.catalog.values import Direction, Failure

_SETUP = ("migrate_vma_setup",)
_PAGES = ("migrate_vma_setup", "migrate_vma_pages", "migrate_vma_finalize")


def _process(name: str, help: str, column: str, *probes: str, scale: Scale = Scale.one) -> Metric:
    source = Source(tables.PROCESS, column, probes, any_probe=True)
    return counter(name, help, {"comm": "comm"}, source, scale=scale, per_process=True)


PROCESSES = (
    counter(
        "hmm_process_migrations_total",
        "Calls of migrate_vma_setup, by the process that owns the memory.",
        {"comm": "comm", "class": "class", "pgmap_owner": "owner"},
        Source(tables.PROCESS_MIGRATION, "started", _SETUP),
        per_process=True,
    ),
    counter(
        "hmm_process_migration_failures_total",
        "Calls of migrate_vma_setup that returned an error, by the process that owns the memory.",
        {"comm": "comm", "class": "class", "errno": "errno"},
        Source(tables.PROCESS_FAILURE, "calls", _SETUP, where={"function": Failure.migration}),
        per_process=True,
    ),
    counter(
        "hmm_process_requested_bytes_total",
        "Page-aligned size of the ranges given to migrate_vma_setup when it returned 0, by the memory's owner.",
        {"comm": "comm", "class": "class", "pgmap_owner": "owner"},
        Source(tables.PROCESS_MIGRATION, "requested_bytes", _SETUP),
        per_process=True,
    ),
    counter(
        "hmm_process_moved_bytes_total",
        "Pages copied by migrations, by the process that owns the memory; direction by the pages themselves.",
        {"comm": "comm", "direction": ""},
        *(
            Source(
                tables.PROCESS_MIGRATION,
                "moved_bytes",
                _PAGES,
                labels={"direction": way.name},
                element=way,
                options=("pages", "devices"),
            )
            for way in Direction
        ),
        per_process=True,
    ),
    counter(
        "hmm_process_returned_bytes_total",
        "Thrash: bytes that a CPU fault brought back within thrash_window of their arrival, by the memory's owner.",
        {"comm": "comm"},
        Source(tables.PROCESS_MIGRATION, "returned_bytes", _PAGES, options=("pages", "devices")),
        per_process=True,
    ),
    counter(
        "hmm_process_fault_stall_seconds_total",
        "Time from migrate_vma_setup to migrate_vma_finalize's return with trigger cpu_fault: a lower bound of"
        " what the process's threads waited for memory to come back.",
        {"comm": "comm"},
        Source(tables.PROCESS_MIGRATION, "fault_stall_ns", ("migrate_vma_finalize",)),
        scale=Scale.nanoseconds,
        per_process=True,
    ),
    _process(
        "hmm_process_range_faults_total",
        "Calls of hmm_range_fault and hmm_range_fault_unlocked_timeout, by the process that owns the memory.",
        "range_faults",
        *RANGE_PROBES,
    ),
    counter(
        "hmm_process_range_fault_failures_total",
        "Calls of hmm_range_fault and hmm_range_fault_unlocked_timeout that returned an error, by the memory's owner.",
        {"comm": "comm", "errno": "errno"},
        Source(tables.PROCESS_FAILURE, "calls", RANGE_PROBES, where={"function": Failure.range_fault}, any_probe=True),
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
        *INSERT_PROBES,
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
