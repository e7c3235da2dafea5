# SPDX-License-Identifier: Apache-2.0
"""The status page in a browser: what it asks for, what the policy stops, what sticks out, what can be read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from hmm_exporter.web.server import Server
from tests.fleet import browser
from tests.fleet.browser import Browser, View
from tests.fleet.status_page import EACH, SCHEMES, WIDTHS, busy_node, looks
from tests.unit.bpf.in_memory import map_set
from tests.unit.metrics.exposed import comm
from tests.unit.metrics.test_scrape import World
from tests.unit.web.page.viewer import Viewer

pytestmark = pytest.mark.skipif(
    not (shutil.which(browser.COMMAND[0]) or os.environ.get("CI")),
    reason=f"no {browser.COMMAND[0]} here: Debian's package of that name has it",
)
SECONDS = 4
Views = dict[tuple[str, str], View]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> tuple[View, Views]:
    """The first look at a real exporter, and four looks a little later."""
    if os.geteuid() != 0:
        reason = "the exporter attaches BPF programs to the simulator: run as root"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with busy_node(tmp_path_factory.mktemp("status_page")) as url:
        return looks(url, SECONDS)


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[str]:
    """A page on which nearly every name is made to break out of it, or to stick out."""
    with map_set() as (bpf, maps):
        viewer = Viewer(World(bpf, maps, tmp_path))
        for called in ("<script>a()</sc", "'onload=a() x='", "<img src=//x>", "\u202egnp.exe", "W" * 15, "\u0645" * 7):
            viewer.migrate(3, moved=1 << 40, returned=1 << 39, comm=comm(called))
        viewer.walk(10**9, raced=10**8)
        viewer.state.reason = "<script>document.title='ran'</script>" + "x" * 300
        registry = CollectorRegistry()
        registry.register(viewer.world.scrape)
        server = Server(["127.0.0.1:0"], "/metrics", registry, viewer.state)
        server.start()
        yield f"http://127.0.0.1:{server.ports[0]}/"
        server.close()
        viewer.world.close()


def is_sound(view: View, url: str = "") -> None:
    assert view.inner_width == view.width
    assert view.scroll_width <= view.inner_width, "something sticks out"
    assert view.complaints == ()
    assert [each.partition("?")[0] for each in view.requested] == [url or view.requested[0].partition("?")[0]]


@pytest.mark.parametrize("each", EACH)
def test_nothing_sticks_out_nothing_is_asked_elsewhere_and_the_policy_has_nothing_to_stop(
    seen: tuple[View, Views], each: tuple[str, str]
) -> None:
    is_sound(seen[1][each])


@pytest.mark.parametrize("width", WIDTHS)
def test_the_browsers_scheme_is_followed(seen: tuple[View, Views], width: str) -> None:
    light, dark = (seen[1][width, scheme].background for scheme in SCHEMES)
    assert (light, dark) == ("rgb(246, 247, 249)", "rgb(18, 22, 29)")


def test_the_first_look_has_totals_and_the_next_one_rates(seen: tuple[View, Views]) -> None:
    first, later = seen[0].text, seen[1]["wide", "light"].text
    assert "First look: figures are what was counted in all." in first
    assert "Rates over the last " in later
    for text in (first, later):
        for expected in ("Thrash", "llama-server", "vllm-0", "amdgpu", "Migration duration", "balanced"):
            assert expected in text


def test_each_histogram_that_was_observed_is_drawn(seen: tuple[View, Views]) -> None:
    view = seen[1]["wide", "light"]
    assert "Nothing observed yet" not in view.text
    assert view.histograms >= 15, "9 metrics, most of them for several classes, drivers or devices"


def test_hostile_names_run_nothing_and_break_no_layout(hostile: str) -> None:
    with Browser() as chromium:
        for width in WIDTHS.values():
            view = chromium.view(hostile, width, "light")
            is_sound(view, hostile)
            assert view.title == "hmm-exporter"
            assert "<script>a()</sc" in view.text
            assert "\\u202egnp.exe" in view.text
