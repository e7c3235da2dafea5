# SPDX-License-Identifier: Apache-2.0
"""The exporter itself: can its figures be trusted, and what does it cost."""

from __future__ import annotations

from dashboards.grafana.generate import summary
from dashboards.grafana.generate.board import Board, Row
from dashboards.grafana.generate.panels import Link, Query, a_second, of_row, rows_of, single, time_series
from dashboards.grafana.generate.promql import (
    EXPORTER,
    NODE,
    PER_NODE,
    SHOWN,
    increase,
    not_zero,
    rate,
    rates,
    top,
    total,
)

TO_NODE = Link("node detail", "hmm-node", of_row("node"), ("cluster",))

_NO_STATISTICS = "needs sysctl kernel.bpf_stats_enabled=1"

BOARD = Board(
    uid="hmm-exporter",
    title="HMM / Exporter health",
    description="Whether hmm-exporter sees everything, and what watching costs.",
    variables=("cluster", "node"),
    summary=(
        summary.exporters(),
        single(
            "Probes detached",
            "Probes that are enabled, that the node's kernel has, and that are not attached. Anything but 0: the"
            " metrics behind them are absent; hmm-exporter --check says why.",
            "short",
            Query(total(f"hmm_exporter_probe_attached{{{NODE}}} == bool 0")),
            bad=1,
        ),
        single(
            "Events missed",
            "Events that a probe did not see, or not to the end, over the time that is shown: they are in no other"
            " metric. 0 is good; on preemptible kernels see probes.attach.",
            "short",
            Query(total(increase("hmm_exporter_probe_missed_total", NODE, SHOWN))),
            bad=1,
        ),
        single(
            "Events without a row",
            "Events whose labels found no row of their own and were booked as other, over the time that is shown:"
            " totals stay exact, names are lost. And arrivals on a device that are not followed: thrash and"
            " residency are too low. The map below says which limit to raise.",
            "short",
            Query(
                total(increase("hmm_exporter_label_overflow_events_total", f'{NODE}, map!~"arrival|stack"', SHOWN)),
                "in other",
            ),
            Query(
                total(increase("hmm_exporter_label_overflow_events_total", f'{NODE}, map="arrival"', SHOWN)),
                "not followed",
            ),
            bad=1,
        ),
        single(
            "Books that do not balance",
            "Nodes where started is not failed + empty + completed + in flight + abandoned, or requested is not moved +"
            " zero-filled + unmoved. Anything but 0 is a bug of the exporter, or missed events.",
            "short",
            Query(f"count(hmm_exporter_books_balanced{{{NODE}}} == 0) or vector(0)"),
            bad=1,
        ),
        single(
            "Series against the limit",
            "The fullest node: series of HMM metrics over hmm_exporter_series_limit, from which on new label sets are"
            " booked as other.",
            "percentunit",
            Query(f"max(hmm_exporter_series{{{NODE}}} / hmm_exporter_series_limit{{{NODE}}})"),
            bad=0.9,
        ),
    ),
    rows=(
        Row(
            "Does it see everything?",
            (
                rows_of(
                    "Probes",
                    "How each probe is attached, and on how many nodes. absent: the kernel has no such function."
                    " disabled: its group is off. denied: a privilege is missing. error: the log says what.",
                    ("probe", "state", "kind", "function"),
                    Query(f"count by (probe, state, kind, function) (hmm_exporter_probe_info{{{NODE}}})", "nodes"),
                    width=14,
                    height=12,
                ),
                rows_of(
                    "Nodes",
                    "Kernel, version and how long an exporter took from its start until all probes were attached.",
                    ("cluster", "node", "release", "version"),
                    Query(
                        f"max by (cluster, node, release, version) ("
                        f"hmm_exporter_ready_duration_seconds{{{NODE}}}"
                        f" * on (cluster, node, instance) group_left (release) hmm_exporter_kernel_info{{{NODE}}}"
                        f" * on (cluster, node, instance) group_left (version) hmm_exporter_build_info{{{NODE}}})",
                        "ready after",
                        "s",
                    ),
                    width=10,
                    height=12,
                    links={"node": TO_NODE},
                ),
                time_series(
                    "Events missed by probe",
                    "Events a second that a probe did not see: skipped while the same program was preempted (fentry) or"
                    " another BPF program ran (kprobe), lost returns, no room for a thread. None is good.",
                    a_second("events"),
                    Query(
                        not_zero(rates("hmm_exporter_probe_missed_total", NODE, "cluster, node, probe")),
                        "{{node}} {{probe}}",
                    ),
                    width=8,
                    nothing="none",
                ),
                time_series(
                    "Migrations in flight",
                    "Between migrate_vma_setup and migrate_vma_finalize at the scrape. As many for minutes, without"
                    " migrations completing: a driver is stuck.",
                    "short",
                    Query(total(f"hmm_exporter_migrations_in_flight{{{NODE}}}", PER_NODE), "{{node}}"),
                    width=8,
                ),
                time_series(
                    "Migrations abandoned",
                    "Migrations a second that were never finalized, or not seen to be: a driver that gives up half-way,"
                    " an event that a probe missed, no room in the map thread. Next to none is good.",
                    a_second("events"),
                    Query(rates("hmm_exporter_migrations_abandoned_total", NODE, PER_NODE), "{{node}}"),
                    width=8,
                ),
            ),
        ),
        Row(
            "Is there room?",
            (
                time_series(
                    "Map fill",
                    "Rows of a BPF map over its capacity, the ten fullest. A full map books new label sets as other;"
                    " of arrival: new regions on devices are not followed.",
                    "percentunit",
                    Query(
                        top(10, f"hmm_exporter_map_entries{{{NODE}}} / hmm_exporter_map_capacity{{{NODE}}}"),
                        "{{node}} {{map}}",
                    ),
                    at_most=1,
                ),
                time_series(
                    "What found no room, by map",
                    "Events a second that found no row of their own and were booked as other; of arrival: regions on a"
                    " device that are not followed, so that thrash and residency are too low; of stack: EBUSY returns"
                    " whose caller is not known. Which limit to raise for which map: [runbook]"
                    "(https://github.com/hmm-exporter/hmm-exporter/blob/main/docs/runbook.md#hmmexporterlabeloverflow).",
                    a_second("events"),
                    Query(
                        rates("hmm_exporter_label_overflow_events_total", NODE, "cluster, node, map"),
                        "{{node}} {{map}}",
                    ),
                ),
                time_series(
                    "Series",
                    "Series of HMM metrics in one scrape, and the number from which on new label sets are booked as"
                    " other: limits.series, less what other may yet take.",
                    "short",
                    Query(f"hmm_exporter_series{{{NODE}}}", "{{node}}"),
                    Query(f"max(hmm_exporter_series_limit{{{NODE}}})", "limit"),
                ),
                time_series(
                    "Faults from regions of unknown arrival",
                    "CPU faults that brought pages back of which it is not known since when they were on the device:"
                    " before the exporter's start, too long ago (an hour, or less while the map fills up), in a fork's"
                    " parent, or no room. Many of them: residency and thrash are too low.",
                    a_second("faults"),
                    Query(rates("hmm_exporter_residency_misses_total", NODE, PER_NODE), "{{node}}"),
                ),
            ),
        ),
        Row(
            "What does it cost?",
            (
                time_series(
                    "CPU of the daemon",
                    "CPU seconds a second of the process that is scraped (not of BPF programs, whose cost the workload"
                    " bears). Some 0.2 % at a scrape every 15 s.",
                    "percentunit",
                    Query(f"sum by ({PER_NODE}) ({rate('process_cpu_seconds_total', EXPORTER)})", "{{node}}"),
                    width=8,
                ),
                time_series(
                    "Memory of the daemon",
                    "Resident memory of the process. Some 32 MB, and flat.",
                    "bytes",
                    Query(f"process_resident_memory_bytes{{{EXPORTER}}}", "{{node}}"),
                    width=8,
                ),
                time_series(
                    "Time of a scrape",
                    "As Prometheus sees it, and the part that reads maps and makes metrics.",
                    "s",
                    Query(f"scrape_duration_seconds{{{EXPORTER}}}", "{{node}} scrape"),
                    Query(f"hmm_exporter_collect_duration_seconds{{{NODE}}}", "{{node}} collect"),
                    width=8,
                ),
                time_series(
                    "Time in BPF programs",
                    "Seconds a second in each probe's programs, which the workload bears. Only while the kernel's BPF"
                    " statistics are on (sysctl kernel.bpf_stats_enabled=1, which costs something itself).",
                    "percentunit",
                    Query(top(10, rates("hmm_exporter_probe_run_seconds_total", NODE, "probe")), "{{probe}}"),
                    nothing=_NO_STATISTICS,
                ),
                time_series(
                    "Time of one run",
                    "Time in a probe's programs over their runs: some hundred nanoseconds to a few microseconds, more"
                    " where pages are read. Only while the kernel's BPF statistics are on.",
                    "s",
                    Query(
                        f"{rates('hmm_exporter_probe_run_seconds_total', NODE, 'probe')}"
                        f" / ({rates('hmm_exporter_probe_runs_total', NODE, 'probe')} > 0)",
                        "{{probe}}",
                    ),
                    nothing=_NO_STATISTICS,
                ),
            ),
        ),
    ),
)
