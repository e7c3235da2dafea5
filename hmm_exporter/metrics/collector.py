# SPDX-License-Identifier: Apache-2.0
"""Rows of the tables, added up to Prometheus families as the catalogue says.

Nothing here knows what an event means. Rows that end up with equal labels are added up, because
two rows may have one name, and client_python would expose both. Such a sum must not go down when
one of its rows ends: Prometheus would take all of the rest for new.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family

from hmm_exporter.bpf.maps import Row
from hmm_exporter.catalog.metric import Metric, Type
from hmm_exporter.catalog.metrics import METRICS
from hmm_exporter.catalog.tables import Table
from hmm_exporter.catalog.values import HISTOGRAM_SLOTS
from hmm_exporter.metrics.beginnings import Beginnings
from hmm_exporter.metrics.labels import Names
from hmm_exporter.metrics.selection import LabelValues, Selected, select

Rows = Mapping[Table, Sequence[Row]]
Sums = dict[LabelValues, list[int]]


class Collector:
    """Families of all metrics of the catalogue that attached probes feed."""

    def __init__(
        self,
        attached: frozenset[str],
        names: Names,
        series_limit: int,
        metrics: Sequence[Metric] = METRICS,
        beginnings: Beginnings | None = None,
    ) -> None:
        """``attached``: names of probes, and of options that are on.

        ``series_limit``: series that there may be at all.
        """
        self._beginnings = beginnings or Beginnings(0)
        self._metrics = tuple(metrics)
        self._names = names
        self._most_series = series_limit
        self._selected: dict[str, Selected] = {}
        """Metrics that are fed, or were: those keep their counts, and the room for their series."""
        self._fed: frozenset[str] = frozenset()
        self._ended: dict[str, Sums] = {}
        self._booked_as: dict[tuple[str, LabelValues], LabelValues] = {}
        self.series = 0
        """Series in the latest collection."""
        self.watch(attached)

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables whose rows a collection needs."""
        return tuple(dict.fromkeys(s.table for selected in self._selected.values() for s in selected.selections))

    @property
    def series_limit(self) -> int:
        """Series beyond which new label sets are booked as `other`: what may yet appear as that must find room, too."""
        return self._most_series - sum(selected.series_held_back for selected in self._selected.values())

    def watch(self, attached: frozenset[str]) -> None:
        """Other probes are attached from now on, or other options on.

        A metric that nothing feeds any more is absent, not frozen; when it is fed again, it goes on from where it
        was. One that is fed in part keeps all that it had, so that no sum goes down.
        """
        known: dict[str, Selected] = {}
        fed = set()
        for metric in self._metrics:
            before = self._selected.get(metric.name)
            now = select(metric, attached, self._names, before.sources if before else ())
            if now:
                fed.add(metric.name)
            selected = now or before
            if selected:
                known[metric.name] = selected
        self._selected, self._fed = known, frozenset(fed)

    def limit(self, series: int) -> None:
        """So many series there may be from now on. Nothing moves: what is shown stays, what is `other` stays."""
        self._most_series = series

    def end(self, table: Table, row: Row) -> None:
        """That row has been removed. Its counts stay in label sets that it shared with rows that are still there."""
        for name, selected in self._selected.items():
            for selection in selected.selections:
                words = selection.words(row) if selection.table is table and selection.matches(row.key) else []
                if any(words):
                    booked = self._booked(name, selection.labels(row.key))
                    _add(self._ended.setdefault(name, {}), booked, words)

    def forget_ended(self, rows: Rows) -> None:
        """Let go of what has ended, but for label sets that these rows have: also when nobody scrapes.

        What the latest collection showed stays until the next one: begun anew in between, a series could have come
        as far as it was, and nobody would see that it began anew.
        """
        shown = {(name, booked) for (name, _), booked in self._booked_as.items()}
        for name, sums in self._ended.items():
            selected = self._selected[name]
            there = {self._booked(name, labels) for labels, _ in _labelled(selected, rows)}
            there |= {labels for labels in sums if (name, labels) in shown}
            self._ended[name] = _keep(selected, sums, there)

    def _booked(self, name: str, labels: LabelValues) -> LabelValues:
        return self._booked_as.get((name, labels), labels)

    def families(self, rows: Rows, now: float = 0.0) -> list[Family]:
        """One family a metric, in the catalogue's order. ``rows`` has every table of `tables`.

        ``now``: seconds of a clock that does not jump.
        """
        limit, taken = self.series_limit, 0
        sums: dict[str, Sums] = {name: {} for name in self._selected}
        booked_as: dict[tuple[str, LabelValues], LabelValues] = {}

        def book(name: str, labels: LabelValues, booked: LabelValues, words: list[int]) -> None:
            nonlocal taken
            booked_as[(name, labels)] = booked
            if booked not in sums[name]:
                taken += self._selected[name].series
            _add(sums[name], booked, words)

        new = []
        for name, selected in self._selected.items():
            for labels, words in _labelled(selected, rows):
                booked = self._booked_as.get((name, labels))
                if booked or labels == selected.as_other(labels):
                    book(name, labels, booked or labels, words)
                else:
                    new.append((name, labels, words))
        # What is new comes last: nothing that is there already shall lose its place to it. What it
        # is booked as is kept as long as it is there, so that nothing moves between series.
        for name, labels, words in new:
            selected = self._selected[name]
            known = booked_as.get((name, labels))
            fits = taken + selected.series <= limit
            book(name, labels, known or (labels if fits else selected.as_other(labels)), words)
        staying = self._beginnings.staying()
        for name, its in self._ended.items():
            # What ended before its label set was shown is where that is now.
            ended: Sums = {}
            for labels, words in its.items():
                _add(ended, booked_as.get((name, labels), labels), words)
            there = sums[name].keys() | {labels for labels in ended if (name, labels) in staying}
            self._ended[name] = _keep(self._selected[name], ended, there)
            for labels, words in self._ended[name].items():
                book(name, labels, labels, words)
        self._booked_as = booked_as
        shown = [self._selected[name] for name in self._selected if name in self._fed]
        self.series = sum(selected.series * len(sums[selected.metric.name]) for selected in shown)
        series = [(name, labels) for name, its in sums.items() for labels in its]
        for name, labels in self._beginnings.new(series, now):
            sums[name][labels] = [0] * self._selected[name].words
        return [_family(selected, sums[selected.metric.name]) for selected in shown]


def _keep(selected: Selected, ended: Sums, there: Container[LabelValues]) -> Sums:
    """Without what ended and is nobody's any more; `other` is always somebody's."""
    return {each: words for each, words in ended.items() if each in there or each == selected.as_other(each)}


def _add(sums: Sums, labels: LabelValues, words: list[int]) -> None:
    sums[labels] = [a + b for a, b in zip(sums[labels], words)] if labels in sums else words


def _labelled(selected: Selected, rows: Rows) -> Iterator[tuple[LabelValues, list[int]]]:
    """Label sets and what one row adds to them."""
    for labels in selected.zeros:
        yield labels, [0] * selected.words
    for selection in selected.selections:
        for row in rows[selection.table]:
            if selection.matches(row.key):
                words, values = selection.words(row), selection.labels(row.key)
                if any(words) or selected.shows_zero(selection, row.key, values):
                    yield values, words


def _family(selected: Selected, sums: Sums) -> Family:
    metric = selected.metric
    scale = metric.scale.value
    if metric.type is Type.COUNTER:
        counter = CounterMetricFamily(metric.name, metric.help, labels=tuple(metric.labels))
        for labels, words in sums.items():
            counter.add_metric(labels, words[0] / scale if scale > 1 else words[0])
        return counter
    histogram = HistogramMetricFamily(metric.name, metric.help, labels=tuple(metric.labels))
    bounds = selected.bounds
    for labels, words in sums.items():
        cumulative = itertools.accumulate(words[:HISTOGRAM_SLOTS])
        buckets = list(zip(bounds, cumulative))
        total = words[HISTOGRAM_SLOTS]
        histogram.add_metric(labels, buckets, total / scale if scale > 1 else total)
    return histogram
