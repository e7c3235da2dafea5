# SPDX-License-Identifier: Apache-2.0
"""The page at /, for a person."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from hmm_exporter.web.status import ProbeRow
from tests.unit.web.served import Fixture


class Page(HTMLParser):
    """Text, links and tags of a page; all tags must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.links, self.tags, self.open = "", [], [], []  # type: ignore[var-annotated]
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "link"):
            self.open.append(tag)
        self.links += [value for name, value in attrs if name == "href"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f" {data}" if "style" not in self.open else ""


def landing(web: Fixture) -> Page:
    status, headers, body = web.ask("/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    return Page(body.decode())


PROBES = [
    ProbeRow("hmm_range_fault", "hmm_range_fault", "fentry", "attached", ""),
    ProbeRow("make_device_exclusive", "make_device_exclusive_range", "kprobe", "attached", ""),
    ProbeRow("do_huge_pmd_device_private", "", "none", "absent", "6.19 and newer have it"),
]


def test_the_landing_page_says_what_it_is_how_it_is_and_where_to_go(web: Fixture) -> None:
    web.state.probes = PROBES
    page = landing(web)
    assert {"metrics", "-/healthy", "-/ready"} <= set(page.links)
    for text in ("hmm-exporter", "0.1.0", "Ready", "probes: 2 attached, 1 absent"):
        assert text in page.text
    for probe in PROBES:
        for text in (probe.name, probe.function, probe.state, probe.reason):
            assert text in page.text


def test_the_landing_page_says_why_it_is_not_ready(web: Fixture) -> None:
    web.state.ready, web.state.reason = False, "compiling the BPF programs"
    text = landing(web).text
    assert "Not ready" in text
    assert "compiling the BPF programs" in text
    assert "The probes have not been tried yet." in text


@pytest.mark.parametrize("state", ["denied", "error"])
def test_the_landing_page_does_not_call_a_missing_probe_ready(web: Fixture, state: str) -> None:
    web.state.probes = [*PROBES, ProbeRow("x", "x", "none", state, "EPERM")]
    assert "Ready, in part" in landing(web).text


def test_nothing_in_the_landing_page_is_taken_for_html(web: Fixture) -> None:
    evil = "<script>alert('1')</script>\"&<b x='\udcff'>"
    web.state.version = web.state.reason = evil
    web.state.probes = [ProbeRow(evil, evil + "2", evil, evil, evil)]
    page = landing(web)
    assert "script" not in page.tags
    assert page.tags.count("b") == 1, "the one of the state"
    assert page.text.count("<script>alert('1')</script>\"&") == 8


def test_the_landing_page_asks_for_nothing_from_elsewhere(web: Fixture) -> None:
    _, headers, body = web.ask("/")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert b"://" not in body
    assert b"<script" not in body
    assert b"prefers-color-scheme: dark" in body


def test_the_policy_allows_the_style_that_the_landing_page_has(web: Fixture) -> None:
    _, headers, body = web.ask("/")
    style = body.split(b"<style>")[1].split(b"</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in headers["Content-Security-Policy"]


def state_of(web: Fixture) -> tuple[str, str]:
    """Colour and word of the state's line."""
    found = re.search(rb'<p class="now (\w+)"><b>([^<]*)</b>', web.ask("/")[2])
    assert found
    return found[1].decode(), found[2].decode()


@pytest.mark.parametrize(
    ("states", "said"),
    [
        (("attached", "absent", "disabled"), ("good", "Ready")),
        (("attached", "denied"), ("warn", "Ready, in part")),
        (("denied", "error"), ("bad", "Nothing attached")),
        # Nobody is to blame, and yet there will be no figures.
        (("absent", "disabled"), ("bad", "Nothing attached")),
    ],
)
def test_the_worse_its_state_is_the_more_alarming_is_the_landing_page(
    web: Fixture, states: tuple[str, ...], said: tuple[str, str]
) -> None:
    web.state.probes = [ProbeRow(state, state, "none", state, "whatever") for state in states]
    assert state_of(web) == said


def test_nothing_attached_is_as_alarming_as_a_probe_that_failed(web: Fixture) -> None:
    web.state.probes = [ProbeRow("x", "x", "none", "error", "EPERM")]
    colour, _ = state_of(web)
    assert f'<span class="state {colour}">error</span>' in web.ask("/")[2].decode()
