# SPDX-License-Identifier: Apache-2.0
"""Who: the processes that migrate, thrash and wait, the devices, the drivers that meet EBUSY, and from where."""

from __future__ import annotations

from urllib.parse import urlencode

from hmm_exporter.catalog.values import WORKLOAD_LABELS
from hmm_exporter.report.snapshot import Snapshot
from hmm_exporter.web.page import tables
from hmm_exporter.web.page.figures import Figures
from hmm_exporter.web.page.markup import Html, element, joined, name
from hmm_exporter.web.page.measures import (
    CALLS,
    EBUSY_CALLERS,
    LOCK_DROPPED,
    MOVED,
    MOVED_BACK,
    OWN_FAULT,
    PROCESS,
    RACED,
    RETURNED,
    THRASH,
    WALKS,
    Labels,
    Sum,
    ebusy,
)
from hmm_exporter.web.page.tables import Table


def section(figures: Figures, order: str, refresh: str) -> Html:
    """``order``: a word of `PROCESS`."""
    return element(
        "div",
        element(
            "section",
            element("h2", "Processes"),
            _processes(figures, order, refresh),
            element("h2", "Devices"),
            tables.html(_DEVICES, figures, MOVED),
        ),
        element(
            "section",
            element("h2", "EBUSY of hmm_range_fault"),
            _drivers(figures),
            element("h2", "Callers that met EBUSY"),
            tables.html(_CALLERS, figures, EBUSY_CALLERS),
        ),
        class_="who",
    )


def address(**chosen: str) -> str:
    """The page's, relative; what is empty is left out."""
    return "?" + urlencode({key: value for key, value in chosen.items() if value})


def _first(labels: Labels) -> Html:
    return name(labels[0])


def _process(labels: Labels) -> Html:
    known = [part for value in labels[1:] if value for part in (" / ", name(value))][1:]
    return joined(name(labels[0]), element("small", *known) if known else Html())


def _caller(labels: Labels) -> Html:
    return joined(name(labels[1]), element("small", name(labels[0])))


_DEVICES = Table(
    "Device", ("device",), (MOVED, MOVED_BACK, RETURNED), _first, "No memory has moved to a device yet.", THRASH
)
_CALLERS = Table("Caller", ("driver", "caller"), (EBUSY_CALLERS,), _caller, "Nobody has met EBUSY yet.")


def _processes(figures: Figures, order: str, refresh: str) -> Html:
    words = {column.sample: word for word, column in PROCESS.items()}
    by = ("comm", *_workload_labels(figures.total))
    its = Table("Process", by, tuple(PROCESS.values()), _process, "No process has used HMM yet.", class_="processes")

    def link(column: Sum) -> str:
        return address(top=words[column.sample], refresh=refresh)

    return tables.html(its, figures, PROCESS.get(order, PROCESS["migrations"]), link)


def _drivers(figures: Figures) -> Html:
    share = ebusy(figures.total)
    sums: tuple[Sum, ...] = (WALKS, RACED, OWN_FAULT) if WALKS in share.of else (CALLS,)
    if LOCK_DROPPED.total(figures.total):  # 7.3 and newer
        sums += (LOCK_DROPPED,)
    its = Table("Driver", ("driver",), sums, _first, "No driver has asked for a range yet.", share, "drivers")
    return tables.html(its, figures, sums[0])


def _workload_labels(total: Snapshot) -> tuple[str, ...]:
    there = {label for column in PROCESS.values() for its in total.counters.get(column.sample, ()) for label, _ in its}
    return tuple(label for label in WORKLOAD_LABELS if label in there)
