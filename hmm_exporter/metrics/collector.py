# SPDX-License-Identifier: Apache-2.0
"""Rows of the tables, added up to Prometheus families as the catalogue says.

Nothing here knows what an event means. Rows that end up with equal labels are added up, because
two rows may have one name, and client_python would expose both.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family

from hmm_exporter.bpf.maps import Row
from hmm_exporter.catalog.metrics import METRICS, Type
from hmm_exporter.catalog.tables import HISTOGRAM_SLOTS, Table
from hmm_exporter.metrics.labels import Names
from hmm_exporter.metrics.selection import LabelValues, Selected, select

Rows = Mapping[Table, Sequence[Row]]


class Collector:
    """Families of all metrics of the catalogue that attached probes feed."""

    def __init__(self, attached: frozenset[str], names: Names, series_limit: int) -> None:
        """``attached``: names of probes. ``series_limit``: label sets beyond it are booked as `other`."""
        self._selected = [found for found in (select(metric, attached, names) for metric in METRICS) if found]
        self._series_limit = series_limit
        self._booked_as: dict[tuple[str, LabelValues], LabelValues] = {}
        self.series = 0
        """Series in the latest collection."""

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables whose rows a collection needs."""
        return tuple(dict.fromkeys(s.table for selected in self._selected for s in selected.selections))

    def families(self, rows: Rows) -> Iterator[Family]:
        """One family a metric, in the catalogue's order. ``rows`` has every table of `tables`."""
        self.series = 0
        booked_as: dict[tuple[str, LabelValues], LabelValues] = {}
        for selected in self._selected:
            yield _family(selected, self._sums(selected, rows, booked_as))
        # Label sets that were not seen this time have ended.
        self._booked_as = booked_as

    def _sums(
        self, selected: Selected, rows: Rows, booked_as: dict[tuple[str, LabelValues], LabelValues]
    ) -> Mapping[LabelValues, list[int]]:
        sums: dict[LabelValues, list[int]] = {}

        def book(labels: LabelValues, words: list[int]) -> None:
            key = (selected.metric.name, labels)
            booked = booked_as.get(key) or self._booked_as.get(key) or self._book_as(selected, labels)
            booked_as[key] = booked
            if booked not in sums:
                sums[booked] = words
                self.series += selected.series
            else:
                sums[booked] = [a + b for a, b in zip(sums[booked], words)]

        for labels in selected.zeros:
            book(labels, [0] * selected.words)
        for selection in selected.selections:
            for row in rows[selection.table]:
                if selection.matches(row.key):
                    words = selection.words(row)
                    if any(words) or not selected.metric.per_process:
                        book(selection.labels(row.key), words)
        return sums

    def _book_as(self, selected: Selected, labels: LabelValues) -> LabelValues:
        """What a label set is booked as from now on: itself, or, over the limit, `other`.

        Decided when it is first seen and kept as long as it is there: nothing moves between series.
        """
        if self.series + selected.series <= self._series_limit:
            return labels
        return selected.as_other(labels)


def _family(selected: Selected, sums: Mapping[LabelValues, list[int]]) -> Family:
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
