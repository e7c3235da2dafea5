# SPDX-License-Identifier: Apache-2.0
"""A log2 histogram as inline SVG: bars, a scale, and the same in words for who does not see it.

Horizontal positions are in percent and sizes of text in pixels, so that a narrow screen squeezes bars and not letters.
Colours are classes, because the page's policy forbids style attributes.
Which histograms are drawn does not belong here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from hmm_exporter.report.snapshot import Distribution
from hmm_exporter.report.units import Unit
from hmm_exporter.web.page.figures import percent, written
from hmm_exporter.web.page.markup import Html, element

_LEFT = 10.0
"""Percent of the width, for the vertical scale."""
_TOP, _HEIGHT, _SCALE = 8, 56, 18
"""Pixels: above the plot, the plot, the horizontal scale below."""
_FEWEST_SLOTS = 8
_STEPS = (1, 2, 4, 5)
"""Of powers of two: from one label of the horizontal scale to the next."""
_MOST_LABELS = 6
_FULL = (0.1, 0.2, 0.25, 0.5, 0.75, 1.0)
"""Where the vertical scale may end, as a share of the events."""


def slots_shown(distributions: Sequence[Distribution]) -> range:
    """From the first bucket that any of them hit to the last one, and a few more where that is a few."""
    hit = [at for each in distributions for at, count in enumerate(each.counts) if count]
    most = len(distributions[0].counts)
    first, end = min(hit), max(hit) + 1
    missing = max(0, _FEWEST_SLOTS - (end - first))
    first = max(0, min(first - missing // 2, most - _FEWEST_SLOTS))
    return range(first, max(end, min(first + _FEWEST_SLOTS, most)))


def svg(whole: Distribution, new: Distribution | None, slots: range, unit: Unit, time: str) -> Html:
    """Wide bars for *whole*, narrow ones in front of them for *new*, each by its share of its own events.

    *new* was counted in *time*; None where that is not known, or nothing.
    """
    shares = [each.counts[at] / each.count for each in (whole, new) if each for at in slots]
    full = next(full for full in _FULL if max(shares) <= full)
    return element(
        "svg",
        *_vertical_scale(full),
        *(_bars(whole, new, at, slots, full, unit, time) for at in slots),
        *_horizontal_scale(whole.bounds, slots, unit),
        class_="histogram",
        width="100%",
        height=_TOP + _HEIGHT + _SCALE,
        role="img",
        aria_label=in_words(whole, unit),
    )


def in_words(its: Distribution, unit: Unit) -> str:
    """``1,234 events, mean 31.2 µs, half up to 32 µs, 99 % up to 1 ms``"""
    events = "event" if its.count == 1 else "events"
    mean = written(its.sum / its.count, unit)
    half, most = (quantile(its, share, unit) for share in (0.5, 0.99))
    return f"{written(its.count, Unit.count)} {events}, mean {mean}, half {half}, 99 % {most}"


def quantile(its: Distribution, share: float, unit: Unit) -> str:
    """The bucket where it lies is all that is known: its upper bound."""
    below = itertools.accumulate(its.counts)
    bound = next(bound for bound, count in zip(its.bounds, below) if count >= share * its.count)
    return f"up to {_written(bound, unit)}" if bound != "+Inf" else f"above {_written(its.bounds[-2], unit)}"


def bucket(bounds: Sequence[str], at: int, unit: Unit) -> str:
    """``above 16 µs, up to 32 µs``"""
    above = f"above {_written(bounds[at - 1], unit)}" if at else ""
    up_to = f"up to {_written(bounds[at], unit)}" if bounds[at] != "+Inf" else ""
    return ", ".join(filter(None, (above, up_to)))


def _bars(
    whole: Distribution, new: Distribution | None, at: int, slots: range, full: float, unit: Unit, time: str
) -> Html:
    words = [bucket(whole.bounds, at, unit) + ":", _counted(whole, at), "in all"]
    bars = [_bar(whole, at, slots, full, "whole", 0.92)]
    if new:
        words[-1] += ";"
        words += [_counted(new, at), f"in {time}"]
        bars.append(_bar(new, at, slots, full, "new", 0.46))
    if not any(bars):
        return Html()
    return element("g", element("title", " ".join(words)), *bars)


def _counted(its: Distribution, at: int) -> str:
    return f"{written(its.counts[at], Unit.count)} ({percent(its.counts[at] / its.count)})"


def _bar(its: Distribution, at: int, slots: range, full: float, class_: str, breadth: float) -> Html:
    share = its.counts[at] / its.count
    if not share:
        return Html()
    # What was hit is seen, however little it is beside the rest.
    height = max(1.0, share / full * _HEIGHT)
    left = _x(at - slots.start + (1 - breadth) / 2, slots)
    width = breadth * (100 - _LEFT) / len(slots)
    return element(
        "rect",
        class_=class_,
        x=f"{left:.3f}%",
        y=round(_TOP + _HEIGHT - height, 2),
        width=f"{width:.3f}%",
        height=round(height, 2),
    )


def _vertical_scale(full: float) -> Iterator[Html]:
    for share in (full, full / 2, 0):
        y = _TOP + _HEIGHT * (1 - share / full)
        yield element("line", class_="grid", x1=f"{_LEFT:g}%", x2="100%", y1=y, y2=y)
        if share != full / 2:
            label = percent(share) if share else "0"
            yield element("text", label, x=f"{_LEFT - 1.5:g}%", y=y + 3.5, text_anchor="end")


def _horizontal_scale(bounds: Sequence[str], slots: range, unit: Unit) -> Iterator[Html]:
    """A bucket's upper bound stands below its right edge."""
    edges = [at for at in range(slots.start - 1, slots.stop) if at >= 0 and bounds[at] != "+Inf"]
    step = next((each for each in _STEPS if len(edges) / each <= _MOST_LABELS), _STEPS[-1])
    for at in edges:
        x = _x(at + 1 - slots.start, slots)
        marked = _exponent(bounds[at]) % step == 0
        bottom = _TOP + _HEIGHT
        yield element(
            "line", class_="tick", x1=f"{x:.3f}%", x2=f"{x:.3f}%", y1=bottom, y2=bottom + (4 if marked else 2)
        )
        if marked:
            anchor = "end" if x > 97 else "middle"
            yield element("text", _written(bounds[at], unit), x=f"{x:.3f}%", y=bottom + 15, text_anchor=anchor)


def _x(slots_in: float, slots: range) -> float:
    return _LEFT + slots_in * (100 - _LEFT) / len(slots)


def _exponent(bound: str) -> int:
    return round(math.log2(float(bound)))


def _written(bound: str, unit: Unit) -> str:
    return written(float(bound), unit)
