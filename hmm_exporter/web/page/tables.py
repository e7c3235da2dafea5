# SPDX-License-Identifier: Apache-2.0
"""Tables of figures: a row for each combination of labels, the largest of one column first, a bar beside each figure.

Which tables there are is ``who``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hmm_exporter.report.snapshot import Number
from hmm_exporter.web.page.figures import NONE, Figures, percent, written
from hmm_exporter.web.page.markup import Html, element, joined
from hmm_exporter.web.page.measures import Labels, Share, Sum

MOST_ROWS = 10


@dataclass(frozen=True)
class Table:
    """``share``: a column of percents that comes first, if there is one."""

    heading: str
    by: tuple[str, ...]
    sums: Sequence[Sum]
    name: Callable[[Labels], Html]
    """What a row is called."""
    nothing: str
    """What to say while there is no row."""
    share: Share | None = None
    class_: str = ""


def html(its: Table, figures: Figures, order: Sum, address: Callable[[Sum], str] | None = None) -> Html:
    """``order``: the column to sort by, if it is there; *address* is the page's with that order."""
    columns = [column for column in its.sums if column.watched(figures.total)]
    totals = [column.of(figures.total, its.by) for column in columns]
    rows = {labels for sums in totals for labels in sums}
    if not rows:
        return element("p", its.nothing if columns else f"{its.heading}: not watched.", class_="soft")
    news = [column.of(figures.new, its.by) for column in columns]
    at = columns.index(order) if order in columns else 0

    def rank(labels: Labels) -> tuple[Number, Number, Labels]:
        return -news[at].get(labels, 0), -totals[at].get(labels, 0), labels

    shown = sorted(rows, key=rank)[:MOST_ROWS]
    most = [max(new.get(labels, 0) for labels in shown) for new in news]
    share = its.share if its.share and its.share.watched(figures.total) else None
    shares = share.values(figures.new, its.by) if share else {}
    alarms = share.alarms(figures) if share else {}
    headings = [element("th", its.heading, scope="col")]
    headings += [_heading(share.title, share.help)] if share else []
    headings += [
        _link(column, address(column), column is columns[at]) if address else _heading(column.title, column.help)
        for column in columns
    ]
    body = []
    for labels in shown:
        cells = [_cell(share.title, percent(shares[labels]) if labels in shares else NONE)] if share else []
        for column, total, new, largest in zip(columns, totals, news, most):
            cells.append(_amount(column, total.get(labels, 0), new.get(labels, 0), largest, figures))
        row_class = "alarming" if labels in alarms else None
        body.append(element("tr", element("th", its.name(labels), scope="row"), *cells, class_=row_class))
    left_out = len(rows) - len(shown)
    return joined(
        element(
            "table",
            element("thead", element("tr", *headings), class_="sorts" if address else None),
            element("tbody", *body),
            class_=f"figures {its.class_}",
        ),
        element("p", f"and {left_out} more", class_="soft") if left_out else Html(),
    )


def _heading(text: str, help: str) -> Html:
    return element("th", text, scope="col", class_="figure", title=help)


def _link(column: Sum, address: str, chosen: bool) -> Html:
    link = element("a", column.title, href=address, aria_current="true" if chosen else None)
    return element("th", link, scope="col", class_="figure", title=column.help)


def _amount(column: Sum, total: Number, new: Number, largest: Number, figures: Figures) -> Html:
    """The figure, what it is in all, and how much that is beside the other rows'."""
    if not total:
        return element("td", NONE, class_="figure soft", data_label=column.title)
    in_all = element("small", written(total, column.unit)) if figures.seconds else Html()
    width = f"{100 * new / largest if largest else 0:.1f}%"
    bar = element("svg", element("rect", width=width, height="3"), class_="bar", aria_hidden="true")
    return _cell(column.title, figures.rate(new, column.unit), in_all, bar)


def _cell(heading: str, *children: str) -> Html:
    return element("td", *children, class_="figure", data_label=heading)
