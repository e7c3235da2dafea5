# SPDX-License-Identifier: Apache-2.0
"""What a declaration of a metric says: its type, labels, and the table columns it is made of.

The words only. The metrics themselves are declared in this package by subject, and put together
in ``catalog.metrics``; what is done with a declaration is ``metrics.selection``'s work.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from hmm_exporter.catalog.tables import Table

RANGE_PROBES = ("hmm_range_fault", "hmm_range_fault_unlocked_timeout")
NEEDS = ("pages", "devices", "range_attempts")
"""bpf_probe_read_kernel; the physical ranges of devices; a way to tell the attempts of hmm_range_fault."""
INSERT_PROBES = ("mmu_interval_notifier_insert", "mmu_interval_notifier_insert_locked")


class Type(Enum):
    COUNTER = "counter"
    HISTOGRAM = "histogram"


class Zeros(Enum):
    """Which label sets of a node-tier counter are shown before they have counted anything.

    A node with many devices has thousands that never will. Of histograms none is: each would be
    28 series of zeros.
    """

    every = 0
    without_device = 1
    """`other`, and what is booked when a migration begins: no row of a device ever counts it."""
    with_device = 2
    """`other`, and what is booked when it ends: seldom in a row without device."""
    other = 3
    """`other` alone, so that a sum over a node where nothing happened yet is 0."""
    never = 4


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
    element: int | None = None
    """Of an array's column."""
    options: tuple[str, ...] = ()
    """What has to be there beside the probes: an option of the configuration, or one of `NEEDS`."""


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
    zeros: Zeros = Zeros.every


def counter(
    name: str,
    help: str,
    labels: Mapping[str, str],
    *sources: Source,
    scale: Scale = Scale.one,
    per_process: bool = False,
    zeros: Zeros = Zeros.every,
) -> Metric:
    return Metric(name, Type.COUNTER, help, labels, sources, scale, per_process, zeros)


def histogram(
    name: str,
    help: str,
    labels: Mapping[str, str],
    *sources: Source,
    scale: Scale = Scale.one,
) -> Metric:
    return Metric(name, Type.HISTOGRAM, help, labels, sources, scale, zeros=Zeros.never)


def with_process_labels(metrics: Iterable[Metric], labels: Sequence[str]) -> tuple[Metric, ...]:
    """The same metrics; those of processes also by what stands behind the command name in its key field."""
    return tuple(
        replace(metric, labels={**dict.fromkeys(labels, "comm"), **metric.labels}) if metric.per_process else metric
        for metric in metrics
    )
