# SPDX-License-Identifier: Apache-2.0
"""A node: what its devices and drivers do, where the time goes, what fails."""

from __future__ import annotations

from dashboards.grafana.generate import node_migrations, node_mirrors, summary
from dashboards.grafana.generate.board import Board, Row
from dashboards.grafana.generate.panels import Query, single
from dashboards.grafana.generate.promql import (
    NODE,
    OWNER,
    quantile,
    total,
)

_SUMMARY = (
    summary.thrash_ratio(NODE),
    summary.threads_waiting(NODE),
    single(
        "99th percentile of a fault back",
        "From migrate_vma_setup's entry to migrate_vma_finalize's return of migrations that a CPU fault asked for"
        " (class fault_back): what the slowest in a hundred waits.",
        "s",
        Query(quantile(0.99, "hmm_migration_duration_seconds", f'{OWNER}, class="fault_back"')),
        bad=0.0625,
    ),
    summary.ebusy_ratio(),
    summary.bandwidth(),
    single(
        "Migrations in flight",
        "Threads between migrate_vma_setup's entry and migrate_vma_finalize's return at the moment of the scrape. As"
        " many for minutes, without migrations completing: a driver is stuck.",
        "short",
        Query(total(f"hmm_exporter_migrations_in_flight{{{NODE}}}")),
    ),
)

BOARD = Board(
    uid="hmm-node",
    title="HMM / Node detail",
    description="What Linux HMM does on a node: devices, drivers, time, failures.",
    variables=("cluster", "node", "pgmap_owner"),
    single_choice=("node",),
    summary=_SUMMARY,
    rows=(
        Row("Does memory come back?", node_migrations.THRASH),
        Row("How fast, and where is the time?", node_migrations.SPEED),
        Row("What does not move, and why?", node_migrations.UNMOVED),
        Row("Is device memory under pressure?", node_migrations.PRESSURE),
        Row("Does the device lose races against the CPU?", node_mirrors.MIRROR),
        Row("Atomics, huge pages, mirrored ranges, and what is counted per page", node_mirrors.REST),
        Row("What is there", node_mirrors.THERE),
    ),
)
