# SPDX-License-Identifier: Apache-2.0
"""The kinds of panels, each with the settings that all of its kind share.

Belongs here: how an answer is shown. Does not belong here: which question is asked, where its panel stands.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from grafana_foundation_sdk.builders import bargauge, common, dashboard, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models import prometheus as prometheus_models

Panel = Builder[models.Panel]
Kind = TypeVar("Kind", timeseries.Panel, stat.Panel, heatmap.Panel, table.Panel, bargauge.Panel)

DATASOURCE = common_models.DataSourceRef(type_val="prometheus", uid="${datasource}")
REF_IDS = "ABCDEFGH"
HEIGHT = 8
#: The longest that rates are good for: $__rate_interval is four times a query's "Min step" at least, else the data
#: source's. A panel's "Min interval" does not count (grafana/grafana#77234).
SCRAPE_INTERVAL = "1m"


@dataclass(frozen=True)
class Query:
    expression: str
    legend: str = ""
    """With {{label}}s. In a table, the column's name."""
    unit: str = ""
    """Of a table's column."""


@dataclass(frozen=True)
class Link:
    """From a value that is shown to a dashboard about it."""

    title: str
    uid: str
    variables: Mapping[str, str]
    """Set in that dashboard, to what."""
    kept: Sequence[str] = ()
    """Those that both dashboards have, and that keep what is chosen here."""

    def model(self) -> dict[str, object]:
        chosen = [f"var-{name}={value}" for name, value in self.variables.items()]
        kept = [f"${{{name}:queryparam}}" for name in ("datasource", *self.kept)]
        return {"title": self.title, "url": f"/d/{self.uid}?" + "&".join([*chosen, *kept, "${__url_time_range}"])}


def of_row(*labels: str) -> dict[str, str]:
    """For a table's link: variables from the row that was clicked."""
    return {label: f"${{__data.fields.{label}}}" for label in labels}


def of_series(*labels: str) -> dict[str, str]:
    """For a graph's link: variables from the series that was clicked."""
    return {label: f"${{__field.labels.{label}}}" for label in labels}


def a_second(what: str) -> str:
    """A unit, with Grafana's K and M before it."""
    return f"count:{what}/s"


def time_series(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    width: int = 12,
    stacked: bool = False,
    at_most: float | None = None,
    link: Link | None = None,
    nothing: str = "",
) -> Panel:
    """*nothing* is said where there is no answer."""
    panel = (
        _panel(timeseries.Panel(), title, description, unit, width, HEIGHT)
        .targets([_target(query, ref).range() for query, ref in zip(queries, REF_IDS)])
        .min(0)
        .line_width(1)
        .fill_opacity(60 if stacked else 10)
        .show_points(common_models.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.TABLE)
            .placement(common_models.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["mean", "max"])
            .sort_by("Mean")
            .sort_desc(True)
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.DESCENDING)
        )
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
    if at_most is not None:
        panel.max(at_most)
    if nothing:
        panel.no_value(nothing)
    if link:
        panel.with_override(
            models.MatcherConfig(id_val="byRegexp", options=".*"),
            [models.DynamicConfigValue(id_val="links", value=[link.model()])],
        )
    return panel


def single(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    bad: float | None = None,
    width: int = 4,
    nothing: str = "idle",
) -> Panel:
    """The newest value, large, over its course. From *bad* on it is red, from a half of that orange."""
    steps = [models.Threshold(value=None, color="green" if bad is not None else "blue")]
    if bad is not None:
        steps += [models.Threshold(value=bad / 2, color="orange"), models.Threshold(value=bad, color="red")]
    return (
        _panel(stat.Panel(), title, description, unit, width, 4)
        .targets([_target(query, ref).range() for query, ref in zip(queries, REF_IDS)])
        .no_value(nothing)
        .color_mode(common_models.BigValueColorMode.VALUE)
        .graph_mode(common_models.BigValueGraphMode.AREA)
        .text_mode(
            common_models.BigValueTextMode.VALUE_AND_NAME if len(queries) > 1 else common_models.BigValueTextMode.VALUE
        )
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
    )


def heat(title: str, description: str, unit: str, expression: str, width: int = 12) -> Panel:
    """Buckets by ``le`` over time: how many events fell into each."""
    target = _target(Query(expression, "{{le}}"), "A").range().format(prometheus_models.PromQueryFormat.HEATMAP)
    return (
        _panel(heatmap.Panel(), title, description, unit, width, HEIGHT)
        .targets([target])
        .calculate(False)
        .y_axis(heatmap.YAxisConfig().unit(unit).axis_placement(common_models.AxisPlacement.LEFT))
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heatmap_models.HeatmapColorMode.SCHEME)
            .scheme("Oranges")
            .scale(heatmap_models.HeatmapColorScale.EXPONENTIAL)
            .exponent(0.5)
            .steps(64)
        )
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .cell_gap(1)
        .show_legend()
    )


def bars(title: str, description: str, unit: str, query: Query, width: int = 12) -> Panel:
    """A bar for each series, over the time that is shown."""
    return (
        _panel(bargauge.Panel(), title, description, unit, width, HEIGHT)
        .targets([_target(query, "A").instant()])
        .min(0)
        .orientation(common_models.VizOrientation.HORIZONTAL)
        .display_mode(common_models.BarGaugeDisplayMode.BASIC)
        .name_placement(common_models.BarGaugeNamePlacement.LEFT)
        .show_unfilled(False)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.FIXED).fixed_color("orange"))
    )


def rows_of(
    title: str,
    description: str,
    labels: Sequence[str],
    *queries: Query,
    width: int = 24,
    links: Mapping[str, Link] | None = None,
    height: int = HEIGHT,
) -> Panel:
    """A table: a row for each label set, a column for each label and each query. Queries without a legend have none."""
    columns = {"Value" if len(queries) == 1 else f"Value #{ref}": query for query, ref in zip(queries, REF_IDS)}
    hidden = ["Time", *(column for column, query in columns.items() if not query.legend)]
    panel = (
        _panel(table.Panel(), title, description, queries[0].unit or "short", width, height)
        .targets(
            [
                _target(query, ref).instant().format(prometheus_models.PromQueryFormat.TABLE)
                for query, ref in zip(queries, REF_IDS)
            ]
        )
        .with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            models.DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": dict.fromkeys(hidden, True),
                    "indexByName": {name: at for at, name in enumerate([*labels, *columns])},
                    "renameByName": {column: query.legend for column, query in columns.items() if query.legend},
                },
            )
        )
        .show_header(True)
        .filterable(True)
    )
    shown = [query for query in queries if query.legend]
    for query in shown:
        panel.override_by_name(query.legend, [models.DynamicConfigValue(id_val="unit", value=query.unit or "short")])
    if shown:
        panel.sort_by([common.TableSortByFieldState().display_name(shown[0].legend).desc(True)])
    for label, link in (links or {}).items():
        panel.override_by_name(label, [models.DynamicConfigValue(id_val="links", value=[link.model()])])
    return panel


def _panel(panel: Kind, title: str, description: str, unit: str, width: int, height: int) -> Kind:
    """Its id comes from its title, so that a link to a panel survives others that are put before it."""
    return (
        panel.id(zlib.crc32(title.encode()) % 1_000_000 + 1)
        .title(title)
        .description(description)
        .unit(unit)
        .datasource(DATASOURCE)
        .span(width)
        .height(height)
    )


def _target(query: Query, ref: str) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expression).ref_id(ref).datasource(DATASOURCE).interval(SCRAPE_INTERVAL)
    return target.legend_format(query.legend) if query.legend else target
