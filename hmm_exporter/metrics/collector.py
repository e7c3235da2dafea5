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
from hmm_exporter.metrics.labels import Names
from hmm_exporter.metrics.selection import LabelValues, Selected, select

Rows = Mapping[Table, Sequence[Row]]
Sums = dict[LabelValues, list[int]]


class Collector:
    """Families of all metrics of the catalogue that attached probes feed."""

    def __init__(
        self, attached: frozenset[str], names: Names, series_limit: int, metrics: Sequence[Metric] = METRICS
    ) -> None:
        """``attached``: names of probes, and of options that are on.

        ``series_limit``: series that there may be at all.
        """
        self._selected = [found for found in (select(metric, attached, names) for metric in metrics) if found]
        # What may yet appear as `other` must find room, too.
        self.series_limit = series_limit - sum(selected.series_held_back for selected in self._selected)
        """Series beyond which new label sets are booked as `other`."""
        self._ended: list[Sums] = [{} for _ in self._selected]
        self._booked_as: dict[tuple[str, LabelValues], LabelValues] = {}
        self.series = 0
        """Series in the latest collection."""

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables whose rows a collection needs."""
        return tuple(dict.fromkeys(s.table for selected in self._selected for s in selected.selections))

    def end(self, table: Table, row: Row) -> None:
        """That row has been removed. Its counts stay in label sets that it shared with rows that are still there."""
        for selected, sums in zip(self._selected, self._ended):
            for selection in selected.selections:
                words = selection.words(row) if selection.table is table and selection.matches(row.key) else []
                if any(words):
                    _add(sums, self._booked(selected, selection.labels(row.key)), words)

    def forget_ended(self, rows: Rows) -> None:
        """Let go of what has ended, but for label sets that these rows have: also when nobody scrapes."""
        for at, (selected, sums) in enumerate(zip(self._selected, self._ended)):
            if sums:
                there = {self._booked(selected, labels) for labels, _ in _labelled(selected, rows)}
                self._ended[at] = _keep(selected, sums, there)

    def _booked(self, selected: Selected, labels: LabelValues) -> LabelValues:
        return self._booked_as.get((selected.metric.name, labels), labels)

    def families(self, rows: Rows) -> list[Family]:
        """One family a metric, in the catalogue's order. ``rows`` has every table of `tables`."""
        self.series = 0
        sums: list[Sums] = [{} for _ in self._selected]
        booked_as: dict[tuple[str, LabelValues], LabelValues] = {}

        def book(at: int, labels: LabelValues, booked: LabelValues, words: list[int]) -> None:
            selected, mine = self._selected[at], sums[at]
            booked_as[(selected.metric.name, labels)] = booked
            if booked not in mine:
                self.series += selected.series
            _add(mine, booked, words)

        new = []
        for at, selected in enumerate(self._selected):
            for labels, words in _labelled(selected, rows):
                booked = self._booked_as.get((selected.metric.name, labels))
                if booked or labels == selected.as_other(labels):
                    book(at, labels, booked or labels, words)
                else:
                    new.append((at, labels, words))
        # What is new comes last: nothing that is there already shall lose its place to it. What it
        # is booked as is kept as long as it is there, so that nothing moves between series.
        for at, labels, words in new:
            selected = self._selected[at]
            known = booked_as.get((selected.metric.name, labels))
            fits = self.series + selected.series <= self.series_limit
            book(at, labels, known or (labels if fits else selected.as_other(labels)), words)
        for at, selected in enumerate(self._selected):
            # What ended before its label set was shown is where that is now.
            ended: Sums = {}
            for labels, words in self._ended[at].items():
                _add(ended, booked_as.get((selected.metric.name, labels), labels), words)
            self._ended[at] = _keep(selected, ended, sums[at])
            for labels, words in self._ended[at].items():
                book(at, labels, labels, words)
        self._booked_as = booked_as
        return [_family(selected, mine) for selected, mine in zip(self._selected, sums)]


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
