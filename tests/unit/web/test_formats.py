# SPDX-License-Identifier: Apache-2.0
"""Text, OpenMetrics and gzip: what is answered to which Accept."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import Metric
from prometheus_client.openmetrics import parser as openmetrics

from hmm_exporter.web.negotiation import Format, accepts_gzip, choose_format
from tests.unit.web.served import OPENMETRICS, TEXT, Fixture

# The first two are what these releases send, in full.
PROMETHEUS_2_42 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_PROTOBUF = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;"
    "q=0.7,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_TEXT_ONLY = "text/plain;version=0.0.4;q=0.6,*/*;q=0.5"
PROMETHEUS_TEXT_FIRST = "text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.4"
PROMETHEUS_2_5 = "application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
CHROME = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;"
    "q=0.8,application/signed-exchange;v=b3;q=0.7"
)


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, Format.TEXT),
        ("", Format.TEXT),
        ("*/*", Format.TEXT),  # curl
        (FIREFOX, Format.TEXT),
        (CHROME, Format.TEXT),
        (PROMETHEUS_2_42, Format.OPENMETRICS),
        (PROMETHEUS_3, Format.OPENMETRICS),
        (PROMETHEUS_PROTOBUF, Format.OPENMETRICS),
        (PROMETHEUS_TEXT_ONLY, Format.TEXT),
        (PROMETHEUS_TEXT_FIRST, Format.TEXT),
        (PROMETHEUS_2_5, Format.OPENMETRICS_0),
        ("text/plain;version=0.0.4;q=1,*/*;q=0.1", Format.TEXT),  # vmagent
        # q-values, not the order, decide.
        ("application/openmetrics-text;q=0.1,text/plain;q=0.9", Format.TEXT),
        ("text/plain;q=0.1,application/openmetrics-text;q=0.9", Format.OPENMETRICS),
        ("application/openmetrics-text;q=0,*/*", Format.TEXT),
        ("text/plain;q=0,*/*;q=0.1", Format.OPENMETRICS),
        ("application/openmetrics-text;q=0.5,text/plain;q=0.5", Format.TEXT),
        # The most specific range speaks for a format, whatever a wider one says.
        ("*/*,text/plain;q=0.3,application/openmetrics-text;q=0.4", Format.OPENMETRICS),
        ("application/*", Format.OPENMETRICS),
        ("text/*;q=0.2,application/*;q=0.3", Format.OPENMETRICS),
        # Between equals, the one that was named.
        ("application/openmetrics-text,*/*", Format.OPENMETRICS),
        # Versions that are not spoken here.
        ("application/openmetrics-text;version=2.0.0,text/plain;q=0.1", Format.TEXT),
        ("application/openmetrics-text;version=0.0.1", Format.OPENMETRICS_0),
        ("text/plain;version=1.0.0,application/openmetrics-text;q=0.1", Format.OPENMETRICS),
        # Spelling.
        ("APPLICATION/OpenMetrics-Text ; Version=1.0.0 ; Q=0.5", Format.OPENMETRICS),
        ('application/openmetrics-text; version="1.0.0"', Format.OPENMETRICS),
        (" , ,application/openmetrics-text, ", Format.OPENMETRICS),
        # Nothing that fits, or no sense.
        ("application/json", Format.TEXT),
        ("text/plain;q=0", Format.TEXT),
        ("application/openmetrics-text;q=high", Format.TEXT),
        ("application/openmetrics-text;q=nan", Format.TEXT),
        ("application/openmetrics-text;q=-1", Format.TEXT),
        (";;;,,,q=1", Format.TEXT),
    ],
)
def test_the_format_is_the_one_that_accept_prefers(web: Fixture, accept: str | None, form: Format) -> None:
    headers = {} if accept is None else {"Accept": accept}
    status, got, body = web.ask("/metrics", headers=headers)
    assert (status, got["Content-Type"]) == (200, form.value)
    assert got["Vary"] == "Accept, Accept-Encoding"
    if form is Format.TEXT:
        assert b"# TYPE hmm_test_total counter\n" in body
        assert b"# EOF" not in body
    else:
        assert b"# TYPE hmm_test counter\n" in body
        assert body.endswith(b"# EOF\n")
        read: Callable[[str], Iterable[Metric]] = openmetrics.text_string_to_metric_families
        (family,) = read(body.decode())
        assert family.samples[0].value == 3


def test_the_content_types_say_utf8() -> None:
    assert Format.TEXT.value == TEXT
    assert Format.OPENMETRICS.value == OPENMETRICS
    assert all(form.value.endswith("; charset=utf-8") for form in Format)


def test_accept_in_several_lines_means_the_same_as_in_one(web: Fixture) -> None:
    answer = web.raw(
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept: text/plain;q=0.1\r\n"
        b"Accept: application/openmetrics-text;q=0.2\r\n\r\n"
    )
    assert OPENMETRICS.encode() in answer


@given(st.text())
def test_no_accept_header_breaks_the_choice(accept: str) -> None:
    assert choose_format(accept) in Format
    assert accepts_gzip(accept) in (True, False)


@pytest.mark.parametrize(
    ("accepted", "compressed"),
    [
        (None, False),
        ("", False),
        ("identity", False),
        ("gzip", True),  # Prometheus
        ("deflate, gzip, br, zstd", True),  # curl --compressed
        ("gzip, deflate, br", True),  # browsers
        ("GZIP;Q=0.1", True),
        ("x-gzip", True),
        ("*", True),
        ("gzip;q=0", False),
        ("gzip;q=0.000, *", False),
        ("*;q=0", False),
        ("br", False),
        ("identity;q=1, gzip;q=0.5", False),
        ("identity;q=0.5, gzip;q=0.5", True),
        ("identity;q=0, gzip;q=0.1", True),
        ("gzipped", False),
    ],
)
def test_gzip_is_used_where_it_is_accepted(web: Fixture, accepted: str | None, compressed: bool) -> None:
    headers = {} if accepted is None else {"Accept-Encoding": accepted}
    status, got, body = web.ask("/metrics", headers=headers)
    assert status == 200
    assert got["Content-Encoding"] == ("gzip" if compressed else None)
    page = gzip.decompress(body) if compressed else body
    assert page == web.ask("/metrics")[2]
