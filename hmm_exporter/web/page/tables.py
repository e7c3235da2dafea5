# SPDX-License-Identifier: Apache-2.0
"""Who: the processes that migrate, thrash and wait, the drivers that meet EBUSY, and from where they called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from hmm_exporter.catalog.metrics import METRICS
from hmm_exporter.catalog.values import WORKLOAD_LABELS, Direction
from hmm_exporter.report.snapshot import Number, Snapshot
from hmm_exporter.report.units import Unit
from hmm_exporter.web.page.figures import NONE, Figures, percent, written
from hmm_exporter.web.page.markup import Html, element, joined, name
from hmm_exporter.web.page.summary import EBUSY, Sum, ebusy

_HELP = {metric.name: metric.help for metric in METRICS}
_MOST_ROWS = 10
_EBUSY_CALLERS = Sum("hmm_range_fault_ebusy_callers_total")
_LOCK_DROPPED = Sum("hmm_range_fault_ebusy_total", {"reason": ("lock_dropped",)})

Labels = tuple[str, ...]
Sums = Mapping[Labels, Number]


@dataclass(frozen=True)
class Column:
    key: str
    """In the query of the page's address, to sort by it."""
    heading: str
    what: Sum
    unit: Unit = Unit.count


COLUMNS = (
    Column("migrations", "Migrations", Sum("hmm_process_migrations_total")),
    Column(
        "moved",
        "To devices",
        Sum(
            "hmm_process_moved_bytes_total",
            {"direction": (Direction.host_to_device.name, Direction.device_to_device.name)},
        ),
        Unit.bytes,
    ),
    Column("thrash", "Thrash", Sum("hmm_process_returned_bytes_total"), Unit.bytes),
    Column("stall", "Stalled", Sum("hmm_process_fault_stall_seconds_total"), Unit.seconds),
    Column("faults", "Range faults", Sum("hmm_process_range_faults_total")),
)
ORDERS = {column.key: column for column in COLUMNS}


def processes(figures: Figures, order: str, query: Callable[..., str]) -> Html:
    """The first ones by the column *order*; *query* makes the address of the page with another one."""
    by = ("comm", *_workload_labels(figures.total))
    watched = [column for column in COLUMNS if figures.total.has(column.what.sample)]
    if not watched:
        return element("p", "No process is followed: nothing that tells them apart is attached.", class_="soft")
    totals = {column.key: column.what.of(figures.total, by) for column in watched}
    news = {column.key: column.what.of(figures.new, by) for column in watched}
    rows = {labels for sums in totals.values() for labels in sums}
    if not rows:
        return element("p", "No process has used HMM yet.", class_="soft")
    key = order if order in totals else watched[0].key

    def rank(labels: Labels) -> tuple[Number, Number, Labels]:
        return -news[key].get(labels, 0), -totals[key].get(labels, 0), labels

    shown = sorted(rows, key=rank)[:_MOST_ROWS]
    headings = [
        element(
            "th",
            element(
                "a", column.heading, href=query(top=column.key), aria_current="true" if column.key == key else None
            ),
            scope="col",
            class_="figure",
            title=f"{column.what.sample}: {_HELP[column.what.sample]}",
        )
        for column in watched
    ]
    body = [
        element(
            "tr",
            element("th", name(labels[0]), _workload(labels[1:]), scope="row"),
            *(_cell(column, labels, totals[column.key], news[column.key], shown, figures) for column in watched),
        )
        for labels in shown
    ]
    left_out = len(rows) - len(shown)
    return joined(
        _table([element("th", "Process", scope="col"), *headings], body, "processes"),
        element("p", f"and {left_out} more", class_="soft") if left_out else Html(),
    )


def drivers(figures: Figures) -> Html:
    """The EBUSY ratio of each driver, and why."""
    ratio = ebusy(figures.total)
    (walks,) = ratio.of
    if not figures.total.has(walks.sample):
        return element("p", "Range faults are not watched.", class_="soft")
    by = ("driver",)
    total, new = walks.of(figures.total, by), walks.of(figures.new, by)
    if not total:
        return element("p", "No driver has asked for a range yet.", class_="soft")
    columns = [("Walks" if ratio is EBUSY else "Calls", walks)]
    if ratio is EBUSY:
        reasons = ((text, Sum(EBUSY.what.sample, {"reason": (value,)})) for text, value in _REASONS)
        columns += [*reasons, ("Lock dropped", _LOCK_DROPPED)]
    busy = ratio.what.of(figures.new, by)
    rows = []
    for labels in sorted(total, key=lambda labels: (-new.get(labels, 0), -total[labels], labels))[:_MOST_ROWS]:
        share = percent(busy.get(labels, 0) / new[labels]) if new.get(labels) else NONE
        cells = [_figure(text, what.of(figures.new, by).get(labels, 0), Unit.count, figures) for text, what in columns]
        rows.append(
            element("tr", element("th", name(labels[0]), scope="row"), _td("EBUSY", element("b", share)), *cells)
        )
    headings = [
        _heading("Driver"),
        _heading("EBUSY", figure=True),
        *(_heading(text, figure=True) for text, _ in columns),
    ]
    return _table(headings, rows, "drivers")


_REASONS = (("Raced", "raced"), ("Own fault", "own_fault"))


def callers(figures: Figures) -> Html:
    """Who met EBUSY, from the kernel's stacks."""
    by = ("driver", "caller")
    total, new = _EBUSY_CALLERS.of(figures.total, by), _EBUSY_CALLERS.of(figures.new, by)
    if not total:
        return element("p", "Nobody met EBUSY yet.", class_="soft")
    ordered = sorted(total, key=lambda labels: (-new.get(labels, 0), -total[labels], labels))
    rows = [
        element(
            "tr",
            element("th", name(labels[1]), element("small", name(labels[0])), scope="row"),
            _cell(Column("", "EBUSY", _EBUSY_CALLERS), labels, total, new, ordered, figures),
        )
        for labels in ordered[:_MOST_ROWS]
    ]
    return _table([_heading("Caller"), _heading("EBUSY", figure=True)], rows, "callers")


def query_of(**chosen: str) -> str:
    """A relative address; what is empty is left out."""
    return "?" + urlencode({key: value for key, value in chosen.items() if value})


def _workload_labels(total: Snapshot) -> tuple[str, ...]:
    there = {
        label for column in COLUMNS for labels in total.counters.get(column.what.sample, ()) for label, _ in labels
    }
    return tuple(label for label in WORKLOAD_LABELS if label in there)


def _workload(values: Sequence[str]) -> Html:
    known = [part for value in values if value for part in (" / ", name(value))][1:]
    return element("small", *known) if known else Html()


def _cell(column: Column, labels: Labels, total: Sums, new: Sums, shown: Sequence[Labels], figures: Figures) -> Html:
    """The figure, what it is in all, and how much that is beside the other rows'."""
    most = max((new.get(each, 0) for each in shown), default=0)
    share = new.get(labels, 0) / most if most else 0
    bar = element("svg", element("rect", width=f"{100 * share:.1f}%", height="3"), class_="bar", aria_hidden="true")
    if not total.get(labels):
        return _td(column.heading, element("span", NONE, class_="soft"), bar)
    value = figures.rate(new.get(labels, 0), column.unit)
    in_all = element("small", written(total[labels], column.unit)) if figures.seconds else Html()
    return _td(column.heading, value, in_all, bar)


def _figure(heading: str, value: Number, unit: Unit, figures: Figures) -> Html:
    return _td(heading, figures.rate(value, unit))


def _td(heading: str, *children: str) -> Html:
    return element("td", *children, class_="figure", data_label=heading)


def _heading(text: str, figure: bool = False) -> Html:
    return element("th", text, scope="col", class_="figure" if figure else None)


def _table(headings: Sequence[Html], rows: Sequence[Html], class_: str) -> Html:
    return element(
        "table", element("thead", element("tr", *headings)), element("tbody", *rows), class_=f"figures {class_}"
    )
