# SPDX-License-Identifier: Apache-2.0
"""What a soak takes for growth, and for a loss. The samples are written."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from tests.soak.load import METRICS
from tests.soak.sample import Sample
from tests.soak.verdict import MIB, TOLERANCES, growth, judged, lost

SECONDS = 1200
STEADY = Sample(
    seconds=0,
    rss=38 * MIB,
    anonymous=27 * MIB,
    helper=23 * MIB,
    fds=151,
    threads=3,
    entries=922,
    series=5935,
    format="text",
    latency=0.2,
    bytes=60_000,
    events=0,
)


def samples(**an_hour: float) -> list[Sample]:
    """Twenty minutes, with noise as a soak has it, and that much more an hour of some."""
    dice = random.Random(1)
    made = []
    for second in range(SECONDS):
        noise = {"rss": dice.randrange(MIB), "entries": dice.randrange(10), "series": dice.randrange(20)}
        gained = {name: int(more * second / 3600) for name, more in an_hour.items()}
        values = {name: getattr(STEADY, name) + noise.get(name, 0) + gained.get(name, 0) for name in TOLERANCES}
        made.append(replace(STEADY, seconds=float(second), **values))
    return made


def test_noise_is_no_growth() -> None:
    assert not [str(each) for each in growth(judged(samples())) if each.too_much]


@pytest.mark.parametrize(
    ("name", "an_hour"),
    [("rss", 24 * MIB), ("anonymous", 24 * MIB), ("helper", 2 * MIB), ("fds", 12), ("threads", 12), ("entries", 400)],
)
def test_what_grows_is_called_so(name: str, an_hour: float) -> None:
    (grown,) = (each for each in growth(judged(samples(**{name: an_hour}))) if each.too_much)
    assert grown.name == name
    assert "GREW" in str(grown)
    assert grown.an_hour == pytest.approx(an_hour, rel=0.25)


def test_the_first_quarter_is_not_judged() -> None:
    assert judged(samples())[0].seconds == SECONDS / 4


def test_an_event_too_few_or_too_many_in_one_metric_is_found() -> None:
    issued = dict.fromkeys(METRICS, 100)
    counted = {name: 100 for names in METRICS.values() for name in names}
    assert lost(issued, counted, METRICS) == {}
    assert lost(issued, {**counted, "hmm_range_faults_total": 99}, METRICS) == {"hmm_range_faults_total": 1}
    assert lost(issued, {**counted, "hmm_range_faults_total": 102}, METRICS) == {"hmm_range_faults_total": -2}
