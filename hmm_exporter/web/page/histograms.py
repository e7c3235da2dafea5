# SPDX-License-Identifier: Apache-2.0
"""The histograms: each one of the catalogue, split by what tells most, with the busiest first.

How one is drawn is ``histogram_svg``'s work.
"""

from __future__ import annotations

from hmm_exporter.catalog.metric import Metric, Type
from hmm_exporter.catalog.metrics import METRICS
from hmm_exporter.report.snapshot import Distribution
from hmm_exporter.report.units import Unit
from hmm_exporter.web.page.figures import Figures, written
from hmm_exporter.web.page.histogram_svg import quantile, slots_shown, svg
from hmm_exporter.web.page.markup import Html, element, joined, name

_SPLIT = ("phase", "class", "driver", "device", "event", "function")
"""The first one of these labels that a histogram has tells its drawings apart; over the others they are added up."""
_MOST = 4
"""Drawings of one histogram; a node can have 64 devices."""


def section(figures: Figures) -> Html:
    kept = figures.total.histograms
    there = [metric for metric in METRICS if metric.type is Type.HISTOGRAM and metric.name in kept]
    there.sort(key=lambda metric: _unit(metric) is not Unit.seconds)  # how long matters more than how much
    drawn = [metric for metric in there if figures.total.distributions(metric.name, ())]
    empty = [metric for metric in there if metric not in drawn]
    if not there:
        return element("p", "No histogram is kept: nothing that feeds one is attached.", class_="soft")
    nothing = joined("Nothing observed yet: ", ", ".join(map(_title, empty)), ".") if empty else Html()
    return joined(
        _legend(figures) if drawn else Html(),
        element("div", *(_card(metric, figures) for metric in drawn), class_="cards"),
        element("p", nothing, class_="soft") if empty else Html(),
    )


def _legend(figures: Figures) -> Html:
    keys = [element("span", class_="swatch whole"), "share of all events"]
    if figures.seconds:
        keys += [element("span", class_="swatch new"), f"of those in {figures.time}"]
    bounds = element("span", "a bucket reaches from the mark on its left, exclusive, to the one on its right")
    return element("p", *keys, " ", bounds, class_="legend")


def _card(metric: Metric, figures: Figures) -> Html:
    unit = _unit(metric)
    label = next(label for label in _SPLIT if label in metric.labels)
    whole = figures.total.distributions(metric.name, (label,))
    new = figures.new.distributions(metric.name, (label,)) if figures.seconds else {}
    ordered = sorted(whole, key=lambda key: (-(new[key].count if key in new else 0), -whole[key].count, key))
    shown = ordered[:_MOST]
    slots = slots_shown([whole[key] for key in shown])
    left_out = f"and {len(ordered) - _MOST} more by {label}" if len(ordered) > _MOST else ""
    return element(
        "section",
        element("h3", _title(metric), " ", element("small", f"by {label}")),
        element("p", metric.name, class_="metric", title=metric.help),
        *(_figure(key[0], whole[key], new.get(key), slots, unit, figures) for key in shown),
        element("p", left_out, class_="soft") if left_out else Html(),
        class_="card",
    )


def _figure(
    value: str, whole: Distribution, new: Distribution | None, slots: range, unit: Unit, figures: Figures
) -> Html:
    return element(
        "figure",
        element(
            "figcaption",
            element("b", name(value)),
            element(
                "div",
                element("p", *_said("in all", whole, unit)),
                element("p", *_said(figures.time, new, unit), class_="new") if new else Html(),
            ),
        ),
        svg(whole, new, slots, unit, figures.time),
    )


def _said(when: str, its: Distribution, unit: Unit) -> tuple[str, ...]:
    half, most = (
        quantile(its, share, unit).replace("up to ", "≤\xa0").replace("above ", ">\xa0") for share in (0.5, 0.99)
    )
    return (f"{when} ", element("i", written(its.count, Unit.count)), f": half {half}, 99\xa0% {most}")


def _title(metric: Metric) -> str:
    """``Migration duration``"""
    return metric.name.removeprefix("hmm_").removesuffix(f"_{_unit(metric).value}").replace("_", " ").capitalize()


def _unit(metric: Metric) -> Unit:
    """The base unit is the end of a metric's name."""
    return Unit(metric.name.rpartition("_")[2])
