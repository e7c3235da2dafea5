# SPDX-License-Identifier: Apache-2.0
"""The status page as a whole: what it says of the daemon, with and without figures, and what it never does."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from pathlib import Path

import pytest

from hmm_exporter.catalog.metric import Type
from hmm_exporter.catalog.metrics import METRICS
from hmm_exporter.web import page as package
from hmm_exporter.web.page import page as page_module
from hmm_exporter.web.page.markup import visible
from hmm_exporter.web.status import ProbeRow
from tests.unit.bpf.in_memory import Bpf
from tests.unit.metrics.test_scrape import World
from tests.unit.web.page.viewer import Page, Viewer
from tests.unit.web.served import Fixture


def look(web: Fixture) -> Page:
    status, headers, body = web.ask("/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    return Page(body.decode())


PROBES = [
    ProbeRow("hmm_range_fault", "hmm_range_fault", "fentry", "attached", ""),
    ProbeRow("make_device_exclusive", "make_device_exclusive_range", "kprobe", "attached", ""),
    ProbeRow("do_huge_pmd_device_private", "", "none", "absent", "6.19 and newer have it"),
]


def test_the_page_says_what_it_is_how_it_is_and_where_to_go(web: Fixture) -> None:
    web.state.probes = PROBES
    page = look(web)
    assert {"metrics", "-/healthy", "-/ready"} <= set(page.links)
    for text in ("hmm-exporter", "0.1.0", "Ready", "probes: 2 attached, 1 absent"):
        assert text in page.text
    for probe in PROBES:
        for text in (probe.name, probe.function, probe.state, probe.reason):
            assert text in page.text


def test_the_page_says_why_it_is_not_ready(web: Fixture) -> None:
    web.state.ready, web.state.reason = False, "compiling the BPF programs"
    text = look(web).text
    assert "Not ready" in text
    assert "compiling the BPF programs" in text
    assert "The probes have not been tried yet." in text


@pytest.mark.parametrize("state", ["denied", "error"])
def test_the_page_does_not_call_a_missing_probe_ready(web: Fixture, state: str) -> None:
    web.state.probes = [*PROBES, ProbeRow("x", "x", "none", state, "EPERM")]
    assert "Ready, in part" in look(web).text


def test_nothing_in_the_page_is_taken_for_html(web: Fixture) -> None:
    evil = "<script>alert('1')</script>\"&<b x='\udcff'>"
    web.state.version = web.state.reason = evil
    web.state.probes = [ProbeRow(evil, evil + "2", evil, evil, evil)]
    page = look(web)
    assert "script" not in page.tags
    assert page.tags.count("b") == 1, "the one of the state"
    assert page.text.count(visible(evil)) == 8


def test_the_page_asks_for_nothing_from_elsewhere(web: Fixture) -> None:
    _, headers, body = web.ask("/")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert b"://" not in body
    assert b"<script" not in body
    assert b"prefers-color-scheme: dark" in body


def test_the_policy_allows_the_style_that_the_page_has(web: Fixture) -> None:
    _, headers, body = web.ask("/")
    style = body.split(b"<style>")[1].split(b"</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in headers["Content-Security-Policy"]


def state_of(web: Fixture) -> tuple[str, str]:
    """Colour and word of the state's line."""
    found = re.search(rb'<div class="now (\w+)"><p><b>([^<]*)</b>', web.ask("/")[2])
    assert found
    return found[1].decode(), found[2].decode()


@pytest.mark.parametrize(
    ("states", "said"),
    [
        (("attached", "absent", "disabled"), ("good", "Ready")),
        (("attached", "denied"), ("warn", "Ready, in part")),
        (("attached", "shed"), ("warn", "Ready, in part")),
        (("denied", "error"), ("bad", "Nothing attached")),
        # Nobody is to blame, and yet there will be no figures.
        (("absent", "disabled"), ("bad", "Nothing attached")),
    ],
)
def test_the_worse_its_state_is_the_more_alarming_is_the_page(
    web: Fixture, states: tuple[str, ...], said: tuple[str, str]
) -> None:
    web.state.probes = [ProbeRow(state, state, "none", state, "whatever") for state in states]
    assert state_of(web) == said


def test_a_probe_that_is_lacking_is_named_at_the_top_with_the_reason(web: Fixture) -> None:
    reason = "CAP_PERFMON is missing"
    web.state.probes = [ProbeRow(f"probe_{number}", "", "none", "denied", reason) for number in range(5)]
    texts = look(web).texts
    assert [f"probe_{number}: denied: {reason}" in texts for number in range(5)] == [True, True, True, False, False]
    assert "and 2 more probes, see below" in texts


def test_the_server_hands_on_what_the_address_asks_for(web: Fixture) -> None:
    assert b'<meta http-equiv="refresh" content="60">' in web.ask("/?refresh=60&top=stall")[2]


def test_nothing_attached_is_as_alarming_as_a_probe_that_failed(web: Fixture) -> None:
    web.state.probes = [ProbeRow("x", "x", "none", "error", "EPERM")]
    colour, _ = state_of(web)
    assert f'<span class="state {colour}">error</span>' in web.ask("/")[2].decode()


def test_without_figures_the_page_says_why_and_still_shows_the_probes(web: Fixture) -> None:
    def fail() -> None:
        raise OSError(12, "Cannot allocate memory")

    web.state.probes = PROBES
    web.collector.before = fail
    text = look(web).text
    assert "No figures: a collector failed (OSError); see the log." in text
    assert "do_huge_pmd_device_private" in text


def test_before_it_is_ready_nothing_is_collected(web: Fixture) -> None:
    def fail() -> None:
        raise AssertionError("collected")

    web.state.ready, web.collector.before = False, fail
    assert "No figures: the probes are not attached yet." in look(web).text


def test_while_a_scrape_runs_the_page_waits_for_it_and_then_says_so(
    web: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "PATIENCE", 0.05)
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        assert go_on.wait(30)

    web.collector.before = wait
    scrape = threading.Thread(target=web.ask, args=("/metrics",))
    scrape.start()
    assert begun.wait(30)
    assert "No figures: another scrape has been running for more than 0.05 s." in look(web).text
    go_on.set()
    scrape.join()
    assert "No figures" not in look(web).text


def test_while_somebody_else_looks_the_page_waits_and_then_says_so(
    web: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And only one of them is in a scrape's way."""
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        assert not begun.is_set()
        begun.set()
        assert go_on.wait(30)

    web.collector.before = wait
    first = threading.Thread(target=web.ask, args=("/",))
    first.start()
    assert begun.wait(30)
    monkeypatch.setattr(page_module, "PATIENCE", 0.05)
    assert "No figures: others have been looking at this page for more than 0.05 s." in look(web).text
    go_on.set()
    first.join()


def test_without_maps_the_page_has_what_there_is(tmp_path: Path) -> None:
    texts = Viewer(World(Bpf(), None, tmp_path)).look().texts
    assert texts.count("not watched") == 8
    assert "Process: not watched." in texts
    assert "No histogram is kept: nothing that feeds one is attached." in texts


def test_the_first_look_says_that_it_is_one_and_the_next_one_since_when_its_rates_are(viewer: Viewer) -> None:
    assert any(text.startswith("First look: figures are what was counted in all.") for text in viewer.look().texts)
    assert any(text.startswith("Rates over the last 12 s, since anybody") for text in viewer.look(after=12).texts)


def test_every_metric_that_the_page_names_is_one_that_a_scrape_has(viewer: Viewer) -> None:
    text = "".join(file.read_text() for file in Path(package.__path__[0]).glob("*.py"))
    named = set(re.findall(r"[\"']((?:hmm|process)_\w+_\w+)[\"']", text))
    counters = {metric.name for metric in METRICS if metric.type is Type.COUNTER}
    exposed = {sample.name for family in viewer.world.scrape.collect() for sample in family.samples}
    # prometheus_client's ProcessCollector; the governor's and the reload's, which only a daemon has.
    elsewhere = {
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_cpu_seconds_total",
        "hmm_exporter_bpf_cpu_seconds_total",
        "hmm_exporter_config_last_reload_successful",
        "hmm_exporter_config_last_reload_success_timestamp_seconds",
    }
    assert len(named) > 25
    assert named - counters - exposed <= elsewhere


def test_the_browser_looks_again_only_where_the_address_asks_for_it(viewer: Viewer) -> None:
    assert "http-equiv" not in dict(viewer.look().attributes)
    assert ("content", "10") in viewer.look("refresh=10").attributes
    for query in ("refresh=1", "refresh=0;url=//evil", "refresh=", "refresh", "%ff=%00&" * 100):
        assert "http-equiv" not in dict(viewer.look(query).attributes), query


def test_no_style_and_no_script_stands_in_the_markup(viewer: Viewer) -> None:
    viewer.migrate(3, moved=4096)
    page = viewer.look("top=stall&refresh=10")
    assert not {name for name, _ in page.attributes if name == "style" or name.startswith("on")}
    assert page.tags.count("style") == 1
    assert not {"script", "iframe", "img", "object"} & set(page.tags)
    assert all(str(link).startswith(("?", "metrics", "-/", "data:")) for link in page.links)
