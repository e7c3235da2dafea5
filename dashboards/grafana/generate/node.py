# SPDX-License-Identifier: Apache-2.0
"""A node: what its devices and drivers do, where the time goes, what fails. Many nodes chosen are summed up."""

from __future__ import annotations

from dashboards.grafana.generate.board import Board, Row
from dashboards.grafana.generate.panels import Link, Query, bars, heat, rows_of, single, time_series
from dashboards.grafana.generate.promql import (
    NODE,
    OWNER,
    PER_PROCESS,
    SHOWN,
    TO_DEVICE,
    TO_HOST,
    buckets,
    ebusy_ratio,
    evicted,
    increase,
    oversubscription,
    process_thrash_ratio,
    quantile,
    rates,
    ratio,
    share,
    thrash_ratio,
    top,
    total,
    unmoved_share,
    worst,
)

TO_PROCESS = Link(
    "process detail", "hmm-process", {"comm": "${__field.labels.comm}"}, ("cluster", "node", "pgmap_owner")
)

_TO_DEVICE = f"{OWNER}, {TO_DEVICE}"
_TO_HOST = f"{OWNER}, {TO_HOST}"

_SUMMARY = (
    single(
        "Thrash ratio of the worst process",
        "Bytes that CPU faults brought back within thrash_window (10 s) of their arrival on a device, over bytes that"
        " migrations copied to devices, of the process where that is most. Near 0 is good.",
        "percentunit",
        Query(worst(process_thrash_ratio(NODE, PER_PROCESS))),
        bad=0.5,
    ),
    single(
        "Threads waiting for memory",
        "Seconds a second that CPU faults spent from migrate_vma_setup to migrate_vma_finalize: threads stalled on"
        " average, at least. Near 0 is good.",
        "short",
        Query(rates("hmm_process_fault_stall_seconds_total", NODE)),
        bad=1,
    ),
    single(
        "99th percentile of a fault back",
        "From migrate_vma_setup's entry to migrate_vma_finalize's return of migrations that a CPU fault asked for"
        " (class fault_back): what the slowest in a hundred waits.",
        "s",
        Query(quantile(0.99, "hmm_migration_duration_seconds", f'{OWNER}, class="fault_back"')),
        bad=0.0625,
    ),
    single(
        "EBUSY ratio",
        "Walks that ended in EBUSY because the range was invalidated meanwhile, over all walks. A few percent are"
        " usual.",
        "percentunit",
        Query(ebusy_ratio(NODE)),
        bad=0.5,
    ),
    single(
        "Migration bandwidth",
        "Bytes copied by migrate_vma_pages, by direction.",
        "binBps",
        Query(rates("hmm_migration_moved_bytes_total", _TO_DEVICE), "to device"),
        Query(rates("hmm_migration_moved_bytes_total", _TO_HOST), "to host"),
    ),
    single(
        "Migrations in flight",
        "Threads between migrate_vma_setup's entry and migrate_vma_finalize's return at the moment of the scrape. As"
        " many for minutes, without migrations completing: a driver is stuck.",
        "short",
        Query(total(f"hmm_exporter_migrations_in_flight{{{NODE}}}")),
    ),
)

_THRASH = (
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
            "{{comm}} {{namespace}} {{pod}} {{slurm_job}}",
        ),
        link=TO_PROCESS,
    ),
    time_series(
        "Threads waiting for memory, by process",
        "Seconds a second that the process's CPU faults spent in migrations; the ten with most.",
        "short",
        Query(
            top(10, rates("hmm_process_fault_stall_seconds_total", NODE, PER_PROCESS)),
            "{{comm}} {{namespace}} {{pod}} {{slurm_job}}",
        ),
        link=TO_PROCESS,
    ),
)

_SPEED = (
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
        "cps",
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

_UNMOVED = (
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
        "cps",
        Query(rates("hmm_migrations_completed_total", OWNER), "completed"),
        Query(rates("hmm_migrations_partial_total", OWNER), "partial"),
        Query(rates("hmm_migrations_aborted_total", OWNER), "aborted"),
        Query(rates("hmm_migrations_empty_total", OWNER), "empty"),
        Query(rates("hmm_migration_failures_total", OWNER), "failed"),
    ),
    time_series(
        "Failures by error",
        "Calls that returned an error: migrate_vma_setup (EINVAL: a bad range or mapping), hmm_range_fault (EBUSY"
        " apart: see below), make_device_exclusive, mmu_interval_notifier_insert. 0 is good; EFAULT and EPERM are a"
        " process's own mistakes, EINTR is a process that was killed.",
        "cps",
        Query(rates("hmm_migration_failures_total", OWNER, "errno"), "migration {{errno}}"),
        Query(
            rates("hmm_range_fault_failures_total", f'{NODE}, errno!="EBUSY"', "driver, errno"),
            "range fault {{driver}} {{errno}}",
        ),
        Query(rates("hmm_device_exclusive_failures_total", NODE, "errno"), "exclusive {{errno}}"),
        Query(
            rates("hmm_interval_notifier_insert_failures_total", NODE, "driver, errno"), "insert {{driver}} {{errno}}"
        ),
    ),
    time_series(
        "Zero-filled",
        "Bytes that had no page yet, or the zero page, and were made at the destination by migrate_vma_pages, by owner:"
        " memory that the device touched first. Costs no copy.",
        "binBps",
        Query(rates("hmm_migration_zero_filled_bytes_total", OWNER, "pgmap_owner"), "{{pgmap_owner}}"),
    ),
)

_PRESSURE = (
    time_series(
        "Evicted by device",
        "Bytes that migrate_device_pages moved away from each device (eviction in xe and nvidia-uvm, teardown"
        " elsewhere), and that kernel threads' migrations did (eviction in amdgpu). Lasting eviction means that jobs"
        " want more than the device has.",
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
        "cps",
        Query(rates("hmm_device_range_migrations_total", NODE, "function, device"), "{{function}} {{device}}"),
        width=8,
    ),
)

_MIRROR = (
    time_series(
        "Range faults by driver and intent",
        "Calls of hmm_range_fault and (7.3) hmm_range_fault_unlocked_timeout, by whose mirror it is and what was asked"
        " for: snapshot, read, write, or by page.",
        "cps",
        Query(rates("hmm_range_faults_total", NODE, "driver, intent"), "{{driver}} {{intent}}"),
    ),
    time_series(
        "EBUSY ratio by driver",
        "Walks that lost against an invalidation, over all walks. Lasting values above one half mean that the CPU"
        " changes mappings as fast as the driver reads them.",
        "percentunit",
        Query(ebusy_ratio(NODE, "driver"), "{{driver}}"),
        at_most=1,
    ),
    time_series(
        "Why EBUSY",
        "raced: somebody else invalidated the range. own_fault: the walk's own fault did, copy on write for one."
        " lock_dropped (7.3 and newer): a fault gave mmap_lock away, which is progress. Only raced is worth a search.",
        "cps",
        Query(rates("hmm_range_fault_ebusy_total", NODE, "reason"), "{{reason}}"),
    ),
    bars(
        "Functions that met EBUSY",
        "Who called hmm_range_fault when it returned EBUSY, from the kernel stack: calls over the time that is shown.",
        "short",
        Query(
            top(10, total(increase("hmm_range_fault_ebusy_callers_total", NODE, SHOWN), "driver, caller") + " > 0"),
            "{{caller}} [{{driver}}]",
        ),
    ),
    time_series(
        "Range fault latency, median and 99th percentile",
        "From entry to return, faults and whole migrations inside included, by driver.",
        "s",
        Query(quantile(0.5, "hmm_range_fault_duration_seconds", NODE, "driver"), "{{driver}} p50"),
        Query(quantile(0.99, "hmm_range_fault_duration_seconds", NODE, "driver"), "{{driver}} p99"),
    ),
    heat(
        "Range fault latency",
        "The same as a heatmap, all drivers: a band far above the rest are calls that took faults or migrations along.",
        "s",
        buckets("hmm_range_fault_duration_seconds", NODE),
    ),
)

_REST = (
    time_series(
        "Pages exclusive to a device",
        "make_device_exclusive (to 6.14 calls for a range) takes pages from the CPU for a device's atomics;"
        " restore_exclusive_pte gives them back. As many restores as grabs: CPU and device work on the same words.",
        "cps",
        Query(rates("hmm_device_exclusive_total", NODE), "made exclusive"),
        Query(rates("hmm_device_exclusive_restores_total", NODE), "restored"),
        width=8,
    ),
    time_series(
        "Faults on huge pages of a device",
        "Calls of do_huge_pmd_device_private (6.19 and newer). A retry is the first half of nearly every such fault."
        " Failures are out of memory, or a page that is gone.",
        "cps",
        Query(rates("hmm_huge_faults_total", NODE), "faults"),
        Query(rates("hmm_huge_fault_retries_total", NODE), "retries"),
        Query(rates("hmm_huge_fault_failures_total", NODE), "failures"),
        width=8,
    ),
    time_series(
        "Mirrored ranges",
        "mmu_interval_notifier_insert and _remove, by driver: RDMA and userptr buffers included. Much of both is a"
        " registration for each transfer, where one for all would do.",
        "cps",
        Query(rates("hmm_interval_notifier_inserts_total", NODE, "driver"), "{{driver}} insert"),
        Query(rates("hmm_interval_notifier_removes_total", NODE, "driver"), "{{driver}} remove"),
        width=8,
    ),
    time_series(
        "Invalidations",
        "Calls of __mmu_notifier_invalidate_range_start because of a migration, or because pages were made exclusive."
        " Each makes drivers tear mappings down. Needs the group per_page.",
        "cps",
        Query(rates("hmm_mmu_notifier_invalidations_total", NODE, "event"), "{{event}}"),
        width=8,
    ),
    time_series(
        "Migration entries",
        "Page table entries that became migration entries (tracepoint migrate:set_migration_pte), and those of huge"
        " pages (thp:set_migration_pmd); hmm is inside an HMM call, other is compaction, NUMA balancing, splitting."
        " Needs the group per_page.",
        "cps",
        Query(rates("hmm_migration_ptes_set_total", NODE, "context"), "{{context}}"),
        Query(rates("hmm_migration_pmds_set_total", NODE, "context"), "{{context}} huge"),
        width=8,
    ),
    time_series(
        "DMA maps",
        "Pages that hmm_dma_map_pfn mapped for a device, hmm_dma_unmap_pfn gave back, and failures of the first. Needs"
        " the group per_page.",
        "cps",
        Query(rates("hmm_dma_maps_total", NODE), "maps"),
        Query(rates("hmm_dma_unmaps_total", NODE), "unmaps"),
        Query(rates("hmm_dma_map_failures_total", NODE), "failures"),
        width=8,
    ),
)

_THERE = (
    rows_of(
        "Devices",
        "Ranges of device pages that the exporter found (hmm_device_info): whose, and at which PCI address, spelt as"
        " NVML and dcgm-exporter do.",
        ("node", "device", "driver", "pci_bus_id"),
        Query(f"max by (node, device, driver, pci_bus_id) (hmm_device_info{{{NODE}}})"),
        width=12,
    ),
    rows_of(
        "Owners of device memory",
        "The names that pgmap_owner has, and their drivers. Numbers are in order of appearance: amdgpu-1 is not GPU 1.",
        ("node", "pgmap_owner", "driver"),
        Query(f"max by (node, pgmap_owner, driver) (hmm_pgmap_owner_info{{{OWNER}}})"),
        width=12,
    ),
)

BOARD = Board(
    uid="hmm-node",
    title="HMM / Node detail",
    description="What Linux HMM does on a node: devices, drivers, time, failures.",
    variables=("cluster", "node", "pgmap_owner"),
    summary=_SUMMARY,
    rows=(
        Row("Does memory come back?", _THRASH),
        Row("How fast, and where is the time?", _SPEED),
        Row("What does not move, and why?", _UNMOVED),
        Row("Is device memory under pressure?", _PRESSURE),
        Row("Does the device lose races against the CPU?", _MIRROR),
        Row("Atomics, huge pages, mirrored ranges, and what is counted per page", _REST),
        Row("What is there", _THERE),
    ),
)
