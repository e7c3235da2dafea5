# SPDX-License-Identifier: Apache-2.0
"""The probes: which kernel function is watched, from which release on, and what reading it needs.

Data only. How a probe is compiled, loaded and attached is ``hmm_exporter.bpf``'s work; what its
figures are called is ``catalog.metrics``'. Line numbers are those of Linux 7.3.4 unless said.
"""

from __future__ import annotations

from hmm_exporter.catalog.fields import MIGRATION_FIELDS, RANGE_FIELDS, REQUEST_ENUMERATORS, SELECT_ENUMERATORS
from hmm_exporter.catalog.probe import Group, Probe

_NOT_NESTED = (
    "migrations inside of its calls are not nested, but have the trigger that they would have outside, and with"
    " cpu_fault are stalls"
)

# Shed first is what is dear and says the least of HMM, last what the other figures are measured against.
GROUPS = (
    Group(
        "migration",
        True,
        "migrate_vma_setup, _pages and _finalize",
        shed=7,
        meanwhile="migration entries that belong to it have the context other; what arrived on a device before has no"
        " residency",
    ),
    Group(
        "device_range",
        True,
        "migrate_device_range and migrate_device_pfns",
        shed=5,
        meanwhile="migration entries of evictions have the context other",
    ),
    Group("range_fault", True, "hmm_range_fault and hmm_range_fault_unlocked_timeout", shed=6, meanwhile=_NOT_NESTED),
    Group("device_exclusive", True, "make_device_exclusive and restore_exclusive_pte", shed=3, meanwhile=_NOT_NESTED),
    Group("interval_notifier", True, "mmu_interval_notifier_insert, _insert_locked and _remove", shed=2),
    Group("huge_fault", True, "do_huge_pmd_device_private", shed=4),
    Group(
        "per_page",
        False,
        "notifier invalidations, migration entries, DMA maps: once a page, or for memory that has nothing to do"
        " with HMM",
        shed=1,
    ),
)

_MIGRATION_SOURCES = ("migration_book.c", "migration.c")
_RANGE_SOURCES = ("range_attempt.c", "range_fault.c")

PROBES = (
    Probe(
        "migrate_vma_setup",
        "migration",
        _MIGRATION_SOURCES,
        ("migrate_vma_setup",),  # mm/migrate_device.c:740
        "6.1 and newer (fault_page)",
        entry=True,
        exit=True,
        requires="migrate_vma_finalize",  # or all that begins would end as abandoned
        fields=MIGRATION_FIELDS,
        enumerators=SELECT_ENUMERATORS,
    ),
    Probe(
        "migrate_vma_pages",
        "migration",
        _MIGRATION_SOURCES,
        ("migrate_vma_pages",),  # mm/migrate_device.c:1286
        "6.1 and newer",
        entry=True,
        exit=True,
        requires="migrate_vma_setup",
    ),
    Probe(
        "migrate_vma_finalize",
        "migration",
        _MIGRATION_SOURCES,
        ("migrate_vma_finalize",),  # mm/migrate_device.c:1372
        "6.1 and newer",
        entry=True,
        exit=True,
        requires="migrate_vma_setup",
    ),
    Probe(
        "migrate_device_unmap",
        "migration",
        _MIGRATION_SOURCES,
        ("migrate_device_unmap",),  # mm/migrate_device.c:571, static: may be inlined in other builds
        "6.1 and newer",
        entry=True,
        requires="migrate_vma_setup",
        reads_pages=True,
    ),
    Probe(
        "migrate_device_range",
        "device_range",
        ("device_range.c",),
        ("migrate_device_range",),  # mm/migrate_device.c:1414
        "6.1 and newer",
        entry=True,
        exit=True,
        exit_only_with="per_page",
    ),
    Probe(
        "migrate_device_pfns",
        "device_range",
        ("device_range.c",),
        ("migrate_device_pfns",),  # mm/migrate_device.c:1458
        "6.15 and newer",
        entry=True,
        exit=True,
        exit_only_with="per_page",
    ),
    Probe(
        "migrate_device_pages",
        "device_range",
        ("device_range.c",),
        ("migrate_device_pages",),  # mm/migrate_device.c:1271
        "6.1 and newer",
        entry=True,
        exit=True,
        reads_pages=True,
    ),
    Probe(
        "hmm_range_fault",
        "range_fault",
        _RANGE_SOURCES,
        ("hmm_range_fault",),  # mm/hmm.c:762
        "all",
        entry=True,
        exit=True,
        needs="CONFIG_HMM_MIRROR",
        fields=RANGE_FIELDS,
        enumerators=REQUEST_ENUMERATORS,
    ),
    Probe(
        "hmm_range_fault_unlocked_timeout",
        "range_fault",
        _RANGE_SOURCES,
        ("hmm_range_fault_unlocked_timeout",),  # mm/hmm.c:788
        "7.3 and newer",
        entry=True,
        exit=True,
        needs="CONFIG_HMM_MIRROR",
        fields=RANGE_FIELDS,
        enumerators=REQUEST_ENUMERATORS,
    ),
    Probe(
        "hmm_range_fault_locked",
        "range_fault",
        _RANGE_SOURCES,
        ("hmm_range_fault_locked",),  # mm/hmm.c:693, static: may be inlined in other builds
        "7.3 and newer",
        entry=True,
        exit=True,
        needs="CONFIG_HMM_MIRROR",
        requires="hmm_range_fault",
    ),
    Probe(
        "make_device_exclusive",
        "device_exclusive",
        ("device_exclusive.c",),
        # mm/rmap.c:2862; one page a call from 6.15 on. Before, make_device_exclusive_range took
        # a range (6.12 mm/rmap.c:2517). Both have the mm first.
        ("make_device_exclusive", "make_device_exclusive_range"),
        "all (make_device_exclusive_range before 6.15)",
        entry=True,
        exit=True,
        needs="CONFIG_DEVICE_PRIVATE",
    ),
    Probe(
        "restore_exclusive_pte",
        "device_exclusive",
        ("device_exclusive.c",),
        ("restore_exclusive_pte",),  # mm/memory.c:947, static: may be inlined in other builds
        "all",
        entry=True,
        needs="CONFIG_DEVICE_PRIVATE",
        fields=("vm_area_struct.vm_mm",),
    ),
    Probe(
        "mmu_interval_notifier_insert",
        "interval_notifier",
        ("interval_notifier.c",),
        ("mmu_interval_notifier_insert",),  # mm/mmu_notifier.c:1018
        "all",
        entry=True,
        exit=True,
        needs="CONFIG_MMU_NOTIFIER",
    ),
    Probe(
        "mmu_interval_notifier_insert_locked",
        "interval_notifier",
        ("interval_notifier.c",),
        ("mmu_interval_notifier_insert_locked",),  # mm/mmu_notifier.c:1041; amdkfd, amdxdna
        "all",
        entry=True,
        exit=True,
        needs="CONFIG_MMU_NOTIFIER",
    ),
    Probe(
        "mmu_interval_notifier_remove",
        "interval_notifier",
        ("interval_notifier.c",),
        ("mmu_interval_notifier_remove",),  # mm/mmu_notifier.c:1085
        "all",
        entry=True,
        needs="CONFIG_MMU_NOTIFIER",
        fields=("mmu_interval_notifier.ops", "mmu_interval_notifier.mm"),
    ),
    Probe(
        "do_huge_pmd_device_private",
        "huge_fault",
        ("huge_fault.c",),
        ("do_huge_pmd_device_private",),  # mm/huge_memory.c:1476
        "6.19 and newer",
        entry=True,
        exit=True,
        needs="CONFIG_TRANSPARENT_HUGEPAGE",
        fields=("vm_fault.vma", "vm_area_struct.vm_mm"),
    ),
    Probe(
        "hmm_dma_map_pfn",
        "per_page",
        ("dma.c",),
        ("hmm_dma_map_pfn",),  # mm/hmm.c:916
        "6.16 and newer",
        exit=True,
        needs="CONFIG_HMM_MIRROR",
    ),
    Probe(
        "hmm_dma_unmap_pfn",
        "per_page",
        ("dma.c",),
        ("hmm_dma_unmap_pfn",),  # mm/hmm.c:1013
        "6.16 and newer",
        exit=True,
        needs="CONFIG_HMM_MIRROR",
    ),
    Probe(
        "__mmu_notifier_invalidate_range_start",
        "per_page",
        ("invalidation.c",),
        # mm/mmu_notifier.c:568; mmu_notifier_invalidate_range_start is an inline around it.
        ("__mmu_notifier_invalidate_range_start",),
        "all",
        entry=True,
        needs="CONFIG_MMU_NOTIFIER",
        fields=(
            "mmu_notifier_range.mm",
            "mmu_notifier_range.start",
            "mmu_notifier_range.end",
            "mmu_notifier_range.event",
        ),
        enumerators=("MMU_NOTIFY_MIGRATE", "MMU_NOTIFY_EXCLUSIVE"),
    ),
    Probe(
        "migrate_device_finalize",
        "per_page",
        ("device_range.c",),
        # mm/migrate_device.c:1354. Counted nowhere: it says that the migration entries removed
        # meanwhile are an eviction's. To 6.12 migrate_vma_finalize ends in it, which is no harm.
        ("migrate_device_finalize",),
        "6.1 and newer",
        entry=True,
        exit=True,
    ),
    Probe(
        "set_migration_pte",
        "per_page",
        ("migration_pte.c",),
        ("set_migration_pte",),  # include/trace/events/migrate.h
        "all",
        entry=True,
        tracepoint=True,
    ),
    Probe(
        "remove_migration_pte",
        "per_page",
        ("migration_pte.c",),
        ("remove_migration_pte",),
        "all",
        entry=True,
        tracepoint=True,
    ),
    Probe(
        "set_migration_pmd",
        "per_page",
        ("migration_pte.c",),
        ("set_migration_pmd",),  # include/trace/events/thp.h
        "all",
        entry=True,
        tracepoint=True,
    ),
    Probe(
        "remove_migration_pmd",
        "per_page",
        ("migration_pte.c",),
        ("remove_migration_pmd",),
        "all",
        entry=True,
        tracepoint=True,
    ),
)
