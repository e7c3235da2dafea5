# SPDX-License-Identifier: Apache-2.0
"""The HTTP endpoint, asked over real sockets on the loopback interface."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as read_text

from hmm_exporter.web import telemetry
from hmm_exporter.web.status import ProbeRow
from tests.unit.web.served import TEXT, Fixture, hanging, patience

# Paths and methods.


def test_the_telemetry_path_gives_the_metrics(web: Fixture) -> None:
    status, headers, body = web.ask("/metrics")
    assert (status, headers["Content-Type"]) == (200, TEXT)
    (family,) = read_text(body.decode())
    assert family.samples[0][:3] == ("hmm_test_total", {"comm": "päython"}, 3.0)
    assert "größer" in family.documentation


def test_a_query_does_not_change_the_path(web: Fixture) -> None:
    assert web.ask("/metrics?x=1")[0] == 200
    assert web.ask("http://example.com/metrics")[0] == 200


def test_the_telemetry_path_can_be_another(web: Fixture) -> None:
    other = Fixture(path="/hmm/metrics")
    try:
        assert other.ask("/hmm/metrics")[0] == 200
        status, _, body = other.ask("/metrics")
        assert (status, body) == (404, b"not found: the metrics are at /hmm/metrics\n")
        assert b'href="hmm/metrics"' in other.ask("/")[2]
    finally:
        other.server.close()


def test_the_telemetry_path_can_be_the_root() -> None:
    other = Fixture(path="/")
    try:
        assert other.ask("/")[1]["Content-Type"] == TEXT
    finally:
        other.server.close()


@pytest.mark.parametrize("path", ["/x", "/metrics/", "/-/", "/favicon.ico", "/..", "*"])
def test_an_unknown_path_is_404_in_one_line(web: Fixture, path: str) -> None:
    status, headers, body = web.ask(path)
    assert (status, headers["Content-Type"]) == (404, "text/plain; charset=utf-8")
    assert body == b"not found: the metrics are at /metrics\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"])
@pytest.mark.parametrize("path", ["/", "/metrics", "/-/healthy", "/x"])
def test_other_methods_are_405_with_allow(web: Fixture, path: str, method: str) -> None:
    status, headers, body = web.ask(path, method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    assert body == b"method not allowed: GET or HEAD\n"


@pytest.mark.parametrize("path", ["/", "/metrics", "/-/healthy", "/-/ready", "/x"])
@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_head_has_no_body_and_the_length_that_get_has(web: Fixture, path: str, encoding: str) -> None:
    got = web.ask(path, "GET", {"Accept-Encoding": encoding})
    head = web.ask(path, "HEAD", {"Accept-Encoding": encoding})
    assert head[2] == b""
    assert head[0] == got[0]
    assert head[1]["Content-Length"] == got[1]["Content-Length"] == str(len(got[2]))
    assert head[1]["Content-Type"] == got[1]["Content-Type"]


def test_after_a_head_the_connection_goes_on(web: Fixture) -> None:
    connection = web.connect()
    for method in ("HEAD", "GET", "HEAD", "GET"):
        connection.request(method, "/-/healthy")
        response = connection.getresponse()
        assert response.read() == (b"healthy\n" if method == "GET" else b"")
    connection.close()


def test_no_answer_may_be_stored_or_guessed_at(web: Fixture) -> None:
    for path in ("/", "/metrics", "/-/healthy", "/x"):
        _, headers, _ = web.ask(path)
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Server" not in headers


# Health and readiness.


def test_before_it_is_ready_it_is_healthy_and_says_why_it_is_not_ready(web: Fixture) -> None:
    web.state.ready, web.state.reason = False, "compiling the\nBPF programs"
    assert web.ask("/-/healthy")[::2] == (200, b"healthy\n")
    said = (503, b"not ready: compiling the BPF programs\n")
    assert web.ask("/-/ready")[::2] == said
    assert web.ask("/metrics")[::2] == said
    assert web.ask("/")[0] == 200


def test_once_it_is_ready_it_says_so(web: Fixture) -> None:
    assert web.ask("/-/ready")[::2] == (200, b"ready\n")


# Failures and waiting.


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_failed_collector_is_500_in_one_line_and_one_log_line(
    web: Fixture, when: str, capfd: pytest.CaptureFixture[str], logging_to_stderr: None
) -> None:
    def fail() -> None:
        raise ValueError("map 7: secret")

    setattr(web.collector, when, fail)
    status, headers, body = web.ask("/metrics", headers={"Accept-Encoding": "gzip"})
    assert (status, headers["Content-Type"]) == (500, "text/plain; charset=utf-8")
    assert body == b"a collector failed (ValueError); see the log\n"
    assert "Content-Encoding" not in headers
    (line,) = capfd.readouterr().err.splitlines()
    got = json.loads(line)
    assert (got["level"], got["msg"]) == ("error", "scrape failed")
    assert "map 7: secret" in got["error"]
    assert "Traceback" in got["traceback"]
    setattr(web.collector, when, lambda: None)
    assert web.ask("/metrics")[0] == 200


def test_an_error_of_ours_is_500_in_one_line_and_one_log_line(
    web: Fixture, capfd: pytest.CaptureFixture[str], logging_to_stderr: None
) -> None:
    web.state.probes = [ProbeRow("too", "few", "texts", "for a", "row")[:4]]  # type: ignore[list-item]
    status, _, body = web.ask("/")
    assert (status, body) == (500, b"internal error; see the log\n")
    (line,) = capfd.readouterr().err.splitlines()
    assert json.loads(line)["path"] == "/"
    assert web.ask("/-/healthy")[0] == 200


def test_a_scrape_that_hangs_keeps_nothing_else_from_being_answered(web: Fixture) -> None:
    with hanging(web):
        for path, status in (("/-/healthy", 200), ("/-/ready", 200), ("/", 200), ("/x", 404)):
            assert web.ask(path, timeout=2)[0] == status


def test_a_scrape_waits_for_another_only_as_long_as_its_client_does(web: Fixture) -> None:
    with hanging(web):
        status, _, body = web.ask("/metrics", headers=patience(0.2))
        assert (status, body) == (503, b"another scrape has been running for more than 0.2 s\n")


@pytest.mark.parametrize("seconds", ["nonsense", "nan", "-1", ""])
def test_a_scrape_timeout_without_sense_is_left_out_of_account(web: Fixture, seconds: str) -> None:
    assert web.ask("/metrics", headers={"X-Prometheus-Scrape-Timeout-Seconds": seconds})[0] == 200


def test_a_scrape_that_waited_is_answered_when_the_other_ends(web: Fixture) -> None:
    with hanging(web) as end:
        threading.Timer(0.2, end.set).start()
        assert web.ask("/metrics", headers=patience(20))[0] == 200


def test_scrapes_do_not_overlap(web: Fixture) -> None:
    running, most = [0], [0]

    def begin() -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        time.sleep(0.01)

    def end() -> None:
        running[0] -= 1

    web.collector.before, web.collector.after = begin, end
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(web.ask("/metrics")[0])) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (answers, most) == ([200] * 12, [1])


def test_beyond_40_scrapes_a_client_is_told_at_once(web: Fixture) -> None:
    assert telemetry.MAX_SCRAPES == 40
    with hanging(web):
        waiting = [web.connect(timeout=60) for _ in range(telemetry.MAX_SCRAPES - 1)]
        for connection in waiting:
            connection.request("GET", "/metrics", headers=patience(60))
        refused = (503, b"40 scrapes are running or waiting already\n")
        room: Any = web.server._gate._routes
        deadline = time.monotonic() + 20
        while room._telemetry._room._value:  # else whoever asks now could wait in the place of one of them
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert web.ask("/metrics", headers=patience(0.01))[::2] == refused
        assert web.ask("/-/healthy", timeout=2)[0] == 200
    for connection in waiting:
        response = connection.getresponse()
        assert response.status == 200
        response.read()
        connection.close()
