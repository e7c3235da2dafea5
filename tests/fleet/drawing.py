# SPDX-License-Identifier: Apache-2.0
"""Pictures of panels, as SVG and HTML, from what Prometheus answered: near enough to Grafana's to judge a dashboard.

Belongs here: marks, colours, axes, units. Does not belong here: what is asked, and how panels are put together.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

PALETTE = ("#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#fade2a", "#c0d8ff", "#96d98d")
COLOURS = {"green": "#73bf69", "orange": "#ff9830", "red": "#f2495c", "blue": "#5794f2"}
GRID, TEXT, FAINT, LINK = "#2c3035", "#ccccdc", "#8e8e99", "#6e9fff"
LEFT, BOTTOM, TOP, RIGHT = 90, 20, 8, 10
LEGEND_LINE = 17
LEGEND_LINES = 4

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    name: str
    points: Points

    @property
    def mean(self) -> float:
        return sum(value for _, value in self.points) / len(self.points)


def with_unit(value: float, unit: str) -> str:
    """As Grafana writes it, in three digits."""
    if unit.startswith("count:"):
        return f"{_plain(value)} {unit.removeprefix('count:')}"
    return _UNITS.get(unit, _plain)(value)


def _digits(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _plain(value: float) -> str:
    for factor, prefix in ((1e9, " Bil"), (1e6, " Mil"), (1e3, " K")):
        if abs(value) >= factor:
            return _digits(value / factor) + prefix
    return _digits(value)


def _binary(suffix: str) -> Callable[[float], str]:
    def written(value: float) -> str:
        step = min(int(math.log(abs(value), 1024)), 5) if abs(value) >= 1024 else 0
        return f"{_digits(value / 1024**step)} {('', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi')[step]}B{suffix}"

    return written


def _seconds(value: float) -> str:
    for factor, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if abs(value) >= factor:
            return f"{_digits(value / factor)} {unit}"
    return f"{_digits(value / 1e-9)} ns" if value else "0 s"


_UNITS: Mapping[str, Callable[[float], str]] = {
    "percentunit": lambda value: f"{_digits(100 * value)}%",
    "binBps": _binary("/s"),
    "bytes": _binary(""),
    "s": _seconds,
}


def time_series(
    lines: Sequence[Line],
    unit: str,
    width: int,
    height: int,
    start: float,
    end: float,
    step: float,
    stacked: bool = False,
    at_most: float | None = None,
) -> str:
    lines = sorted(lines, key=lambda line: -line.mean)
    legend = lines[:LEGEND_LINES]
    plot_height = height - BOTTOM - TOP - LEGEND_LINE * (len(legend) + 1)
    drawn = _stacked(lines) if stacked else [(line, [(at, 0.0, value) for at, value in line.points]) for line in lines]
    highest = max((value for _, band in drawn for _, _, value in band), default=0)
    top, every = _nice(highest if at_most is None else min(highest, at_most), unit)

    def x(at: float) -> float:
        return LEFT + (at - start) / (end - start) * (width - LEFT - RIGHT)

    def y(value: float) -> float:
        return TOP + plot_height * (1 - min(value, top) / top)

    marks = [(y(n * every), with_unit(n * every, unit)) for n in range(round(top / every) + 1)]
    parts = [_axes(width, plot_height, start, end, marks)]
    for number, (_, band) in enumerate(drawn):
        colour = PALETTE[number % len(PALETTE)]
        for piece in _pieces(band, step):
            upper = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, _, value in piece)
            lower = " ".join(f"{x(at):.1f},{y(base):.1f}" for at, base, _ in reversed(piece))
            opacity = 0.55 if stacked else 0.08
            parts.append(f'<polygon points="{upper} {lower}" fill="{colour}" fill-opacity="{opacity}"/>')
            parts.append(f'<polyline points="{upper}" fill="none" stroke="{colour}" stroke-width="1.4"/>')
    parts.append(_legend(legend, len(lines), unit, width, height))
    return _svg(parts, width, height)


def heatmap(buckets: Sequence[Line], unit: str, width: int, height: int, start: float, end: float, step: float) -> str:
    """*buckets* are cumulative, each named by its upper bound."""
    bounds = sorted(buckets, key=lambda line: float(line.name))
    below: dict[float, float] = {}
    cells: list[tuple[int, float, float]] = []
    for number, bound in enumerate(bounds):
        for at, value in bound.points:
            cells.append((number, at, value - below.get(at, 0)))
            below[at] = value
    full = [cell for cell in cells if cell[2] > 1e-6]
    if not full:
        return nothing(width, height)
    lowest, highest = min(cell[0] for cell in full), max(cell[0] for cell in full)
    plot_height, most = height - BOTTOM - TOP, max(cell[2] for cell in full)
    cell_width = (width - LEFT - RIGHT) / max(1, round((end - start) / step))
    cell_height = plot_height / (highest - lowest + 1)

    def y(number: int) -> float:
        return TOP + plot_height - (number - lowest + 1) * cell_height

    each = math.ceil((highest - lowest + 1) / 8)
    marks = [(y(n), _bound(bounds[n].name, unit)) for n in range(lowest, highest + 1) if (n - lowest) % each == 0]
    parts = [_axes(width, plot_height, start, end, marks)]
    for number, at, value in full:
        left = LEFT + (at - start) / (end - start) * (width - LEFT - RIGHT) - cell_width
        if left >= LEFT - cell_width / 2:
            colour = _heat(math.sqrt(value / most))
            parts.append(_box(left, y(number), cell_width - (cell_width > 6), cell_height - 1, colour))
    return _svg(parts, width, height)


def single(lines: Sequence[Line], unit: str, colour: Callable[[float], str], width: int, height: int, idle: str) -> str:
    """The newest value of each line, over its course."""
    if not lines:
        return _svg([_text(width / 2, height / 2 + 8, idle, "middle", size=26, colour=FAINT)], width, height)
    parts, column = [], width / len(lines)
    for number, line in enumerate(lines):
        left, newest = number * column, line.points[-1][1]
        ink = colour(newest)
        parts.append(_text(left + column / 2, 18, line.name, "middle"))
        words = with_unit(newest, unit)
        size = min(30 if len(lines) == 1 else 17, round(column / (0.65 * len(words))))
        parts.append(_text(left + column / 2, height * 0.44 + 8, words, "middle", size, ink))
        parts.append(_spark(line.points, ink, left, column - 4, height))
    return _svg(parts, width, height)


def _spark(points: Points, ink: str, left: float, width: float, height: float) -> str:
    top = max(value for _, value in points) or 1
    first, length = points[0][0], points[-1][0] - points[0][0] or 1
    over = [(left + (at - first) / length * width, height - 2 - value / top * height * 0.3) for at, value in points]
    outline = " ".join(f"{x:.1f},{y:.1f}" for x, y in over)
    return (
        f'<polygon points="{outline} {over[-1][0]:.1f},{height} {over[0][0]:.1f},{height}" fill="{ink}"'
        f' fill-opacity="0.2"/><polyline points="{outline}" fill="none" stroke="{ink}" stroke-width="1.2"/>'
    )


def bars(lines: Sequence[Line], unit: str, width: int, height: int) -> str:
    ordered = sorted(lines, key=lambda line: -line.points[-1][1])
    if not ordered:
        return nothing(width, height)
    pitch, left = min(30, (height - 10) / len(ordered)), width * 0.42
    longest, parts = (width - left - 80) / (ordered[0].points[-1][1] or 1), []
    for number, line in enumerate(ordered):
        value, y = line.points[-1][1], 6 + number * pitch
        parts.append(_text(left - 8, y + pitch / 2 + 1, line.name, "end"))
        parts.append(_box(left, y, max(1, value * longest), pitch - 6, COLOURS["orange"]))
        label = with_unit(value, unit)
        parts.append(_text(left + value * longest + 6, y + pitch / 2 + 1, label, colour=COLOURS["orange"]))
    return _svg(parts, width, height)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], linked: Sequence[str]) -> str:
    def cell(column: str, words: str) -> str:
        return f'<td class="{"link" if column in linked else ""}">{html.escape(words)}</td>'

    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(cell(column, words) for column, words in zip(columns, row))}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def nothing(width: int, height: int, said: str = "No data") -> str:
    return _svg([_text(width / 2, height / 2, said, "middle", size=16, colour=FAINT)], width, height)


def _svg(parts: Sequence[str], width: int, height: int) -> str:
    return f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}">{"".join(parts)}</svg>'


def _text(x: float, y: float, words: str, anchor: str = "start", size: int = 12, colour: str = TEXT) -> str:
    at = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {at} font-size="{size}" fill="{colour}">{html.escape(words)}</text>'


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    at = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {at} fill="{colour}" shape-rendering="crispEdges"/>'


def _axes(width: int, plot_height: float, start: float, end: float, marks: Sequence[tuple[float, str]]) -> str:
    parts = []
    for y, label in marks:
        parts.append(f'<line x1="{LEFT}" x2="{width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>')
        parts.append(_text(LEFT - 6, y + 4, label, "end", size=11, colour=FAINT))
    minutes = round((end - start) / 60)
    for minute in range(0, minutes, max(1, math.ceil(minutes / 8))):
        x = LEFT + minute * 60 / (end - start) * (width - LEFT - RIGHT)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{TOP + plot_height:.1f}" stroke="{GRID}"/>')
        parts.append(_text(x, TOP + plot_height + 14, f"{minute} min", "middle", size=11, colour=FAINT))
    return "".join(parts)


def _legend(lines: Sequence[Line], number: int, unit: str, width: int, height: int) -> str:
    """As a table, mean and maximum; what does not fit is scrolled to."""
    y = height - LEGEND_LINE * (len(lines) + 1) + 10
    right = {"Mean": width - 110, "Max": width - 12}
    parts = [_text(x, y, word, "end", size=11, colour=LINK) for word, x in right.items()]
    if number > len(lines):
        parts.append(_text(8, y, f"{number - len(lines)} more", size=11, colour=FAINT))
    for row, line in enumerate(lines):
        y += LEGEND_LINE
        parts.append(_box(8, y - 6, 14, 4, PALETTE[row % len(PALETTE)]))
        parts.append(_text(28, y, line.name))
        parts.append(_text(right["Mean"], y, with_unit(line.mean, unit), "end"))
        parts.append(_text(right["Max"], y, with_unit(max(value for _, value in line.points), unit), "end"))
    return "".join(parts)


def _stacked(lines: Sequence[Line]) -> list[tuple[Line, list[tuple[float, float, float]]]]:
    under: dict[float, float] = {}
    bands = []
    for line in lines:
        band = []
        for at, value in line.points:
            base = under.get(at, 0.0)
            band.append((at, base, base + value))
            under[at] = base + value
        bands.append((line, band))
    return bands


def _pieces(band: Sequence[tuple[float, float, float]], step: float) -> list[list[tuple[float, float, float]]]:
    """Where there is no value, there is no line."""
    pieces: list[list[tuple[float, float, float]]] = []
    for point in band:
        if not pieces or point[0] - pieces[-1][-1][0] > 1.5 * step:
            pieces.append([])
        pieces[-1].append(point)
    return pieces


def _nice(highest: float, unit: str) -> tuple[float, float]:
    """The top of an axis from 0, and the distance between its marks."""
    if highest <= 0:
        return 1, 0.5
    rough, scale = highest / 4, 1
    if unit in ("bytes", "binBps") and highest >= 1:
        scale = 1024 ** int(math.log(highest, 1024))
    power = scale * 10 ** math.floor(math.log10(rough / scale))
    every = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    return every * math.ceil(highest / every - 1e-9), every


def _bound(name: str, unit: str) -> str:
    return "+Inf" if math.isinf(float(name)) else with_unit(float(name), unit)


def _heat(share: float) -> str:
    """From nearly nothing to bright orange, on dark."""
    dark, bright = (52, 30, 16), (255, 190, 110)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(dark, bright))
