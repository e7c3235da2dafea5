# SPDX-License-Identifier: Apache-2.0
"""The referee's rows of migrations. The rest of the table is referee.py's."""

from __future__ import annotations

from tests.lab.referee_row import BY_OWNER, EVENTS, Figure, Key, Row, Shows, Verdict, figure, same

_FINALIZED = (figure("hmm_migrations_completed_total"), figure("hmm_migrations_empty_total"))
_EMPTY = "The script has migrations that collected nothing in it, where the driver finalizes them."
_ENTRIES = (
    "The script's is `cpages` of setup: from 6.19 on a huge page is 1 in it, holes to be filled with zeros are in it,"
    " and what then found no destination."
)
_PHASE = " Its first phase contains migrate_vma_setup, its last ends where migrate_vma_finalize begins."
_POINTER = "The same counts, but the script says whose by a kernel address, ours by a name."


def _phases(*phases: str) -> tuple[Figure, ...]:
    return tuple(figure("hmm_migration_phase_seconds_total", phase=phase) for phase in phases)


def _by_process(script: str, its_class: str) -> Row:
    ours = (figure("hmm_process_migrations_total", class_=its_class),)
    return Row(script, Verdict.corrected, ours, BY_OWNER, Key.process, limit=40)


def _pages_by_process(script: str, direction: str) -> Row:
    ours = (figure("hmm_process_moved_bytes_total", direction=direction),)
    why = f"As `@mig_finalize_cpages`, fault-back and evict together. {BY_OWNER}"
    return Row(script, Verdict.corrected, ours, why, Key.process, own_test=True)


def _by_owner(script: str, its_class: str) -> Row:
    ours = (figure("hmm_migrations_started_total", class_=its_class),)
    return Row(script, Verdict.corrected, ours, _POINTER, Key.owner, shows=Shows.nowhere)


MIGRATIONS = (
    same("mig_setup_total", "hmm_migrations_started_total", "Calls of migrate_vma_setup."),
    same("mig_setup_by_class", "hmm_migrations_started_total", "The class is what was asked for.", Key.class_),
    Row(
        "mig_setup_pages_collected",
        Verdict.corrected,
        (figure("hmm_migration_moved_size_bytes_count"),),
        f"{_ENTRIES} Empty migrations are events of it, too.",
        Key.class_,
        _FINALIZED,
    ),
    Row(
        "mig_setup_pages_collected_total",
        Verdict.corrected,
        (figure("hmm_migration_collected_bytes_total"), figure("hmm_migration_zero_filled_bytes_total")),
        "From 6.19 on a huge page is 1 in `cpages`. Holes are in it; of ours they are apart.",
        Key.class_,
        own_test=True,
    ),
    Row(
        "mig_setup_pages_requested",
        Verdict.corrected,
        (figure("hmm_migration_request_size_bytes_count"),),
        f"The script counts what migrate_vma_setup then refuses, too: such a range may end before it begins. {EVENTS}",
        Key.class_,
        (figure("hmm_migration_request_size_bytes_count"), figure("hmm_migration_failures_total")),
    ),
    Row(
        "mig_e2e_us",
        Verdict.corrected,
        (figure("hmm_migration_duration_seconds_count"),),
        f"{_EMPTY} Its time ends where migrate_vma_finalize begins, ours where that returns.",
        Key.class_,
        _FINALIZED,
    ),
    Row(
        "mig_pages_phase_us",
        Verdict.corrected,
        _phases("setup", "driver_prepare"),
        f"{_EMPTY}{_PHASE}",
        Key.class_,
        own_test=True,
    ),
    Row(
        "mig_finalize_phase_us",
        Verdict.corrected,
        _phases("commit", "driver_complete"),
        f"{_EMPTY}{_PHASE}",
        Key.class_,
        own_test=True,
    ),
    Row(
        "mig_finalize_total",
        Verdict.corrected,
        (figure("hmm_migrations_completed_total"),),
        f"{_EMPTY} Ours has them apart, in hmm_migrations_empty_total.",
        counts=_FINALIZED,
    ),
    Row(
        "mig_finalize_cpages",
        Verdict.corrected,
        (figure("hmm_migration_moved_bytes_total"),),
        f"{_ENTRIES} Ours is what was copied, by direction; by class it is the sum of hmm_migration_moved_size_bytes.",
        own_test=True,
    ),
    Row(
        "mig_compound",
        Verdict.corrected,
        (figure("hmm_migrations_huge_total"),),
        "The script counts callers that allow huge pages, which nouveau, xe and test_hmm always do; ours, that one"
        " moved whole.",
        Key.class_,
        own_test=True,
    ),
    Row(
        "mig_partial",
        Verdict.corrected,
        (figure("hmm_migrations_partial_total"),),
        "The script takes each migration of a huge page for a partial one, and each empty one; it misses what found no"
        " destination, or was refused, after setup.",
        Key.class_,
        own_test=True,
    ),
    Row(
        "mig_unmigratable_pages",
        Verdict.corrected,
        (figure("hmm_migration_unmoved_bytes_total"),),
        "From 6.19 on each huge page that moves is 511 unmigratable pages to the script. What it says is pinned, ours"
        " tells by reason: not_selected, busy, no_destination, commit_failed; the last two it misses.",
        Key.class_,
        own_test=True,
    ),
    Row(
        "mig_setup_ret",
        Verdict.same,
        (figure("hmm_migration_failures_total"),),
        "0 is the rest of hmm_migrations_started_total.",
        Key.errno,
        own_test=True,
    ),
    same("mig_setup_failed", "hmm_migration_failures_total", "Refused by migrate_vma_setup.", Key.class_),
    _by_process("mig_cpu2dev_by_proc", "prefetch"),
    _by_process("mig_dev2cpu_flt_by_proc", "fault_back"),
    _by_process("mig_dev2cpu_drv_by_proc", "evict"),
    _pages_by_process("mig_cpu2dev_cpages_by_proc", "host_to_device"),
    _pages_by_process("mig_dev2cpu_flt_cpages_by_proc", "device_to_host"),
    _pages_by_process("mig_dev2cpu_drv_cpages_by_proc", "device_to_host"),
    _by_owner("mig_cpu2dev_by_device", "prefetch"),
    _by_owner("mig_dev2cpu_flt_by_device", "fault_back"),
    _by_owner("mig_dev2cpu_drv_by_device", "evict"),
)
