# SPDX-License-Identifier: Apache-2.0
"""The tables and columns that a summary and a final report have in common."""

from __future__ import annotations

from hmm_exporter.catalog.values import Class, Direction, Invalidation
from hmm_exporter.report.blocks import Column, Table
from hmm_exporter.report.units import Unit

PROCESS = ("pid", "comm")
DIRECTIONS = {
    Direction.host_to_device: "to device",
    Direction.device_to_host: "to host",
    Direction.device_to_device: "dev to dev",
    Direction.host_to_host: "host to host",
}


def by_class(sample: str, unit: Unit = Unit.count) -> tuple[Column, ...]:
    return tuple(Column(each.name, sample, unit, {"class": each.name}) for each in Class)


def by_direction(sample: str) -> tuple[Column, ...]:
    return tuple(Column(text, sample, Unit.bytes, {"direction": way.name}) for way, text in DIRECTIONS.items())


def size_column(heading: str, sample: str, **where: str) -> Column:
    return Column(heading, sample, Unit.bytes, where)


def time_column(heading: str, sample: str, per: str = "") -> Column:
    return Column(heading, sample, Unit.seconds, per=per)


MIGRATION_SECONDS = "hmm_migration_duration_seconds"
RANGE_FAULT_COLUMNS = (
    Column("calls", "hmm_range_faults_total"),
    Column("writing", "hmm_range_faults_total", where={"intent": "write"}),
    Column("EBUSY", "hmm_range_fault_failures_total", where={"errno": "EBUSY"}),
    time_column("mean", "hmm_range_fault_duration_seconds_sum", "hmm_range_fault_duration_seconds_count"),
)
ATTEMPTS = Table(
    "walks of a range that a call is made of, and why they ended in EBUSY",
    ("driver",),
    (
        Column("walks", "hmm_range_fault_attempts_total"),
        *(
            Column(reason, "hmm_range_fault_ebusy_total", where={"reason": reason})
            for reason in ("raced", "own_fault", "lock_dropped")
        ),
    ),
)
EXCLUSIVE = Table(
    "",
    (),
    (
        Column("made exclusive", "hmm_device_exclusive_total"),
        Column("failed", "hmm_device_exclusive_failures_total"),
        Column("taken back", "hmm_device_exclusive_restores_total"),
    ),
)
NOTIFIERS = Table(
    "",
    ("driver",),
    (
        Column("inserts", "hmm_interval_notifier_inserts_total"),
        Column("failed", "hmm_interval_notifier_insert_failures_total"),
        Column("removes", "hmm_interval_notifier_removes_total"),
    ),
)
INVALIDATIONS = Table(
    "invalidations",
    (),
    tuple(
        Column(each.name, "hmm_mmu_notifier_invalidations_total", where={"event": each.name}) for each in Invalidation
    ),
)
MIGRATION_PTES = Table(
    "migration entries",
    ("context",),
    (
        Column("ptes set", "hmm_migration_ptes_set_total"),
        Column("removed", "hmm_migration_ptes_removed_total"),
        Column("pmds set", "hmm_migration_pmds_set_total"),
        Column("removed", "hmm_migration_pmds_removed_total"),
    ),
)
DMA = Table(
    "hmm_dma_map_pfn",
    (),
    (
        Column("maps", "hmm_dma_maps_total"),
        Column("failed", "hmm_dma_map_failures_total"),
        Column("unmaps", "hmm_dma_unmaps_total"),
        Column("missed", "hmm_dma_unmap_misses_total"),
    ),
)
PROCESS_COUNTS = (
    *(Column(name, "hmm_process_migrations_total", where={"class": name}) for name in ("prefetch", "fault_back")),
    Column("evict", "hmm_process_migrations_total", where={"class": "evict"}),
)
