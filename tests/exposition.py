# SPDX-License-Identifier: Apache-2.0
"""What the tests read out of an exposition: samples by name and labels, differences, histograms.

For every tier. Parsing is prometheus_client's; nothing of the exporter is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Samples:
    """All samples of one exposition."""

    values: Mapping[tuple[str, Labels], float]

    @classmethod
    def parse(cls, text: str) -> Samples:
        """Raises AssertionError for a series that stands twice."""
        values: dict[tuple[str, Labels], float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in values, f"twice: {key}"
                values[key] = sample.value
        return cls(values)

    def get(self, name: str, **labels: str) -> float:
        """The one sample with exactly these labels; 0 if there is none."""
        return self.values.get((name, frozenset(labels.items())), 0)

    def sum(self, name: str, **labels: str) -> float:
        """Of all samples that have these labels, whatever else they have."""
        wanted = frozenset(labels.items())
        return sum(value for (each, its), value in self.values.items() if each == name and wanted <= its)

    def named(self, name: str) -> dict[Labels, float]:
        return {labels: value for (each, labels), value in self.values.items() if each == name}

    def nonzero(self, name: str) -> dict[Labels, float]:
        return {labels: value for labels, value in self.named(name).items() if value}

    def since(self, earlier: Samples) -> Samples:
        """The increase of every sample."""
        return Samples({key: value - earlier.values.get(key, 0) for key, value in self.values.items()})

    def names(self) -> set[str]:
        return {name for name, _ in self.values}


def labels(**values: str) -> Labels:
    return frozenset(values.items())


def buckets(samples: Samples, name: str) -> dict[Labels, dict[str, float]]:
    """Histogram ``name``: label set without ``le`` to its cumulative buckets by ``le``."""
    histograms: dict[Labels, dict[str, float]] = {}
    for its, value in samples.named(f"{name}_bucket").items():
        le = dict(its)["le"]
        histograms.setdefault(its - {("le", le)}, {})[le] = value
    return histograms


def cumulative(observations: Iterable[tuple[int, int]], bounds: Iterable[int]) -> list[int]:
    """(value, count) pairs as cumulative counts: at each bound, and last of all."""
    pairs = list(observations)
    return [sum(count for value, count in pairs if value <= bound) for bound in bounds] + [
        sum(count for _, count in pairs)
    ]
