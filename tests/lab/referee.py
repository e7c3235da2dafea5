# SPDX-License-Identifier: Apache-2.0
"""Which map of hmm-snoop.bt is which metric of ours, and why where they differ: docs/hmm-snoop.md's table, as data.

Belongs here: one row a map, those of migrations apart (referee_migrations.py). Does not belong here: what a row is
(referee_row.py), running the script (hmm_snoop.py), comparing (test_referee.py, from these rows).
`python3 -m tests.lab.referee` prints the table.
"""

from __future__ import annotations

from tests.lab.referee_migrations import MIGRATIONS
from tests.lab.referee_row import BY_OWNER, EVENTS, HEADING, Key, Row, Shows, Verdict, figure, same

_HRF = "hmm_range_fault"
_UNLOCKED = "The script does not see `hmm_range_fault_unlocked_timeout`, which most drivers call from 7.3 on."
_ANY_MIGRATION = (
    'The script counts compaction, NUMA balancing and the like as HMM (ours: `context="other"`), and misses huge'
    " pages, which from 6.19 on move whole."
)


def _errno(script: str, errno: str) -> Row:
    ours = (figure("hmm_range_fault_failures_total", errno=errno),)
    counts = (figure("hmm_range_fault_failures_total", function=_HRF, errno=errno),)
    return Row(script, Verdict.corrected, ours, _UNLOCKED, counts=counts, shows=Shows.nowhere)


def _range_fault(script: str, sample: str, shows: Shows, **labels: str) -> Row:
    counts = (figure(sample, function=_HRF, **labels),)
    return Row(script, Verdict.corrected, (figure(sample, **labels),), _UNLOCKED, counts=counts, shows=shows)


def _entries(script: str, sample: str, key: Key = Key.none) -> Row:
    return Row(script, Verdict.corrected, (figure(sample, context="hmm"),), _ANY_MIGRATION, key, (figure(sample),))


def _by_owner(script: str, sample: str) -> Row:
    return Row(script, Verdict.corrected, (figure(sample),), BY_OWNER, Key.process, limit=10)


_RANGE_FAULTS = (
    _range_fault("hrf_total", "hmm_range_faults_total", Shows.since_7),
    Row(
        "hrf_write",
        Verdict.corrected,
        (figure("hmm_range_faults_total", intent="write"), figure("hmm_range_faults_total", intent="per_page")),
        f"{_UNLOCKED} It misses writes asked for page by page, which are in ours with intent per_page.",
        counts=(figure("hmm_range_faults_total", function=_HRF, intent="write"),),
        shows=Shows.nowhere,
    ),
    Row(
        "hrf_ebusy",
        Verdict.corrected,
        (figure("hmm_range_fault_ebusy_total"),),
        "The script takes each EBUSY for a race with the CPU; ours tells raced from own_fault and lock_dropped, and"
        " counts those that hmm_range_fault_unlocked_timeout meets and retries.",
        counts=(figure("hmm_range_fault_failures_total", function=_HRF, errno="EBUSY"),),
        shows=Shows.since_7,
    ),
    _errno("hrf_efault", "EFAULT"),
    same(
        "hrf_eagain",
        "hmm_range_fault_failures_total",
        "No kernel from 6.1 to 7.3 returns EAGAIN here: 0, and of ours no series.",
        errno="EAGAIN",
    ),
    _errno("hrf_eperm", "EPERM"),
    Row(
        "hrf_ret",
        Verdict.corrected,
        (figure("hmm_range_fault_failures_total"),),
        f"{_UNLOCKED} 0 is the rest of hmm_range_faults_total.",
        Key.errno,
        own_test=True,
    ),
    _range_fault("hrf_npages_hist", "hmm_range_fault_size_bytes_count", Shows.since_7),
    _range_fault("hrf_latency_us", "hmm_range_fault_duration_seconds_count", Shows.since_7),
    Row(
        "hrf_by_proc",
        Verdict.corrected,
        (figure("hmm_process_range_faults_total"),),
        f"{_UNLOCKED} {BY_OWNER}",
        Key.process,
        limit=20,
    ),
    Row(
        "hrf_ebusy_by_proc",
        Verdict.corrected,
        (figure("hmm_process_range_fault_failures_total", errno="EBUSY"),),
        BY_OWNER,
        Key.process,
        limit=20,
    ),
    Row(
        "hrf_ebusy_stacks",
        Verdict.same,
        (figure("hmm_range_fault_ebusy_callers_total"),),
        "Frame by frame the same.",
        Key.stack,
        own_test=True,
    ),
)

_FAULTS_AND_PAGES = (
    Row(
        "cpu_fault_thp",
        Verdict.corrected,
        (figure("hmm_huge_faults_total"),),
        "The function runs twice for one fault: first it returns VM_FAULT_RETRY.",
        counts=(figure("hmm_huge_faults_total"), figure("hmm_huge_fault_retries_total")),
        shows=Shows.since_7,
    ),
    Row(
        "cpu_fault_thp_by_proc",
        Verdict.corrected,
        (figure("hmm_process_huge_faults_total"),),
        "As `@cpu_fault_thp`: twice ours.",
        Key.process,
        times=2,
        limit=10,
    ),
    same(
        "mmu_notify_migrate",
        "hmm_mmu_notifier_invalidations_total",
        "One or two for a migration; more than migrations does not mean that any fell back.",
        event="migrate",
    ),
    same(
        "mmu_notify_exclusive",
        "hmm_mmu_notifier_invalidations_total",
        "To 6.14 also when the CPU takes a page back.",
        event="exclusive",
    ),
    same("mmu_notify_migrate_pages", "hmm_mmu_notifier_invalidation_size_bytes_count", EVENTS, event="migrate"),
    same("mmu_notify_exclusive_pages", "hmm_mmu_notifier_invalidation_size_bytes_count", EVENTS, event="exclusive"),
    Row(
        "mmu_notify_migrate_by_proc",
        Verdict.corrected,
        (figure("hmm_process_invalidations_total"),),
        f"{BY_OWNER} Ours has both events.",
        Key.process,
        limit=10,
    ),
    _entries("pte_set_migration", "hmm_migration_ptes_set_total"),
    _entries("pte_remove_migration", "hmm_migration_ptes_removed_total"),
    _entries("pte_set_migration_order", "hmm_migration_ptes_set_total", Key.order),
    _entries("pte_remove_migration_order", "hmm_migration_ptes_removed_total", Key.order),
)

_REST = (
    same("dev_exclusive_total", "hmm_device_exclusive_total", "To 6.14 one call is for many pages, from 6.15 for one."),
    same(
        "dev_exclusive_restore",
        "hmm_device_exclusive_restores_total",
        "Not the CPU's access alone: a fork restores, too, and so does the driver's own next call.",
    ),
    _by_owner("dev_exclusive_by_proc", "hmm_process_device_exclusive_total"),
    _by_owner("dev_exclusive_restore_by_proc", "hmm_process_device_exclusive_restores_total"),
    Row(
        "mmu_interval_insert",
        Verdict.corrected,
        (figure("hmm_interval_notifier_inserts_total"),),
        "The script misses mmu_interval_notifier_insert_locked, which amdgpu's SVM and amdxdna call. It counts ranges"
        " that are mirrored, not processes that attach.",
        shows=Shows.nowhere,
    ),
    same("mmu_interval_remove", "hmm_interval_notifier_removes_total", "Of both ways to insert."),
    Row(
        "mmu_interval_insert_by_proc",
        Verdict.corrected,
        (figure("hmm_process_interval_notifier_inserts_total"),),
        "As `@mmu_interval_insert`.",
        Key.process,
        limit=10,
    ),
    _by_owner("mmu_interval_remove_by_proc", "hmm_process_interval_notifier_removes_total"),
    same("hmm_dma_map", "hmm_dma_maps_total", "Failures are hmm_dma_map_failures_total; the script ignores them."),
    same("hmm_dma_unmap", "hmm_dma_unmaps_total", "Of pages not mapped, too: hmm_dma_unmap_misses_total."),
    same(
        "bulk_teardown_range",
        "hmm_device_range_migrations_total",
        "Not teardown alone: nvidia-uvm evicts by it, a page a call.",
        function="migrate_device_range",
    ),
    same(
        "bulk_teardown_pfns",
        "hmm_device_range_migrations_total",
        "Not teardown: xe evicts by it, in up to three attempts.",
        function="migrate_device_pfns",
    ),
    same(
        "bulk_teardown_pages",
        "hmm_device_range_size_bytes_count",
        "The size of the array, resident or not; what moved is hmm_device_range_moved_bytes_total.",
    ),
    Row(
        "bulk_teardown_by_proc",
        Verdict.not_shown,
        (),
        "Nothing in these calls says whose memory it is, and who evicts is a kworker, or whoever closes the device.",
        Key.process,
        own_test=True,
    ),
)

ROWS = (*MIGRATIONS, *_RANGE_FAULTS, *_FAULTS_AND_PAGES, *_REST)


def table() -> list[str]:
    """The lines of the document's table."""
    return [*HEADING, *(str(row) for row in ROWS)]


if __name__ == "__main__":
    print("\n".join(table()))
