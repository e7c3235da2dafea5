# SPDX-License-Identifier: Apache-2.0
"""All figures at one moment, and sums over them. What is said of them is ``report.sections``'."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.metrics_core import Metric as Family

Labels = tuple[tuple[str, str], ...]
Number = int | float


@dataclass(frozen=True)
class Distribution:
    """A histogram of one label set: events in each bucket, not cumulative, and the sum of what was observed."""

    bounds: tuple[str, ...]
    """Upper, inclusive; the last one is ``+Inf``."""
    counts: tuple[int, ...]
    sum: Number

    @property
    def count(self) -> int:
        return sum(self.counts)

    def plus(self, other: Distribution) -> Distribution:
        counts = tuple(map(sum, zip(self.counts, other.counts)))
        return Distribution(self.bounds, counts, self.sum + other.sum)

    def since(self, earlier: Distribution | None) -> Distribution:
        """What was observed in between; a histogram that went back has begun anew."""
        if not earlier or any(count < before for count, before in zip(self.counts, earlier.counts)):
            return self
        counts = tuple(count - before for count, before in zip(self.counts, earlier.counts))
        return Distribution(self.bounds, counts, self.sum - earlier.sum)


@dataclass(frozen=True)
class Snapshot:
    """What metrics said, by name and label set, without what is 0.

    A metric that is there without values has counted nothing; one that is not there was not watched.
    """

    counters: Mapping[str, Mapping[Labels, Number]]
    """And gauges, and of histograms the ``_sum`` and ``_count``."""
    histograms: Mapping[str, Mapping[Labels, Distribution]]

    def has(self, name: str) -> bool:
        return name in self.counters

    def sums(self, name: str, by: tuple[str, ...] = (), **where: str) -> dict[tuple[str, ...], Number]:
        """Sums over all label sets with these values, by the values of ``by``."""
        found: dict[tuple[str, ...], Number] = {}
        for labels, value in self.counters.get(name, {}).items():
            its = dict(labels)
            if where.items() <= its.items():
                key = tuple(its.get(label, "") for label in by)
                found[key] = found.get(key, 0) + value
        return found

    def total(self, name: str, **where: str) -> Number:
        return self.sums(name, (), **where).get((), 0)

    def distributions(self, name: str, by: tuple[str, ...]) -> dict[tuple[str, ...], Distribution]:
        found: dict[tuple[str, ...], Distribution] = {}
        for labels, distribution in self.histograms.get(name, {}).items():
            key = tuple(dict(labels).get(label, "") for label in by)
            found[key] = found[key].plus(distribution) if key in found else distribution
        return found

    def since(self, earlier: Snapshot) -> Snapshot:
        """What was counted in between; a counter that went back has begun anew, as Prometheus takes it."""
        counters, histograms = {}, {}
        for name, values in self.counters.items():
            before = earlier.counters.get(name, {})
            grown = {labels: _grown(value, before.get(labels, 0)) for labels, value in values.items()}
            counters[name] = {labels: value for labels, value in grown.items() if value}
        for name, distributions in self.histograms.items():
            its = earlier.histograms.get(name, {})
            observed = {labels: each.since(its.get(labels)) for labels, each in distributions.items()}
            histograms[name] = {labels: each for labels, each in observed.items() if each.count}
        return Snapshot(counters, histograms)


def _grown(value: Number, before: Number) -> Number:
    return value - before if value >= before else value


def snapshot(families: Iterable[Family]) -> Snapshot:
    """From the families of a scrape."""
    counters: dict[str, dict[Labels, Number]] = {}
    histograms: dict[str, dict[Labels, Distribution]] = {}
    for family in families:
        if family.type == "histogram":
            counters |= {f"{family.name}_sum": {}, f"{family.name}_count": {}}
            histograms[family.name] = _distributions(family, counters)
            continue
        name = family.name + "_total" * (family.type == "counter")
        counters[name] = {tuple(each.labels.items()): each.value for each in family.samples if each.value}
    return Snapshot(counters, histograms)


def _distributions(family: Family, counters: dict[str, dict[Labels, Number]]) -> dict[Labels, Distribution]:
    buckets: dict[Labels, list[tuple[str, int]]] = {}
    for sample in family.samples:
        labels = tuple((name, value) for name, value in sample.labels.items() if name != "le")
        if sample.name.endswith("_bucket"):
            buckets.setdefault(labels, []).append((sample.labels["le"], int(sample.value)))
        elif sample.value:
            counters[sample.name][labels] = sample.value
    sums = counters[f"{family.name}_sum"]
    found = {}
    for labels, pairs in buckets.items():
        if pairs[-1][1]:
            cumulative = [count for _, count in pairs]
            counts = tuple(count - before for count, before in zip(cumulative, [0, *cumulative]))
            found[labels] = Distribution(tuple(bound for bound, _ in pairs), counts, sums.get(labels, 0))
    return found
