# SPDX-License-Identifier: Apache-2.0
"""The fleet: is anything wrong, on which node, whose job is it."""

from __future__ import annotations

from dashboards.grafana.generate import summary
from dashboards.grafana.generate.board import Board, Row
from dashboards.grafana.generate.panels import (
    Link,
    Query,
    a_second,
    bars,
    heat,
    of_row,
    of_series,
    rows_of,
    single,
    time_series,
)
from dashboards.grafana.generate.promql import (
    ATTEMPTS,
    NODE,
    OWNER,
    PER_NODE,
    PER_PROCESS,
    RETURNED,
    SHOWN,
    WHO_AND_WHERE,
    buckets,
    ebusy_ratio,
    increase,
    not_zero,
    or_zero,
    oversubscription,
    process_thrash_ratio,
    quantile,
    rates,
    ratio,
    thrashing,
    top,
    total,
    unmoved_share,
    worst,
)

TO_NODE = Link("node detail", "hmm-node", of_series("node"), ("cluster", "pgmap_owner"))
ROW_TO_NODE = Link("node detail", "hmm-node", of_row("node"), ("cluster", "pgmap_owner"))
ROW_TO_EXPORTER = Link("exporter health", "hmm-exporter", of_row("node"), ("cluster",))
ROW_TO_COMM = Link(
    "process detail", "hmm-process", of_row("node", "namespace", "pod", "slurm_job", "comm"), ("cluster",)
)
ROW_TO_JOB = Link("process detail", "hmm-process", of_row("slurm_job"), ("cluster",))
ROW_TO_POD = Link("process detail", "hmm-process", of_row("node", "namespace", "pod"), ("cluster",))

_RETURNED = rates("hmm_process_returned_bytes_total", NODE, PER_PROCESS, SHOWN)
_WORST = top(15, _RETURNED)

BOARD = Board(
    uid="hmm-fleet",
    title="HMM / Fleet overview",
    description="Memory shared by CPUs and GPUs (Linux HMM) on all nodes: who thrashes, who races, what does not move.",
    variables=("cluster", "node", "pgmap_owner"),
    summary=(
        summary.thrash_ratio(NODE),
        summary.threads_waiting(NODE),
        summary.ebusy_ratio(),
        summary.bandwidth(),
        single(
            "Failures",
            "Calls a second of migrate_vma_setup and hmm_range_fault that returned an error other than EBUSY. 0 is"
            " good: these are arguments that are no good, mappings that are gone, killed processes.",
            a_second("calls"),
            Query(rates("hmm_migration_failures_total", OWNER), "migrations"),
            Query(rates("hmm_range_fault_failures_total", f'{NODE}, errno!="EBUSY"'), "range faults"),
        ),
        summary.exporters(),
    ),
    rows=(
        Row(
            "Which node, whose job",
            (
                rows_of(
                    "Nodes",
                    "One row a node: the worst thrash ratio of its processes now, as above, the rest over the time that"
                    " is shown. Follow a node's name to its detail. detached are probes that this kernel has and that"
                    " are not attached, missed are events that a probe did not see: of such a node the other figures"
                    " may be too low.",
                    ("cluster", "node"),
                    Query(
                        or_zero(worst(thrashing(NODE), PER_NODE), RETURNED, PER_NODE),
                        "worst thrash ratio",
                        "percentunit",
                    ),
                    Query(rates("hmm_process_fault_stall_seconds_total", NODE, PER_NODE, SHOWN), "threads waiting"),
                    Query(
                        or_zero(ebusy_ratio(NODE, PER_NODE, SHOWN), ATTEMPTS, PER_NODE), "EBUSY ratio", "percentunit"
                    ),
                    Query(
                        rates("hmm_migration_moved_bytes_total", summary.TO_DEVICE, PER_NODE, SHOWN),
                        "to device",
                        "binBps",
                    ),
                    Query(
                        rates("hmm_migration_moved_bytes_total", summary.TO_HOST, PER_NODE, SHOWN), "to host", "binBps"
                    ),
                    Query(total(f"hmm_exporter_probe_attached{{{NODE}}} == bool 0", PER_NODE), "detached"),
                    Query(total(increase("hmm_exporter_probe_missed_total", NODE, SHOWN), PER_NODE), "missed"),
                    links={"node": ROW_TO_NODE, "detached": ROW_TO_EXPORTER, "missed": ROW_TO_EXPORTER},
                    height=6,
                ),
                rows_of(
                    "Processes that thrash most",
                    "The 15 with most bytes brought back by CPU faults within thrash_window of their arrival, over the"
                    " time that is shown. waiting is how many of the process's threads were stalled on average. Pod"
                    " and namespace are there where kubernetes.enabled is on, slurm_job where slurm.enabled is.",
                    ("cluster", "node", "namespace", "pod", "slurm_job", "comm"),
                    Query(_WORST, "thrashed", "binBps"),
                    Query(
                        f"{process_thrash_ratio(NODE, PER_PROCESS, SHOWN)} and on ({PER_PROCESS}) {_WORST}",
                        "ratio",
                        "percentunit",
                    ),
                    Query(
                        f"{rates('hmm_process_fault_stall_seconds_total', NODE, PER_PROCESS, SHOWN)}"
                        f" and on ({PER_PROCESS}) {_WORST}",
                        "waiting",
                    ),
                    links={"node": ROW_TO_NODE, "pod": ROW_TO_POD, "slurm_job": ROW_TO_JOB, "comm": ROW_TO_COMM},
                    height=6,
                ),
                time_series(
                    "Thrash ratio by process",
                    "Bytes brought back by CPU faults within thrash_window over bytes copied to devices, of the ten"
                    " processes with most (those of which 64 KiB a second come back, at least). Lasting values of a"
                    " few tenths: CPU and GPU work on the same memory in turns, or there is less device memory than"
                    " the jobs want.",
                    "percentunit",
                    Query(
                        top(10, thrashing(NODE)),
                        WHO_AND_WHERE,
                    ),
                    link=TO_NODE,
                ),
                time_series(
                    "Threads waiting for memory, by process",
                    "Seconds a second that a process's CPU faults spent in migrations (the ten with most): threads"
                    " stalled on average. This is what thrashing costs the job.",
                    "short",
                    Query(
                        top(10, rates("hmm_process_fault_stall_seconds_total", NODE, PER_PROCESS)),
                        WHO_AND_WHERE,
                    ),
                    link=TO_NODE,
                ),
            ),
        ),
        Row(
            "Does the device lose races against the CPU?",
            (
                time_series(
                    "EBUSY ratio by driver",
                    "Walks of hmm_range_fault that lost against an invalidation, over all walks, by the driver whose"
                    " mirror it is. Lasting values above one half mean that the CPU (its allocator, NUMA balancing, a"
                    " neighbour thread) changes mappings as fast as the driver reads them.",
                    "percentunit",
                    Query(ebusy_ratio(NODE, "driver"), "{{driver}}"),
                    at_most=1,
                ),
                bars(
                    "Functions that met EBUSY",
                    "The function that called hmm_range_fault when it returned EBUSY, from the kernel stack: calls over"
                    " the time that is shown. It says which path of a driver races.",
                    "short",
                    Query(
                        top(
                            10,
                            not_zero(
                                total(increase("hmm_range_fault_ebusy_callers_total", NODE, SHOWN), "driver, caller")
                            ),
                        ),
                        "{{caller}} [{{driver}}]",
                    ),
                ),
            ),
        ),
        Row(
            "How fast, and what does not move?",
            (
                time_series(
                    "Migration bandwidth by direction",
                    "Bytes copied by migrate_vma_pages, by where the pages lay and went. As much back as forth means"
                    " that data does not stay.",
                    "binBps",
                    Query(rates("hmm_migration_moved_bytes_total", OWNER, "direction"), "{{direction}}"),
                ),
                time_series(
                    "Migration latency, median and 99th percentile",
                    "From migrate_vma_setup's entry to migrate_vma_finalize's return, by what was asked for: fault_back"
                    " is what a CPU thread waits, prefetch what a GPU fault or a prefetch does.",
                    "s",
                    Query(quantile(0.5, "hmm_migration_duration_seconds", OWNER, "class"), "{{class}} p50"),
                    Query(quantile(0.99, "hmm_migration_duration_seconds", OWNER, "class"), "{{class}} p99"),
                ),
                time_series(
                    "Unmoved share by reason",
                    "Of the bytes that were there to move: busy (pinned or locked, refused by migrate_device_unmap),"
                    " no_destination (the device is full, or the driver declined), commit_failed (migrate_vma_pages"
                    " refused). Holes and what is there already (not_selected), and what lies behind the first 262,144"
                    " pages (not_read), are left out. Near 0 is good; commit_failed should be 0.",
                    "percentunit",
                    Query(unmoved_share(OWNER), "{{reason}}"),
                    stacked=True,
                ),
                time_series(
                    "Oversubscription by node",
                    "Bytes that were evicted (migrate_device_pages in xe and nvidia-uvm, kernel threads' migrations in"
                    " amdgpu; not what nouveau and test_hmm save when a device goes), over bytes copied to devices."
                    " Above 0 for long: jobs want more than the device has. Near 1: what comes in pushes as much out.",
                    "percentunit",
                    Query(oversubscription(NODE, PER_NODE), "{{cluster}} {{node}}"),
                    link=TO_NODE,
                ),
                heat(
                    "How long memory stays on a device",
                    "From a 2 MiB region's arrival to the CPU fault that brings it back: how many a bucket, over time."
                    " A band below 10 s is thrashing; what never comes back is not here.",
                    "s",
                    buckets("hmm_device_residency_seconds", NODE),
                ),
                time_series(
                    "Huge share of what moved",
                    "Bytes copied in huge folios over all bytes copied, by direction (6.19 and newer). Near 1 is good:"
                    " 4 KiB pages cost many times more each byte.",
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
            ),
        ),
    ),
)
