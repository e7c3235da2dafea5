# SPDX-License-Identifier: Apache-2.0
"""Drawings of histograms: heights are shares, and nothing leaves the plot."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmm_exporter.catalog import tables
from hmm_exporter.catalog.values import HISTOGRAM_SLOTS, Class, Size
from hmm_exporter.report.snapshot import Distribution, snapshot
from hmm_exporter.report.units import Unit
from hmm_exporter.web.page.histogram_svg import bucket, in_words, quantile, slots_shown, svg
from tests.unit.metrics.test_scrape import OWNER
from tests.unit.web.page.viewer import Page, Viewer

TOP, BOTTOM = 8, 64


@dataclass(frozen=True)
class Bar:
    left: float
    top: float
    width: float
    height: float


def bars(drawn: str, kind: str) -> list[Bar]:
    found = re.findall(rf'<rect class="{kind}" x="([\d.]+)%" y="([\d.]+)" width="([\d.]+)%" height="([\d.]+)">', drawn)
    return [Bar(*map(float, each)) for each in found]


def distribution(*counts: int, total: float = 0, size: Size = Size.seconds) -> Distribution:
    bounds = (*map(repr, size.bounds), "+Inf")
    return Distribution(bounds, (*counts, *(0,) * (HISTOGRAM_SLOTS - len(counts))), total)


def drawn(whole: Distribution, new: Distribution | None = None) -> str:
    return svg(whole, new, slots_shown([whole]), Unit.seconds, "the last 12 s")


def test_heights_of_bars_are_in_the_proportion_of_the_counts_that_the_maps_have(viewer: Viewer) -> None:
    key = (OWNER, Class.prefetch)
    viewer.world.bpf.book(tables.MIGRATION_HISTOGRAM, key, duration_ns=77, duration=[0, 0, 10, 20, 0, 50])
    now = snapshot(viewer.world.scrape.collect())
    (its,) = now.distributions("hmm_migration_duration_seconds", ()).values()
    heights = [bar.height for bar in bars(drawn(its), "whole")]
    assert [height / heights[0] for height in heights] == pytest.approx([1, 2, 5], abs=0.01)
    assert heights[-1] == pytest.approx((BOTTOM - TOP) * 50 / 80 / 0.75, abs=0.01), "the scale ends at 75 %"


def test_new_events_have_bars_of_their_own_by_their_own_share() -> None:
    drawing = drawn(distribution(90, 10), distribution(1, 1))
    assert [bar.height / (BOTTOM - TOP) for bar in bars(drawing, "whole")] == pytest.approx([0.9, 0.1], abs=0.01)
    assert [bar.height / (BOTTOM - TOP) for bar in bars(drawing, "new")] == pytest.approx([0.5, 0.5], abs=0.01)


def test_one_event_in_a_million_is_seen() -> None:
    assert min(bar.height for bar in bars(drawn(distribution(10**6, 1)), "whole")) == 1


def test_every_bar_says_what_it_is_and_the_drawing_says_it_in_words() -> None:
    drawing = drawn(distribution(0, 1, 3, total=2**-16), distribution(0, 0, 1))
    page = Page(drawing)
    assert "above 1.91 µs, up to 3.81 µs: 3 (75 %) in all; 1 (100 %) in the last 12 s" in page.texts
    assert "above 954 ns, up to 1.91 µs: 1 (25 %) in all; 0 (0 %) in the last 12 s" in page.texts
    assert ("role", "img") in page.attributes
    words = dict(page.attributes)["aria-label"]
    assert words == "4 events, mean 3.81\xa0µs, half up to 3.81\xa0µs, 99 % up to 3.81\xa0µs"


def test_a_quantile_is_the_bound_of_the_bucket_where_it_lies() -> None:
    its = distribution(*[1] * 25, 75)
    assert quantile(its, 0.01, Unit.seconds) == "up to 954\xa0ns"
    assert quantile(its, 0.25, Unit.seconds) == "up to 16\xa0s"
    assert quantile(its, 0.5, Unit.seconds) == "above 16\xa0s"
    assert in_words(distribution(1), Unit.seconds).startswith("1 event, ")


def test_the_first_and_the_last_bucket_have_one_bound() -> None:
    bounds = distribution().bounds
    assert bucket(bounds, 0, Unit.seconds) == "up to 954\xa0ns"
    assert bucket(bounds, 25, Unit.seconds) == "above 16\xa0s"


@pytest.mark.parametrize(
    ("hit", "shown"), [([0], range(8)), ([25], range(18, 26)), ([10], range(7, 15)), ([3, 20], range(3, 21))]
)
def test_what_is_drawn_reaches_from_the_first_to_the_last_bucket_hit_and_is_never_very_narrow(
    hit: list[int], shown: range
) -> None:
    assert slots_shown([distribution(*(int(at in hit) for at in range(26)))]) == shown


@given(
    st.lists(st.integers(0, 1 << 62), min_size=26, max_size=26).filter(any),
    st.lists(st.integers(0, 9), min_size=26, max_size=26),
)
def test_no_counts_make_a_bar_or_a_label_leave_the_plot(counts: list[int], some: list[int]) -> None:
    new = distribution(*map(min, counts, some))
    drawing = drawn(distribution(*counts), new if new.count else None)
    assert len(bars(drawing, "whole")) == sum(count > 0 for count in counts)
    for bar in bars(drawing, "whole") + bars(drawing, "new"):
        assert bar.left >= 10
        assert bar.left + bar.width <= 100
        assert TOP <= bar.top
        assert bar.top + bar.height <= BOTTOM + 0.02
    assert Page(drawing).tags.count("text") <= 2 + 6
