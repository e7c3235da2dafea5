# SPDX-License-Identifier: Apache-2.0
"""How a metric of the catalogue picks rows of a table, and names their label sets.

Resolved once, when it is known which probes are attached: positions instead of names, a function
for each label. Adding up belongs to ``metrics.collector``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from hmm_exporter.bpf.maps import KeyValues, Row
from hmm_exporter.catalog.metric import Metric, Source, Type, Zeros
from hmm_exporter.catalog.tables import Key, Table
from hmm_exporter.catalog.values import DEVICE_NONE, HISTOGRAM_SLOTS, USUAL_TRIGGER, WORKLOAD_LABELS
from hmm_exporter.metrics import labels
from hmm_exporter.metrics.labels import OTHER, Names

LabelValues = tuple[str, ...]
_Namer = Callable[[KeyValues], str]

OPEN_LABELS = frozenset({"pgmap_owner", "device", "driver", "pid", "comm", "caller", *WORKLOAD_LABELS})
"""Labels whose values nobody knows beforehand."""


@dataclass(frozen=True)
class Selection:
    """One source of a metric, with everything looked up."""

    table: Table
    where: tuple[tuple[int, int], ...]
    """(position in the key, value it must have)"""
    namers: tuple[_Namer, ...]
    columns: tuple[slice, ...]
    """Where the words lie in a row: the column, then a histogram's sum."""
    device: int | None
    """Position of the device in the key, if there is one."""

    def matches(self, key: KeyValues) -> bool:
        return all(key[at] == value for at, value in self.where)

    def labels(self, key: KeyValues) -> LabelValues:
        return tuple(namer(key) for namer in self.namers)

    def words(self, row: Row) -> list[int]:
        return [word for column in self.columns for word in row.words[column]]

    def has_device(self, key: KeyValues) -> bool:
        return self.device is not None and key[self.device] != DEVICE_NONE


@dataclass(frozen=True)
class Selected:
    """A metric with the selections that attached probes feed."""

    metric: Metric
    sources: tuple[Source, ...]
    selections: tuple[Selection, ...]
    zeros: tuple[LabelValues, ...]
    """Label sets that exist before anything happened: each error that a function can return."""
    series_held_back: int
    """Series of `other` that are not there before they count something."""

    @property
    def words(self) -> int:
        """Words that a label set is summed in: a histogram's slots and its sum, or one."""
        return HISTOGRAM_SLOTS + 1 if self.metric.type is Type.HISTOGRAM else 1

    @property
    def series(self) -> int:
        return _series(self.metric)

    def shows_zero(self, selection: Selection, key: KeyValues, values: LabelValues) -> bool:
        """Whether the label set of that key is shown before it has counted anything."""
        zeros = self.metric.zeros
        if self.metric.per_process or zeros is Zeros.never or "" in values:
            return False
        if values == self.as_other(values):
            return _is_usual(self.metric, values)
        return zeros is Zeros.every or zeros is (
            Zeros.with_device if selection.has_device(key) else Zeros.without_device
        )

    def as_other(self, values: LabelValues) -> LabelValues:
        """The same label set with `other` for each open label that comes from the key."""
        return tuple(
            OTHER if field and label in OPEN_LABELS else value
            for (label, field), value in zip(self.metric.labels.items(), values)
        )

    @property
    def bounds(self) -> list[str]:
        """The histogram's ``le`` values."""
        source = self.metric.sources[0]
        value = next(value for value in source.table.values if value.name == source.column)
        assert value.histogram
        return [*(repr(bound) for bound in value.histogram.bounds), "+Inf"]


def select(metric: Metric, attached: frozenset[str], names: Names, once_fed: Sequence[Source] = ()) -> Selected | None:
    """None when no attached probe feeds the metric: then it is absent, not zero.

    ``attached``: names of probes, and of options that are on. ``once_fed``: sources that have counted before.
    """
    fed = [source for source in metric.sources if _is_fed(source, attached)]
    if not fed:
        return None
    sources = tuple(source for source in metric.sources if source in fed or source in once_fed)
    zeros = dict.fromkeys(itertools.chain.from_iterable(_zeros(metric, source) for source in sources))
    selections = tuple(_selection(metric, source, names) for source in sources)
    return Selected(metric, sources, selections, tuple(zeros), _held_back(metric, sources))


def _is_fed(source: Source, attached: frozenset[str]) -> bool:
    probes = (any if source.any_probe else all)(probe in attached for probe in source.probes)
    return probes and attached.issuperset(source.options)


def _selection(metric: Metric, source: Source, names: Names) -> Selection:
    namers = []
    for label, field in metric.labels.items():
        if label in source.labels:
            namers.append(_constant(source.labels[label]))
        else:
            namers.append(_namer(label, _position(source.table, field), source.table, names))
    column = _slice(source.table, source.column)
    if source.element is not None:
        column = slice(column.start + source.element, column.start + source.element + 1)
    columns = [column]
    if source.sum:
        columns.append(_slice(source.table, source.sum))
    where = tuple((_position(source.table, field), value) for field, value in source.where.items())
    device = next((at for at, key in enumerate(source.table.keys) if key.name == "device"), None)
    return Selection(source.table, where, tuple(namers), tuple(columns), device)


def _constant(text: str) -> _Namer:
    return lambda key: text


def _namer(label: str, at: int, table: Table, names: Names) -> _Namer:
    domain = table.keys[at].domain
    if domain:
        members = {member.value: member.name for member in domain}
        return lambda key: members[key[at]]  # type: ignore[index]
    by_label: Mapping[str, Callable[..., str]] = {
        "pgmap_owner": lambda address: names.owner(address).name,
        "device": names.device,
        "driver": names.driver,
        "caller": names.caller,
        "pid": labels.pid,
        "comm": labels.comm,
        "errno": labels.error,
        "fault": labels.fault,
        "order": labels.order,
        **{each: partial(names.workload, each) for each in WORKLOAD_LABELS},
    }
    name = by_label[label]
    return lambda key: name(key[at])


def _zeros(metric: Metric, source: Source) -> Iterator[LabelValues]:
    for error in source.errnos:
        yield from (values for values in _known(metric, source, error) if _is_usual(metric, values))


def _is_usual(metric: Metric, values: LabelValues) -> bool:
    """Whether what is of that class or direction mostly has that trigger; all else is usual, too."""
    its = dict(zip(metric.labels, values))
    of = its.get("class") or its.get("direction")
    return not of or "trigger" not in its or USUAL_TRIGGER[of].name == its["trigger"]


def _series(metric: Metric) -> int:
    """Series of one label set: a histogram's buckets, count and sum, or one."""
    return HISTOGRAM_SLOTS + 2 if metric.type is Type.HISTOGRAM else 1


def _held_back(metric: Metric, sources: Sequence[Source]) -> int:
    if metric.per_process:
        # No function has more errors than one has classes and a few: 16 is plenty for both.
        return 16 if set(metric.labels) - OPEN_LABELS else 1
    known = {values for source in sources for values in _known(metric, source, OTHER)}
    shown = {values for values in known if metric.zeros is not Zeros.never and _is_usual(metric, values)}
    return len(known - shown) * _series(metric)


def _known(metric: Metric, source: Source, error: str) -> Iterator[LabelValues]:
    """The label sets that are known beforehand, with `other` for each open label."""
    choices = [
        (error,) if label in ("errno", "fault") else _known_values(source, label, field)
        for label, field in metric.labels.items()
    ]
    return itertools.product(*choices)


def _known_values(source: Source, label: str, field: str) -> tuple[str, ...]:
    if label in source.labels:
        return (source.labels[label],)
    key: Key = source.table.keys[_position(source.table, field)]
    return tuple(member.name for member in key.domain) if key.domain else (OTHER,)


def _position(table: Table, field: str) -> int:
    return next(at for at, key in enumerate(table.keys) if key.name == field)


def _slice(table: Table, column: str) -> slice:
    start = 0
    for value in table.values:
        if value.name == column:
            return slice(start, start + value.words)
        start += value.words
    raise KeyError(f"{table.name} has no column {column}")
