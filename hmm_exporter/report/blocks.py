# SPDX-License-Identifier: Apache-2.0
"""What a part of a report can be: the words that ``report.sections`` is written in.

Figures are named as samples of the metrics are. How a block looks is ``report.text``'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hmm_exporter.report.units import Unit


@dataclass(frozen=True)
class Column:
    """A figure of each row: the sum of a sample over all that has the row's labels, and these."""

    heading: str
    sample: str
    unit: Unit = Unit.count
    where: Mapping[str, str] = field(default_factory=dict)
    per: str = ""
    """Another sample, by which it is divided: a mean."""


@dataclass(frozen=True)
class Table:
    """A row for each combination of the labels ``by`` that has counted something, largest first."""

    title: str
    by: tuple[str, ...]
    columns: tuple[Column, ...]
    top: int = 0
    """Only so many rows, and how many there are beside them."""


@dataclass(frozen=True)
class Drawing:
    """A histogram for each combination of the labels ``by``. ``of``: what one event is."""

    title: str
    histogram: str
    by: tuple[str, ...]
    unit: Unit
    of: str


@dataclass(frozen=True)
class StackList:
    """The stacks that met EBUSY."""

    title: str
    top: int


Block = Table | Drawing | StackList


@dataclass(frozen=True)
class Section:
    title: str
    blocks: tuple[Block, ...]
    note: str = ""
    """What a reader has to know of it."""
