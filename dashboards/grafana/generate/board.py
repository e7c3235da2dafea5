# SPDX-License-Identifier: Apache-2.0
"""What all dashboards have: variables, links to each other, rows, and their file.

Belongs here: what a dashboard is made of. Does not belong here: any panel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from dashboards.grafana.generate.panels import DATASOURCE, Panel

TAG = "hmm-exporter"
#: Panels' come from their titles, and are smaller: see ``panels``.
_ROW_IDS = 2_000_000
_PROCESSES = '__name__=~"hmm_process_.+"'


@dataclass(frozen=True)
class Choice:
    """A variable: the values of its label in the series that are selected."""

    series: str
    narrowed_by: tuple[str, ...]
    description: str


CHOICES = {
    "cluster": Choice('__name__="hmm_exporter_build_info"', (), "Empty where there is only one."),
    "node": Choice('__name__="hmm_exporter_build_info"', ("cluster",), "The label node of the scrape's target."),
    "pgmap_owner": Choice(
        '__name__="hmm_pgmap_owner_info"',
        ("cluster", "node"),
        "Who owns device memory, by name: amdgpu-1, nvidia_uvm. Panels about processes and range faults do not heed"
        " it.",
    ),
    "namespace": Choice(_PROCESSES, ("cluster", "node"), "Empty where kubernetes.enabled is off."),
    "pod": Choice(_PROCESSES, ("cluster", "node", "namespace"), "Empty where kubernetes.enabled is off."),
    "slurm_job": Choice(_PROCESSES, ("cluster", "node"), "Empty where slurm.enabled is off."),
    "comm": Choice(
        _PROCESSES,
        ("cluster", "node", "namespace", "pod", "slurm_job"),
        "The process that owns the memory, by name.",
    ),
}


@dataclass(frozen=True)
class Row:
    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Board:
    uid: str
    title: str
    description: str
    variables: Sequence[str]
    summary: Sequence[Panel]
    """Above all rows."""
    rows: Sequence[Row]
    single_choice: Sequence[str] = ()
    """Variables without All."""

    @property
    def file(self) -> str:
        return f"{self.uid}.json"

    def json(self) -> str:
        return JSONEncoder(sort_keys=True, indent=2).encode(self._build()) + "\n"

    def _build(self) -> models.Dashboard:
        board = (
            dashboard.Dashboard(self.title)
            .uid(self.uid)
            .description(self.description)
            .tags([TAG])
            .editable()
            .tooltip(models.DashboardCursorSync.CROSSHAIR)
            .time("now-1h", "now")
            .refresh("1m")
            .link(
                dashboard.DashboardLink("HMM")
                .type(models.DashboardLinkType.DASHBOARDS)
                .tags([TAG])
                .include_vars(True)
                .keep_time(True)
            )
            .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        )
        for name in self.variables:
            variable = _variable(name, CHOICES[name])
            board.with_variable(variable if name in self.single_choice else _with_all(variable))
        for panel in self.summary:
            board.with_panel(panel)
        for number, row in enumerate(self.rows):
            board.with_row(dashboard.Row(row.title).id(_ROW_IDS + number))
            for panel in row.panels:
                board.with_panel(panel)
        return board.build()


def _variable(name: str, choice: Choice) -> dashboard.QueryVariable:
    selected = ", ".join([choice.series, *(f'{other}=~"${other}"' for other in choice.narrowed_by)])
    return (
        dashboard.QueryVariable(name)
        .label(name)
        .description(choice.description)
        .datasource(DATASOURCE)
        .query({"query": f"label_values({{{selected}}}, {name})", "refId": name})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.NATURAL_ASC)
    )


def _with_all(variable: dashboard.QueryVariable) -> dashboard.QueryVariable:
    return (
        variable.multi(True)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(text="All", value="$__all"))
    )
