# SPDX-License-Identifier: Apache-2.0
"""The metric of what the serving process has given up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

from hmm_exporter.confinement.confine import Part


class Confinement:
    """A collector; what was given up does not come back."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Family]:
        given_up = GaugeMetricFamily(
            "hmm_exporter_confined",
            "Whether the serving process has given this up: capabilities (all of them), no_new_privs (that a program"
            " gives it rights), landlock (writing files, and devices), seccomp (other programs and processes,"
            " connections, changing files, and whatever else serving does not need).",
            labels=("part",),
        )
        problems = {part.name: False for part in self._parts}
        for part in self._parts:  # one that only one of several threads could not give up was not given up
            problems[part.name] |= bool(part.problem)
        for name, problem in problems.items():
            given_up.add_metric((name,), int(not problem))
        yield given_up
