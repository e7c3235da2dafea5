# SPDX-License-Identifier: Apache-2.0
"""Panels that more than one dashboard has at its top: one figure, whichever of them is open."""

from __future__ import annotations

from dashboards.grafana.generate import promql
from dashboards.grafana.generate.panels import Panel, Query, single
from dashboards.grafana.generate.promql import (
    ATTEMPTS,
    EXPORTER,
    NODE,
    OWNER,
    RETURNED,
    exporters_down,
    or_zero,
    rates,
    thrashing,
    worst,
)

TO_DEVICE = f"{OWNER}, {promql.TO_DEVICE}"
TO_HOST = f"{OWNER}, {promql.TO_HOST}"


def thrash_ratio(selected: str) -> Panel:
    return single(
        "Worst thrash ratio",
        "Bytes that CPU faults brought back within thrash_window (10 s) of their arrival on a device, over bytes that"
        " migrations copied to devices (migrate_vma_pages), of the process where that is most (of those of which"
        " 64 KiB a second come back, at least). Near 0 is good; 0.5 means that half of what is sent is sent in vain. It"
        " can exceed 1: pages made on the device (zero-filled) are not in the denominator. The alert HmmThrashing asks"
        " for more than red does: 4 MiB a second back from one device, for 15 minutes.",
        "percentunit",
        Query(or_zero(worst(thrashing(selected)), RETURNED)),
        bad=0.5,
        nothing="not measured",
    )


def threads_waiting(selected: str) -> Panel:
    return single(
        "Threads waiting for memory",
        "Seconds a second that CPU faults spent from migrate_vma_setup to migrate_vma_finalize, which is how many"
        " threads are stalled on average. A lower bound: the fault begins before and ends after. Near 0 is good.",
        "count:threads",
        Query(rates("hmm_process_fault_stall_seconds_total", selected)),
        bad=1,
    )


def ebusy_ratio() -> Panel:
    return single(
        "EBUSY ratio",
        "Walks of hmm_range_fault that ended in EBUSY because the range was invalidated meanwhile, over all walks."
        " What Linux 7.3 calls a dropped lock is progress and left out. A few percent are usual; a driver that"
        " loses every other race does its work twice.",
        "percentunit",
        Query(or_zero(promql.ebusy_ratio(NODE), ATTEMPTS)),
        bad=0.5,
    )


def bandwidth() -> Panel:
    return single(
        "Migration bandwidth",
        "Bytes copied by migrate_vma_pages, by direction. Neither good nor bad by itself: compare with the link's.",
        "binBps",
        Query(rates("hmm_migration_moved_bytes_total", TO_DEVICE), "to device"),
        Query(rates("hmm_migration_moved_bytes_total", TO_HOST), "to host"),
    )


def exporters() -> Panel:
    return single(
        "Exporters down",
        "Targets of the job hmm-exporter that Prometheus does not reach: nodes of which nothing is known. 1, too, where"
        " there is no such target at all.",
        "short",
        Query(exporters_down(EXPORTER)),
        bad=1,
    )
