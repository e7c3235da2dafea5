# SPDX-License-Identifier: Apache-2.0
"""Fields and enumerators that are no single probe's: who acts, subjects of several, the kernel's tree of ranges.

Paths are ``struct.field``, to be found in BTF. What a probe needs for itself stands beside it, in ``catalog.probes``.
"""

from __future__ import annotations

# What it takes to say who acts, for every probe (program/process.c).
PROCESS_FIELDS = ("task_struct.flags", "task_struct.mm", "task_struct.tgid", "task_struct.comm")
# It exists with CONFIG_MEMCG only; without it the process is `current`, not the memory's owner.
OPTIONAL_FIELDS = ("mm_struct.owner",)
# From a task to the id of its cgroup in the one hierarchy of version 2 (program/process.c); CONFIG_CGROUPS.
CGROUP_FIELDS = ("task_struct.cgroups", "css_set.dfl_cgrp", "cgroup.kn", "kernfs_node.id")
# 0 where the kernel has none: huge folios migrate to devices since 6.19.
OPTIONAL_ENUMERATORS = ("MIGRATE_VMA_SELECT_COMPOUND",)

# What it takes to read the kernel's tree of physical ranges (program/iomem.c), which is no probe.
RESOURCE_FIELDS = (
    "resource.start",
    "resource.end",
    "resource.name",
    "resource.desc",
    "resource.parent",
    "resource.sibling",
    "resource.child",
)
RESOURCE_ENUMERATORS = ("IORES_DESC_DEVICE_PRIVATE_MEMORY",)

# Of several probes of one subject.
MIGRATION_FIELDS = (
    "migrate_vma.vma",
    "migrate_vma.dst",
    "migrate_vma.src",
    "migrate_vma.cpages",
    "migrate_vma.npages",
    "migrate_vma.start",
    "migrate_vma.end",
    "migrate_vma.pgmap_owner",
    "migrate_vma.flags",
    # Since 6.1; before, a fault could not be told from an eviction, so the probe is off there.
    "migrate_vma.fault_page",
    "vm_area_struct.vm_mm",
)
SELECT_ENUMERATORS = (
    "MIGRATE_VMA_SELECT_SYSTEM",
    "MIGRATE_VMA_SELECT_DEVICE_PRIVATE",
    "MIGRATE_VMA_SELECT_DEVICE_COHERENT",
)
RANGE_FIELDS = (
    "task_struct.min_flt",
    "task_struct.maj_flt",
    "hmm_range.notifier",
    "hmm_range.start",
    "hmm_range.end",
    "hmm_range.default_flags",
    "hmm_range.pfn_flags_mask",
    "mmu_interval_notifier.ops",
    "mmu_interval_notifier.mm",
)
REQUEST_ENUMERATORS = ("HMM_PFN_REQ_FAULT", "HMM_PFN_REQ_WRITE")
