# SPDX-License-Identifier: Apache-2.0
"""The few figures that come first: what thrashes, who waits, what is refused, how much moves."""

from __future__ import annotations

from hmm_exporter.web.page.figures import NONE, Figures, percent, written
from hmm_exporter.web.page.markup import Html, element
from hmm_exporter.web.page.measures import (
    BUSY,
    MOVED,
    MOVED_BACK,
    REFUSED,
    STALLED,
    STARTED,
    THRASH,
    Share,
    Sum,
    ebusy,
)


def section(figures: Figures) -> Html:
    shares = (THRASH, ebusy(figures.total), REFUSED, BUSY)
    sums = (STALLED, MOVED, MOVED_BACK, STARTED)
    return element("div", *(_tile(each, figures) for each in (*shares, *sums)), class_="tiles")


def _tile(its: Sum | Share, figures: Figures) -> Html:
    alarms: dict[tuple[str, ...], float] = {}
    if not its.watched(figures.total):
        value, note = NONE, "not watched"
    elif isinstance(its, Sum):
        value, note = _amount(its, figures)
    else:
        share = its.values(figures.new, ()).get(())
        value = NONE if share is None else percent(share)
        note = its.nothing if share is None else _note(its.what, figures)
        alarms = its.alarms(figures)
        if its.by and alarms:
            note = ", ".join(f"{labels[0]} {percent(each)}" for labels, each in sorted(alarms.items()))
    return element(
        "div",
        element("h3", its.title),
        element("p", value, class_="value"),
        element("p", note, class_="note"),
        class_="tile alarming" if alarms else "tile",
        title=its.help,
    )


def _note(what: Sum, figures: Figures) -> str:
    amount, note = _amount(what, figures)
    return f"{amount} · {note}" if what.total(figures.total) else note


def _amount(what: Sum, figures: Figures) -> tuple[str, str]:
    """A rate and what it is in all; where no time is known, what it is in all."""
    total = what.total(figures.total)
    if not total:
        return "0", "none so far"
    in_all = written(total, what.unit)
    if not figures.seconds:
        return in_all, "in all"
    return figures.rate(what.total(figures.new), what.unit), f"{in_all} in all"
