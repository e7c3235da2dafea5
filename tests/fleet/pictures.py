# SPDX-License-Identifier: Apache-2.0
"""`make pictures`: what the dashboards would show of ten minutes of the simulated fleet, from Prometheus' answers.

No Grafana runs here: this lays panels out by their gridPos and draws them, to see that a dashboard can be read. Whole
ones go to build/pictures, what the README shows to docs/images. The status page is status_page.py's.
"""

from __future__ import annotations

import html
import math
import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.fleet import browser, drawing
from tests.fleet.dashboards import Json, everything_chosen, files, filled_in, load, variables
from tests.fleet.drawing import Line
from tests.fleet.prometheus import Prometheus, Series
from tests.fleet.simulated import FIRST, simulated_fleet
from tests.process import ROOT

SECONDS = 600  # the simulator's day
STEP, RATE_INTERVAL = 4, "20s"
WIDTH, CELL, GAP = 1400, 30, 8  # a row of Grafana's grid is 30 pixels high, with 8 between two
HEAD, TITLE = 84, 30
#: What the README shows: from the top to before this row's heading.
IN_README = {"hmm-fleet": "How fast, and what does not move?", "hmm-node": "What does not move, and why?"}

STYLE = """
* { box-sizing: border-box; margin: 0 }
body { background: #111217; color: #ccccdc; font: 13px "DejaVu Sans", sans-serif; width: 1400px; position: relative }
h1 { font-size: 19px; font-weight: 500; padding: 12px 16px 4px }
.note { padding: 0 16px; color: #8e8e99; font-size: 12px }
.chip { background: #22252b; border-radius: 2px; padding: 3px 8px; margin-left: 8px; font-size: 12px }
.panel { position: absolute; background: #181b1f; border: 1px solid #25282e; border-radius: 3px; overflow: hidden }
.panel h2 { font-size: 13px; font-weight: 500; padding: 6px 9px; height: 28px; white-space: nowrap }
.row { position: absolute; left: 12px; font-size: 16px; font-weight: 500; padding-top: 4px }
svg { display: block; font-family: "DejaVu Sans", sans-serif }
table { border-collapse: collapse; width: 100%; font-size: 12px }
th { text-align: left; color: #6e9fff; font-weight: 500 }
th, td { padding: 5px 8px; border-bottom: 1px solid #25282e; white-space: nowrap }
.link { color: #6e9fff }
"""


@dataclass(frozen=True)
class Page:
    """A dashboard over a time, asked of a server."""

    dashboard: Json
    server: Prometheus
    start: float
    end: float

    def html(self, until: str = "") -> tuple[str, int]:
        """The page and its height; up to the row *until*, without it."""
        bottom = HEAD
        parts = [self._heading()]
        for panel in self.dashboard["panels"]:
            if panel["title"] == until:
                break
            at = panel["gridPos"]
            left, top = _pixels(at["x"]), HEAD + at["y"] * (CELL + GAP)
            width = _pixels(at["x"] + at["w"]) - left - GAP
            height = at["h"] * (CELL + GAP) - GAP
            bottom = max(bottom, top + height)
            if panel["type"] == "row":
                parts.append(f'<div class="row" style="top:{top}px">⌄ {html.escape(panel["title"])}</div>')
                continue
            parts.append(
                f'<div class="panel" style="left:{left}px;top:{top}px;width:{width}px;height:{height}px">'
                f"<h2>{html.escape(panel['title'])}</h2>{self._content(panel, width - 2, height - TITLE)}</div>"
            )
        return f"<!doctype html><meta charset=utf-8><style>{STYLE}</style>{''.join(parts)}", bottom + GAP

    def _heading(self) -> str:
        chips = "".join(
            f'<span class="chip">{name}: {"All" if variable.get("includeAll") else FIRST}</span>'
            for name, variable in variables(self.dashboard).items()
            if name != "datasource"
        )
        return (
            f"<h1>{html.escape(self.dashboard['title'])}{chips}</h1>"
            '<p class="note">Drawn from a Prometheus that scraped hmm-exporter on the simulator for ten minutes; not a'
            " Grafana screenshot.</p>"
        )

    def _content(self, panel: Json, width: int, height: int) -> str:
        unit = panel["fieldConfig"]["defaults"]["unit"]
        if panel["type"] == "table":
            return self._table(panel)
        if panel["type"] == "bargauge":
            return drawing.bars(self._newest(panel), unit, width, height)
        lines = self._lines(panel)
        if panel["type"] == "stat":
            defaults = panel["fieldConfig"]["defaults"]
            return drawing.single(lines, unit, _colour_of(defaults), width, height, defaults["noValue"])
        if not lines:
            return drawing.nothing(width, height, panel["fieldConfig"]["defaults"].get("noValue", "No data"))
        if panel["type"] == "heatmap":
            return drawing.heatmap(lines, unit, width, height, self.start, self.end, STEP)
        custom = panel["fieldConfig"]["defaults"]["custom"]
        return drawing.time_series(
            lines,
            unit,
            width,
            height,
            self.start,
            self.end,
            STEP,
            stacked=custom.get("stacking", {}).get("mode") == "normal",
            at_most=panel["fieldConfig"]["defaults"].get("max"),
        )

    def _lines(self, panel: Json) -> list[Line]:
        """Of all queries, without what is no number."""
        found = []
        for target in panel["targets"]:
            asked = self._filled_in(target["expr"].replace("[$__rate_interval]", f"[{self._window(panel)}]"))
            for series in self.server.query_range(asked, self.start, self.end, STEP):
                points = [point for point in series.points if not math.isnan(point[1])]
                if points:
                    found.append(Line(_name(target, series), points))
        return found

    def _window(self, panel: Json) -> str:
        """A heatmap's cells are of one step each, as Grafana makes them by its own choice of intervals."""
        return f"{STEP}s" if panel["type"] == "heatmap" else RATE_INTERVAL

    def _newest(self, panel: Json) -> list[Line]:
        (target,) = panel["targets"]
        return [Line(_name(target, series), series.points) for series in self._ask(target)]

    def _table(self, panel: Json) -> str:
        """All queries' answers, joined by their labels; columns as the transformation orders and names them."""
        organize = panel["transformations"][1]["options"]
        named: dict[str, str] = organize["renameByName"]
        joined: dict[tuple[tuple[str, str], ...], dict[str, float]] = {}
        for target in panel["targets"]:
            column = "Value" if len(panel["targets"]) == 1 else f"Value #{target['refId']}"
            for series in self._ask(target):
                joined.setdefault(tuple(sorted(series.labels.items())), {})[column] = series.value
        there = {label for labels in joined for label, _ in labels} | named.keys()
        columns = [name for name in sorted(organize["indexByName"], key=organize["indexByName"].get) if name in there]
        settings: dict[str, Json] = {}
        for override in panel["fieldConfig"]["overrides"]:
            its = {each["id"]: each["value"] for each in override["properties"]}
            settings.setdefault(override["matcher"]["options"], {}).update(its)

        def cells(labels: Mapping[str, str], values: Mapping[str, float]) -> list[str]:
            shown = {
                name: drawing.with_unit(values[name], settings[title]["unit"])
                for name, title in named.items()
                if name in values
            }
            return [(shown if name in named else labels).get(name, "") for name in columns]

        first = next(iter(named), "")
        ordered = sorted(joined.items(), key=lambda row: -row[1].get(first, 0))
        rows = [cells(dict(labels), values) for labels, values in ordered]
        linked = [name for name, its in settings.items() if "links" in its]
        return drawing.table([named.get(name, name) for name in columns], rows, linked)

    def _ask(self, target: Json) -> list[Series]:
        return self.server.query(self._filled_in(target["expr"]), at=self.end)

    def _filled_in(self, expression: str) -> str:
        shown = f"{round(self.end - self.start)}s"
        return filled_in(expression, everything_chosen(self.dashboard, RATE_INTERVAL, shown))


def _name(target: Json, series: Series) -> str:
    legend: str = target.get("legendFormat", "")
    return re.sub(r"\{\{(\w+)\}\}", lambda label: series.labels.get(label[1], ""), legend)


def _colour_of(defaults: Json) -> Callable[[float], str]:
    steps = defaults["thresholds"]["steps"]

    def colour(value: float) -> str:
        reached = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
        return drawing.COLOURS[reached[-1]]

    return colour


def _pixels(column: int) -> int:
    return GAP + round(column * (WIDTH - GAP) / 24)


def shoot(page: str, height: int, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", suffix=".html") as file:
        file.write(page)
        file.flush()
        _run(*browser.COMMAND, f"--window-size={WIDTH},{height}", f"--screenshot={to}", f"file://{file.name}")


def shrink(picture: Path) -> None:
    """A repository keeps every version of it."""
    _run("pngquant", "--force", "--strip", "--speed", "1", "64", "--output", picture, picture)


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)


def draw(server: Prometheus, start: float, end: float) -> None:
    for file in files():
        page = Page(load(file), server, start, end)
        shoot(*page.html(), ROOT / f"build/pictures/{file.stem}.png")
        if file.stem in IN_README:
            shown = ROOT / f"docs/images/{file.stem}.png"
            shoot(*page.html(IN_README[file.stem]), shown)
            shrink(shown)


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        simulated_fleet(Path(folder), SECONDS, on_first=(), releases=("sid",)) as fleet,
    ):
        draw(fleet.servers["sid"], fleet.started, fleet.started + SECONDS)


if __name__ == "__main__":
    main()
