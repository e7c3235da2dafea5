# SPDX-License-Identifier: Apache-2.0
"""A node's rows of panels about migrations: thrash, speed, what does not move, eviction."""

from __future__ import annotations

from dashboards.grafana.generate.panels import Link, Query, a_second, heat, of_series, time_series
from dashboards.grafana.generate.promql import (
    NODE,
    OWNER,
    PER_PROCESS,
    WHO,
    buckets,
    evicted,
    not_zero,
    oversubscription,
    quantile,
    rates,
    ratio,
    share,
    thrash_ratio,
    top,
    unmoved_share,
)

TO_PROCESS = Link(
    "process detail",
    "hmm-process",
    of_series("node", "namespace", "pod", "slurm_job", "comm"),
    ("cluster", "pgmap_owner"),
)

THRASH = (
    heat(
        "How long memory stays on a device",
        "From a 2 MiB region's arrival to the CPU fault that brings it back (hmm_device_residency_seconds). A band"
        " below 10 s is thrashing.",
        "s",
        buckets("hmm_device_residency_seconds", NODE),
    ),
    time_series(
        "Thrash ratio by device",
        "Of the bytes copied to each device, how many CPU faults brought back within thrash_window. A job that reads"
        " much in hides one that thrashes a little: see the processes, too. nvidia-uvm-hmm-0 is a range of pages, not"
        " a GPU.",
        "percentunit",
        Query(thrash_ratio(OWNER, "device"), "{{device}}"),
    ),
    time_series(
        "Thrashed bytes by process",
        "Bytes that CPU faults brought back within thrash_window, by the process that owns the memory; the ten with"
        " most.",
        "binBps",
        Query(
            top(10, rates("hmm_process_returned_bytes_total", NODE, PER_PROCESS)),
            WHO,
        ),
        link=TO_PROCESS,
    ),
    time_series(
        "Threads waiting for memory, by process",
        "Seconds a second that the process's CPU faults spent in migrations; the ten with most.",
        "short",
        Query(
            top(10, rates("hmm_process_fault_stall_seconds_total", NODE, PER_PROCESS)),
            WHO,
        ),
        link=TO_PROCESS,
    ),
)

SPEED = (
    time_series(
        "Migration bandwidth by direction",
        "Bytes copied by migrate_vma_pages, by where the pages lay and went.",
        "binBps",
        Query(rates("hmm_migration_moved_bytes_total", OWNER, "direction"), "{{direction}}"),
    ),
    time_series(
        "Migrations by class and trigger",
        "Calls of migrate_vma_setup by what was asked for and by what the thread was doing: a CPU fault, inside another"
        " HMM call (nested), a kernel thread (a GPU fault or an eviction), a system call.",
        a_second("calls"),
        Query(rates("hmm_migrations_started_total", OWNER, "class, trigger"), "{{class}} by {{trigger}}"),
    ),
    time_series(
        "Migration latency, median and 99th percentile",
        "From migrate_vma_setup's entry to migrate_vma_finalize's return, by what was asked for. fault_back is what a"
        " CPU thread waits.",
        "s",
        Query(quantile(0.5, "hmm_migration_duration_seconds", OWNER, "class"), "{{class}} p50"),
        Query(quantile(0.99, "hmm_migration_duration_seconds", OWNER, "class"), "{{class}} p99"),
    ),
    heat(
        "Migration latency",
        "The same as a heatmap, all classes: two bands are two kinds of work, or two devices.",
        "s",
        buckets("hmm_migration_duration_seconds", OWNER),
    ),
    time_series(
        "Where a migration's time goes",
        "Share of each phase: setup (migrate_vma_setup: unmapping), driver_prepare (to migrate_vma_pages: xe and"
        " test_hmm copy here), commit (migrate_vma_pages), driver_complete (to migrate_vma_finalize: amdgpu, nouveau"
        " and nvidia-uvm wait for the copy here), finalize. Setup far above a tenth: unmapping is what costs, not the"
        " copy.",
        "percentunit",
        Query(
            share(
                rates("hmm_migration_phase_seconds_total", OWNER, "phase"),
                rates("hmm_migration_phase_seconds_total", OWNER),
                "phase",
            ),
            "{{phase}}",
        ),
        stacked=True,
        at_most=1,
    ),
    heat(
        "Size asked for",
        "Size of the ranges given to migrate_vma_setup. Many small ones cost more each byte than few large ones.",
        "bytes",
        buckets("hmm_migration_request_size_bytes", OWNER),
    ),
    time_series(
        "Huge share of what moved",
        "Bytes copied in huge folios over all bytes copied, by direction (6.19 and newer). Near 1 is good.",
        "percentunit",
        Query(
            ratio(
                rates("hmm_migration_moved_huge_bytes_total", OWNER, "direction"),
                rates("hmm_migration_moved_bytes_total", OWNER, "direction"),
            ),
            "{{direction}}",
        ),
        at_most=1,
    ),
    heat(
        "Size moved",
        "Bytes copied by one migration, of those that copied any. Far below the size asked for: see what does not"
        " move.",
        "bytes",
        buckets("hmm_migration_moved_size_bytes", OWNER),
    ),
)

UNMOVED = (
    time_series(
        "Unmoved share by reason",
        "Of the bytes that were there to move: busy (pinned or locked, refused by migrate_device_unmap),"
        " no_destination (the device is full, or the driver declined), commit_failed (migrate_vma_pages refused)."
        " Holes and what is there already (not_selected), and what lies behind the first 262,144 pages (not_read), are"
        " left out. Near 0 is good; commit_failed should be 0.",
        "percentunit",
        Query(unmoved_share(OWNER), "{{reason}}"),
        stacked=True,
    ),
    time_series(
        "How migrations end",
        "completed: migrate_vma_finalize returned; of these, partial left something behind, and aborted moved nothing."
        " empty: migrate_vma_setup collected nothing. failed: it returned an error. Mostly completed is good; empty"
        " ones are work for nothing.",
        a_second("calls"),
        Query(rates("hmm_migrations_completed_total", OWNER), "completed"),
        Query(rates("hmm_migrations_partial_total", OWNER), "partial"),
        Query(rates("hmm_migrations_aborted_total", OWNER), "aborted"),
        Query(rates("hmm_migrations_empty_total", OWNER), "empty"),
        Query(rates("hmm_migration_failures_total", OWNER), "failed"),
    ),
    time_series(
        "Failures by error",
        "Calls that returned an error: migrate_vma_setup (EINVAL: a bad range or mapping), hmm_range_fault (EBUSY"
        " apart: see below), make_device_exclusive, mmu_interval_notifier_insert. None is good; EFAULT and EPERM are a"
        " process's own mistakes, EINTR is a process that was killed.",
        a_second("calls"),
        Query(not_zero(rates("hmm_migration_failures_total", OWNER, "errno")), "migration {{errno}}"),
        Query(
            not_zero(rates("hmm_range_fault_failures_total", f'{NODE}, errno!="EBUSY"', "driver, errno")),
            "range fault {{driver}} {{errno}}",
        ),
        Query(not_zero(rates("hmm_device_exclusive_failures_total", NODE, "errno")), "exclusive {{errno}}"),
        Query(
            not_zero(rates("hmm_interval_notifier_insert_failures_total", NODE, "driver, errno")),
            "insert {{driver}} {{errno}}",
        ),
        nothing="none",
    ),
    time_series(
        "Zero-filled",
        "Bytes that had no page yet, or the zero page, and were made at the destination by migrate_vma_pages, by owner:"
        " memory that the device touched first. Costs no copy.",
        "binBps",
        Query(rates("hmm_migration_zero_filled_bytes_total", OWNER, "pgmap_owner"), "{{pgmap_owner}}"),
    ),
)

PRESSURE = (
    time_series(
        "Evicted by device",
        "Bytes that migrate_device_pages moved away from each device (eviction in xe and nvidia-uvm; nouveau and"
        " test_hmm do it when a device goes, which is left out), and that kernel threads' migrations did (eviction in"
        " amdgpu). Lasting eviction means that jobs want more than the device has.",
        "binBps",
        Query(evicted(NODE, "device"), "{{device}}"),
        width=8,
    ),
    time_series(
        "Oversubscription by device",
        "Evicted bytes over bytes copied to the device. Near 1: what comes in pushes as much out.",
        "percentunit",
        Query(oversubscription(NODE, "device"), "{{device}}"),
        width=8,
    ),
    time_series(
        "Device range calls",
        "Calls of migrate_device_range (nvidia-uvm calls it once a page) and migrate_device_pfns (xe, up to three for"
        " one eviction).",
        a_second("calls"),
        Query(rates("hmm_device_range_migrations_total", NODE, "function, device"), "{{function}} {{device}}"),
        width=8,
    ),
)
