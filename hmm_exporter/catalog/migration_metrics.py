# SPDX-License-Identifier: Apache-2.0
"""The metrics of migrations: node tier. What of them moved is ``catalog.moved_metrics``'."""

from __future__ import annotations

from hmm_exporter.catalog import tables, values
from hmm_exporter.catalog.metric import Scale, Source, Zeros, counter, histogram
from hmm_exporter.catalog.values import Failure

SETUP = ("migrate_vma_setup",)
COMPLETED = ("migrate_vma_setup", "migrate_vma_finalize")
PHASES = ("migrate_vma_setup", "migrate_vma_pages", "migrate_vma_finalize")

N = {"class": "class", "trigger": "trigger", "pgmap_owner": "owner", "device": "device"}
CLASS_OWNER = {"class": "class", "pgmap_owner": "owner"}
_CLASS_NOTE = "class is what was asked for (fault_page, flags), not the direction in which pages moved"
_TRIGGER_NOTE = (
    "trigger is what the thread was doing: nested (inside hmm_range_fault or make_device_exclusive),"
    " kthread (a GPU fault's or an eviction's worker), cpu_fault (a fault on its own memory; get_user_pages on"
    " its own memory included), syscall (the rest)"
)
_DEVICE_NOTE = "device is none: it is the pages that say which, later"

# Read in 6.1, 6.12, 7.2 and 7.3.
_SETUP_ERRORS = ("EINVAL",)  # mm/migrate_device.c:746-761

MIGRATIONS = (
    counter(
        "hmm_migrations_started_total",
        f"Calls of migrate_vma_setup. {_CLASS_NOTE}; {_TRIGGER_NOTE}; {_DEVICE_NOTE}.",
        N,
        Source(tables.MIGRATION, "started", SETUP),
        zeros=Zeros.without_device,
    ),
    counter(
        "hmm_migration_failures_total",
        "Calls of migrate_vma_setup that returned an error; all of them are EINVAL to 7.3.",
        {"class": "class", "trigger": "trigger", "pgmap_owner": "subject", "device": "", "errno": "errno"},
        Source(
            tables.FAILURE,
            "calls",
            SETUP,
            where={"function": Failure.migration},
            labels={"device": "none"},
            errnos=_SETUP_ERRORS,
        ),
        zeros=Zeros.never,
    ),
    counter(
        "hmm_migrations_empty_total",
        "Migrations for which migrate_vma_setup returned 0 and had collected nothing (cpages 0).",
        N,
        Source(tables.MIGRATION, "empty", SETUP),
        zeros=Zeros.without_device,
    ),
    counter(
        "hmm_migrations_completed_total",
        "Migrations that had collected something and whose migrate_vma_finalize returned, moved or not. device has"
        " their first destination on a device, else their first source on one (nvidia-uvm-hmm-0 is a range of"
        " pages, not a GPU; other: its range is not known yet).",
        N,
        Source(tables.MIGRATION, "completed", COMPLETED),
        zeros=Zeros.with_device,
    ),
    counter(
        "hmm_migration_requested_bytes_total",
        "Page-aligned size of the ranges given to migrate_vma_setup, when it returned 0; counted when the migration"
        " ends, so that at all times it is moved + zero_filled + the sum of unmoved.",
        N,
        Source(tables.MIGRATION, "requested_bytes", SETUP),
        zeros=Zeros.with_device,
    ),
    histogram(
        "hmm_migration_request_size_bytes",
        "Page-aligned size of the range given to migrate_vma_setup, when it returned 0.",
        CLASS_OWNER,
        Source(tables.MIGRATION_HISTOGRAM, "request_size", SETUP, sum="requested_bytes"),
    ),
    histogram(
        "hmm_migration_duration_seconds",
        "From migrate_vma_setup's entry to migrate_vma_finalize's return, of completed migrations.",
        CLASS_OWNER,
        Source(tables.MIGRATION_HISTOGRAM, "duration", COMPLETED, sum="duration_ns"),
        scale=Scale.nanoseconds,
    ),
    counter(
        "hmm_migration_phase_seconds_total",
        "Time of completed migrations by phase: setup (migrate_vma_setup), driver_prepare (to migrate_vma_pages;"
        " drm_pagemap and test_hmm copy here), commit (migrate_vma_pages), driver_complete (to migrate_vma_finalize;"
        " amdgpu, nouveau and nvidia-uvm wait for the copy here), finalize (migrate_vma_finalize)."
        " Where pages never ran, only setup and finalize.",
        CLASS_OWNER | {"phase": ""},
        *(
            Source(tables.MIGRATION_HISTOGRAM, f"{phase}_ns", PHASES, labels={"phase": phase})
            for phase in values.PHASES
        ),
        scale=Scale.nanoseconds,
        zeros=Zeros.never,
    ),
    histogram(
        "hmm_migration_phase_duration_seconds",
        "Each phase of hmm_migration_phase_seconds_total as a histogram (histograms.migration_phases).",
        {"class": "class", "phase": ""},
        *(
            Source(
                tables.MIGRATION_PHASE,
                "duration",
                PHASES,
                where={"phase": number},
                labels={"phase": phase},
                sum="ns",
                options=("histograms.migration_phases",),
            )
            for number, phase in enumerate(values.PHASES)
        ),
        scale=Scale.nanoseconds,
    ),
)
