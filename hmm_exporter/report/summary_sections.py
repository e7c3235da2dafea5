# SPDX-License-Identifier: Apache-2.0
"""What a summary says at every interval, as data: the metrics of the catalogue, those that move most."""

from __future__ import annotations

from hmm_exporter.report.blocks import Column, Section, Table
from hmm_exporter.report.shared import (
    DMA,
    EXCLUSIVE,
    INVALIDATIONS,
    MIGRATION_PTES,
    MIGRATION_SECONDS,
    NOTIFIERS,
    PROCESS,
    PROCESS_COUNTS,
    RANGE_FAULT_COLUMNS,
    size_column,
    time_column,
)

_PROCESSES = 10

SUMMARY = (
    Section(
        "Migrations",
        (
            Table(
                "",
                ("class",),
                (
                    Column("started", "hmm_migrations_started_total"),
                    Column("empty", "hmm_migrations_empty_total"),
                    Column("failed", "hmm_migration_failures_total"),
                    size_column("moved", "hmm_migration_moved_size_bytes_sum"),
                    size_column("not moved", "hmm_migration_unmoved_bytes_total"),
                    time_column("mean", f"{MIGRATION_SECONDS}_sum", f"{MIGRATION_SECONDS}_count"),
                ),
            ),
            Table(
                "processes with most migrations",
                PROCESS,
                (
                    *PROCESS_COUNTS,
                    size_column("moved", "hmm_process_moved_bytes_total"),
                    size_column("thrashed", "hmm_process_returned_bytes_total"),
                ),
                top=_PROCESSES,
            ),
        ),
    ),
    Section("hmm_range_fault", (Table("", ("driver",), RANGE_FAULT_COLUMNS),)),
    Section(
        "Device ranges",
        (Table("", ("function", "device"), (Column("calls", "hmm_device_range_migrations_total"),)),),
    ),
    Section("Device-exclusive", (EXCLUSIVE,)),
    Section("Mirrored ranges", (NOTIFIERS,)),
    Section("Page by page", (INVALIDATIONS, MIGRATION_PTES, DMA)),
)
