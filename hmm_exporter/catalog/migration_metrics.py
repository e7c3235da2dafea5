# SPDX-License-Identifier: Apache-2.0
"""The metrics of migrations and of device ranges: node tier."""

from __future__ import annotations

from hmm_exporter.catalog import tables, values
from hmm_exporter.catalog.metric import Scale, Source, counter, histogram
from hmm_exporter.catalog.values import Failure

_SETUP = ("migrate_vma_setup",)
_COMPLETED = ("migrate_vma_setup", "migrate_vma_finalize")
_PHASES = ("migrate_vma_setup", "migrate_vma_pages", "migrate_vma_finalize")

_N = {"class": "class", "trigger": "trigger", "pgmap_owner": "owner"}
_CLASS_OWNER = {"class": "class", "pgmap_owner": "owner"}
_CLASS_NOTE = "class is what was asked for (fault_page, flags), not the direction in which pages moved"
_TRIGGER_NOTE = (
    "trigger is what the thread was doing: nested (inside hmm_range_fault or make_device_exclusive),"
    " kthread (a GPU fault's or an eviction's worker), cpu_fault (a fault on its own memory; get_user_pages on"
    " its own memory included), syscall (the rest)"
)

# Read in 6.1, 6.12, 7.2 and 7.3.
_SETUP_ERRORS = ("EINVAL",)  # mm/migrate_device.c:746-761

MIGRATIONS = (
    counter(
        "hmm_migrations_started_total",
        f"Calls of migrate_vma_setup. {_CLASS_NOTE}; {_TRIGGER_NOTE}.",
        _N,
        Source(tables.MIGRATION, "started", _SETUP),
    ),
    counter(
        "hmm_migration_failures_total",
        "Calls of migrate_vma_setup that returned an error; all of them are EINVAL to 7.3.",
        {"class": "class", "trigger": "trigger", "pgmap_owner": "subject", "errno": "errno"},
        Source(tables.FAILURE, "calls", _SETUP, where={"function": Failure.migration}, errnos=_SETUP_ERRORS),
    ),
    counter(
        "hmm_migrations_empty_total",
        "Migrations for which migrate_vma_setup returned 0 and had collected nothing (cpages 0).",
        _N,
        Source(tables.MIGRATION, "empty", _SETUP),
    ),
    counter(
        "hmm_migrations_completed_total",
        "Migrations that had collected something and whose migrate_vma_finalize returned, moved or not.",
        _N,
        Source(tables.MIGRATION, "completed", _COMPLETED),
    ),
    counter(
        "hmm_migration_requested_bytes_total",
        "Page-aligned size of the ranges given to migrate_vma_setup, when it returned 0.",
        _N,
        Source(tables.MIGRATION, "requested_bytes", _SETUP),
    ),
    histogram(
        "hmm_migration_request_size_bytes",
        "Page-aligned size of the range given to migrate_vma_setup, when it returned 0.",
        _CLASS_OWNER,
        Source(tables.MIGRATION, "request_size", _SETUP, sum="requested_bytes"),
    ),
    histogram(
        "hmm_migration_duration_seconds",
        "From migrate_vma_setup's entry to migrate_vma_finalize's return, of completed migrations.",
        _CLASS_OWNER,
        Source(tables.MIGRATION, "duration", _COMPLETED, sum="duration_ns"),
        scale=Scale.nanoseconds,
    ),
    counter(
        "hmm_migration_phase_seconds_total",
        "Time of completed migrations by phase: setup (migrate_vma_setup), driver_prepare (to migrate_vma_pages;"
        " drm_pagemap and test_hmm copy here), commit (migrate_vma_pages), driver_complete (to migrate_vma_finalize;"
        " amdgpu, nouveau and nvidia-uvm wait for the copy here), finalize (migrate_vma_finalize)."
        " Where pages never ran, only setup and finalize.",
        _CLASS_OWNER | {"phase": ""},
        *(Source(tables.MIGRATION, f"{phase}_ns", _PHASES, labels={"phase": phase}) for phase in values.PHASES),
        scale=Scale.nanoseconds,
    ),
    histogram(
        "hmm_migration_phase_duration_seconds",
        "Each phase of hmm_migration_phase_seconds_total as a histogram (histograms.migration_phases).",
        {"class": "class", "phase": ""},
        *(
            Source(
                tables.MIGRATION_PHASE,
                "duration",
                _PHASES,
                where={"phase": number},
                labels={"phase": phase},
                sum="ns",
                option="histograms.migration_phases",
            )
            for number, phase in enumerate(values.PHASES)
        ),
        scale=Scale.nanoseconds,
    ),
)

DEVICE_RANGES = (
    counter(
        "hmm_device_range_migrations_total",
        "Calls of migrate_device_range and migrate_device_pfns: eviction in xe and nvidia-uvm (which calls it once"
        " a page), teardown elsewhere. xe tries up to three times for one eviction.",
        {"function": "function"},
        *(
            Source(tables.DEVICE_RANGE, "calls", (member.name,), where={"function": member})
            for member in values.DeviceFunction
        ),
    ),
    histogram(
        "hmm_device_range_size_bytes",
        "Size of the array given to migrate_device_range or migrate_device_pfns, resident or not, in pages' bytes.",
        {"function": "function"},
        *(
            Source(tables.DEVICE_RANGE, "size", (member.name,), where={"function": member}, sum="bytes")
            for member in values.DeviceFunction
        ),
    ),
)
