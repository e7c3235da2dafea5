# SPDX-License-Identifier: Apache-2.0
"""A process, pod or job: what HMM does with its memory, and what that costs it."""

from __future__ import annotations

from dashboards.grafana.generate import summary
from dashboards.grafana.generate.board import Board, Row
from dashboards.grafana.generate.panels import Link, Panel, Query, a_second, of_row, rows_of, single, time_series
from dashboards.grafana.generate.promql import (
    PER_PROCESS,
    PROCESS,
    SHOWN,
    TO_DEVICE,
    TO_HOST,
    WHO_AND_WHERE,
    or_zero,
    process_thrash_ratio,
    rates,
    ratio,
    thrashing,
    top,
)

#: Where a metric of the process tier has the label pgmap_owner.
_OWNED = f'{PROCESS}, pgmap_owner=~"$pgmap_owner"'
_TO_DEVICE = f"{PROCESS}, {TO_DEVICE}"
_TO_HOST = f"{PROCESS}, {TO_HOST}"
_LABELS = ("node", "namespace", "pod", "slurm_job", "comm")

TO_NODE = Link("node detail", "hmm-node", of_row("node"), ("cluster",))
TO_COMM = Link("only this", "hmm-process", of_row("node", "namespace", "pod", "slurm_job", "comm"), ("cluster",))
TO_JOB = Link("only this", "hmm-process", of_row("slurm_job"), ("cluster", "node", "comm"))
TO_POD = Link("only this", "hmm-process", of_row("node", "namespace", "pod"), ("cluster", "comm"))


def _worst(metric: str, title: str, description: str, unit: str, selected: str = PROCESS) -> Panel:
    """The ten processes with most of it."""
    return time_series(title, description, unit, Query(top(10, rates(metric, selected, PER_PROCESS)), WHO_AND_WHERE))


BOARD = Board(
    uid="hmm-process",
    title="HMM / Process and pod detail",
    description="What Linux HMM does with a process's memory: by pod, Slurm job and command name.",
    variables=("cluster", "node", "namespace", "pod", "slurm_job", "comm", "pgmap_owner"),
    summary=(
        summary.thrash_ratio(PROCESS),
        summary.threads_waiting(PROCESS),
        single(
            "Moved",
            "Bytes of the processes' memory that migrate_vma_pages copied, by direction.",
            "binBps",
            Query(rates("hmm_process_moved_bytes_total", _TO_DEVICE), "to device"),
            Query(rates("hmm_process_moved_bytes_total", _TO_HOST), "to host"),
        ),
        single(
            "Migrations",
            "Calls of migrate_vma_setup for the processes' memory, whoever made them.",
            a_second("calls"),
            Query(rates("hmm_process_migrations_total", _OWNED)),
        ),
        single(
            "Range faults that failed",
            "Calls of hmm_range_fault that returned an error, EBUSY included, over all calls. Above one half for long:"
            " the process changes its mappings as fast as the driver reads them.",
            "percentunit",
            Query(
                or_zero(
                    ratio(
                        rates("hmm_process_range_fault_failures_total", PROCESS),
                        rates("hmm_process_range_faults_total", PROCESS),
                    ),
                    "hmm_process_range_faults_total",
                    selected=PROCESS,
                )
            ),
            bad=0.5,
        ),
        single(
            "Migrations that failed",
            "Calls of migrate_vma_setup that returned an error. 0 is good.",
            a_second("calls"),
            Query(rates("hmm_process_migration_failures_total", PROCESS)),
        ),
    ),
    rows=(
        Row(
            "Who",
            (
                rows_of(
                    "Processes",
                    "The 50 that asked for most, over the time that is shown. waiting is how many threads were stalled"
                    " on average. A process outside of pods has no namespace and pod; comm other holds those that"
                    " found no room (limits.processes).",
                    _LABELS,
                    Query(
                        top(50, rates("hmm_process_requested_bytes_total", _OWNED, PER_PROCESS, SHOWN)),
                        "asked for",
                        "binBps",
                    ),
                    Query(
                        rates("hmm_process_moved_bytes_total", _TO_DEVICE, PER_PROCESS, SHOWN), "to device", "binBps"
                    ),
                    Query(rates("hmm_process_moved_bytes_total", _TO_HOST, PER_PROCESS, SHOWN), "to host", "binBps"),
                    Query(rates("hmm_process_returned_bytes_total", PROCESS, PER_PROCESS, SHOWN), "thrashed", "binBps"),
                    Query(process_thrash_ratio(PROCESS, PER_PROCESS, SHOWN), "thrash ratio", "percentunit"),
                    Query(rates("hmm_process_fault_stall_seconds_total", PROCESS, PER_PROCESS, SHOWN), "waiting"),
                    links={"node": TO_NODE, "pod": TO_POD, "slurm_job": TO_JOB, "comm": TO_COMM},
                    height=9,
                ),
            ),
        ),
        Row(
            "Does its memory come back?",
            (
                _worst(
                    "hmm_process_returned_bytes_total",
                    "Thrashed bytes",
                    "Bytes that CPU faults brought back within thrash_window of their arrival. As much as goes to the"
                    " device: CPU and GPU work on the same memory in turns; prefetch or pin it on one side.",
                    "binBps",
                ),
                _worst(
                    "hmm_process_fault_stall_seconds_total",
                    "Threads waiting",
                    "Seconds a second that CPU faults spent in migrations: the process's threads that were stalled.",
                    "short",
                ),
                time_series(
                    "Moved by direction",
                    "Bytes of the processes' memory that migrate_vma_pages copied, by where the pages lay and went.",
                    "binBps",
                    Query(rates("hmm_process_moved_bytes_total", PROCESS, "direction"), "{{direction}}"),
                ),
                time_series(
                    "Thrash ratio by process",
                    "Thrashed bytes over bytes copied to devices, of the ten with most (of those of which 64 KiB a"
                    " second come back, at least). Near 0 is good.",
                    "percentunit",
                    Query(top(10, thrashing(PROCESS)), WHO_AND_WHERE),
                ),
            ),
        ),
        Row(
            "What is asked for",
            (
                time_series(
                    "Migrations by class",
                    "Calls of migrate_vma_setup by what was asked for: prefetch (to a device), fault_back (a CPU"
                    " fault), evict (the driver's wish).",
                    a_second("calls"),
                    Query(
                        rates("hmm_process_migrations_total", _OWNED, "class, pgmap_owner"), "{{class}} {{pgmap_owner}}"
                    ),
                ),
                time_series(
                    "Bytes asked for by class",
                    "Size of the ranges given to migrate_vma_setup. Far more than what moved: see what does not move in"
                    " the node's detail.",
                    "binBps",
                    Query(
                        rates("hmm_process_requested_bytes_total", _OWNED, "class, pgmap_owner"),
                        "{{class}} {{pgmap_owner}}",
                    ),
                ),
            ),
        ),
        Row(
            "Does it race its devices?",
            (
                _worst(
                    "hmm_process_range_faults_total",
                    "Range faults",
                    "Calls of hmm_range_fault (7.3: and hmm_range_fault_unlocked_timeout): a device reads the process's"
                    " page tables.",
                    a_second("calls"),
                ),
                time_series(
                    "Range fault failures by error",
                    "Calls of hmm_range_fault that returned an error. EBUSY: the range was invalidated meanwhile;"
                    " EFAULT, EPERM: the device was sent where nothing is mapped, or not so.",
                    a_second("calls"),
                    Query(
                        rates("hmm_process_range_fault_failures_total", PROCESS, "comm, pod, errno"),
                        "{{comm}} {{pod}} {{errno}}",
                    ),
                ),
                _worst(
                    "hmm_process_invalidations_total",
                    "Invalidations",
                    "MMU_NOTIFY_MIGRATE and MMU_NOTIFY_EXCLUSIVE invalidations of the process's memory: each makes"
                    " drivers tear mappings down. Needs the group per_page.",
                    a_second("calls"),
                ),
                time_series(
                    "Migration failures by error",
                    "Calls of migrate_vma_setup that returned an error; EINVAL is a bad range or mapping. 0 is good.",
                    a_second("calls"),
                    Query(
                        rates("hmm_process_migration_failures_total", PROCESS, "comm, pod, errno"),
                        "{{comm}} {{pod}} {{errno}}",
                    ),
                ),
            ),
        ),
        Row(
            "Atomics, huge pages, mirrored ranges",
            (
                time_series(
                    "Pages exclusive to a device",
                    "make_device_exclusive takes pages from the CPU for a device's atomics, restore_exclusive_pte gives"
                    " them back. As many of both: CPU and device work on the same words.",
                    a_second("calls"),
                    Query(rates("hmm_process_device_exclusive_total", PROCESS, "comm, pod"), "{{comm}} {{pod}} made"),
                    Query(
                        rates("hmm_process_device_exclusive_restores_total", PROCESS, "comm, pod"),
                        "{{comm}} {{pod}} restored",
                    ),
                    width=8,
                ),
                time_series(
                    "Faults on huge pages of a device",
                    "Faults handled by do_huge_pmd_device_private (6.19 and newer).",
                    a_second("faults"),
                    Query(rates("hmm_process_huge_faults_total", PROCESS, "comm, pod"), "{{comm}} {{pod}}"),
                    width=8,
                ),
                time_series(
                    "Mirrored ranges",
                    "mmu_interval_notifier_insert and _remove: buffers registered and given back. Much of both is a"
                    " registration for each transfer.",
                    a_second("ranges"),
                    Query(
                        rates("hmm_process_interval_notifier_inserts_total", PROCESS, "comm, pod"),
                        "{{comm}} {{pod}} insert",
                    ),
                    Query(
                        rates("hmm_process_interval_notifier_removes_total", PROCESS, "comm, pod"),
                        "{{comm}} {{pod}} remove",
                    ),
                    width=8,
                ),
            ),
        ),
    ),
)
