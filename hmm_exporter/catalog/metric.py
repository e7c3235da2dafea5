# SPDX-License-Identifier: Apache-2.0
"""What a declaration of a metric says: its type, labels, and the table columns it is made of.

The words only. The metrics themselves are declared in this package by subject, and put together
in ``catalog.metrics``; what is done with a declaration is ``metrics.selection``'s work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from hmm_exporter.catalog.tables import Table

RANGE_PROBES = ("hmm_range_fault", "hmm_range_fault_unlocked_timeout")
INSERT_PROBES = ("mmu_interval_notifier_insert", "mmu_interval_notifier_insert_locked")


class Type(Enum):
    COUNTER = "counter"
    HISTOGRAM = "histogram"


class Scale(Enum):
    """What a column's number is divided by to give the metric's base unit."""

    one = 1
    nanoseconds = 1_000_000_000


@dataclass(frozen=True)
class Source:
    """A column of a table: rows where the key fields have these values, with these labels added.

    ``sum`` is the column that holds a histogram's sum. ``probes`` must all be attached, or with
    ``any_probe`` one of them. ``errnos`` are the errors that the function can return: their series
    exist at 0.
    """

    table: Table
    column: str
    probes: tuple[str, ...]
    where: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    sum: str = ""
    errnos: tuple[str, ...] = ()
    any_probe: bool = False
    option: str = ""
    """The configuration's option without which nobody fills the column."""


@dataclass(frozen=True)
class Metric:
    """``labels`` maps a label to the key field that it is the name of."""

    name: str
    type: Type
    help: str
    labels: Mapping[str, str]
    sources: tuple[Source, ...]
    scale: Scale = Scale.one
    per_process: bool = False
    """Process tier: a series appears when its event occurs, and not at 0."""


def counter(
    name: str,
    help: str,
    labels: Mapping[str, str],
    *sources: Source,
    scale: Scale = Scale.one,
    per_process: bool = False,
) -> Metric:
    return Metric(name, Type.COUNTER, help, labels, sources, scale, per_process)


def histogram(name: str, help: str, labels: Mapping[str, str], *sources: Source, scale: Scale = Scale.one) -> Metric:
    return Metric(name, Type.HISTOGRAM, help, labels, sources, scale)
