# SPDX-License-Identifier: Apache-2.0
"""A node's rows of panels about device mirrors, and about what is neither migration nor mirror."""

from __future__ import annotations

from dashboards.grafana.generate.panels import Query, a_second, bars, heat, rows_of, time_series
from dashboards.grafana.generate.promql import (
    NODE,
    OWNER,
    SHOWN,
    buckets,
    ebusy_ratio,
    increase,
    not_zero,
    quantile,
    rates,
    top,
    total,
)

MIRROR = (
    time_series(
        "Range faults by driver and intent",
        "Calls of hmm_range_fault and (7.3) hmm_range_fault_unlocked_timeout, by whose mirror it is and what was asked"
        " for: snapshot, read, write, or by page.",
        a_second("calls"),
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
        a_second("walks"),
        Query(rates("hmm_range_fault_ebusy_total", NODE, "reason"), "{{reason}}"),
    ),
    bars(
        "Functions that met EBUSY",
        "Who called hmm_range_fault when it returned EBUSY, from the kernel stack: calls over the time that is shown.",
        "short",
        Query(
            top(10, not_zero(total(increase("hmm_range_fault_ebusy_callers_total", NODE, SHOWN), "driver, caller"))),
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

REST = (
    time_series(
        "Pages exclusive to a device",
        "make_device_exclusive (to 6.14 calls for a range) takes pages from the CPU for a device's atomics;"
        " restore_exclusive_pte gives them back. As many restores as grabs: CPU and device work on the same words.",
        a_second("calls"),
        Query(rates("hmm_device_exclusive_total", NODE), "made exclusive"),
        Query(rates("hmm_device_exclusive_restores_total", NODE), "restored"),
        width=8,
    ),
    time_series(
        "Faults on huge pages of a device",
        "Calls of do_huge_pmd_device_private (6.19 and newer). A retry is the first half of nearly every such fault."
        " Failures are out of memory, or a page that is gone.",
        a_second("faults"),
        Query(rates("hmm_huge_faults_total", NODE), "faults"),
        Query(rates("hmm_huge_fault_retries_total", NODE), "retries"),
        Query(rates("hmm_huge_fault_failures_total", NODE), "failures"),
        width=8,
    ),
    time_series(
        "Mirrored ranges",
        "mmu_interval_notifier_insert and _remove, by driver: RDMA and userptr buffers included. Much of both is a"
        " registration for each transfer, where one for all would do.",
        a_second("ranges"),
        Query(rates("hmm_interval_notifier_inserts_total", NODE, "driver"), "{{driver}} insert"),
        Query(rates("hmm_interval_notifier_removes_total", NODE, "driver"), "{{driver}} remove"),
        width=8,
    ),
    time_series(
        "Invalidations",
        "Calls of __mmu_notifier_invalidate_range_start because of a migration, or because pages were made exclusive."
        " Each makes drivers tear mappings down. Needs the group per_page.",
        a_second("calls"),
        Query(rates("hmm_mmu_notifier_invalidations_total", NODE, "event"), "{{event}}"),
        width=8,
    ),
    time_series(
        "Migration entries",
        "Page table entries that became migration entries (tracepoint migrate:set_migration_pte), and those of huge"
        " pages (thp:set_migration_pmd); hmm is inside an HMM call, other is compaction, NUMA balancing, splitting."
        " Needs the group per_page.",
        a_second("entries"),
        Query(rates("hmm_migration_ptes_set_total", NODE, "context"), "{{context}}"),
        Query(rates("hmm_migration_pmds_set_total", NODE, "context"), "{{context}} huge"),
        width=8,
    ),
    time_series(
        "DMA maps",
        "Pages that hmm_dma_map_pfn mapped for a device, hmm_dma_unmap_pfn gave back, and failures of the first. Needs"
        " the group per_page.",
        a_second("pages"),
        Query(rates("hmm_dma_maps_total", NODE), "maps"),
        Query(rates("hmm_dma_unmaps_total", NODE), "unmaps"),
        Query(rates("hmm_dma_map_failures_total", NODE), "failures"),
        width=8,
    ),
)

THERE = (
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
