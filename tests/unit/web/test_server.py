# SPDX-License-Identifier: Apache-2.0
"""The HTTP endpoint, asked over real sockets on the loopback interface."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import resource
import socket
import threading
import time

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families as read_text

from hmm_exporter.web import handler, telemetry
from hmm_exporter.web.server import Server
from hmm_exporter.web.status import ProbeRow
from tests.unit.web.served import TEXT, Fixture, State, hanging, healthy, patience

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
        deadline = time.monotonic() + 40  # until all of them wait, one more may wait instead
        while web.ask("/metrics", headers=patience(0.01))[::2] != refused:
            assert time.monotonic() < deadline
        assert web.ask("/-/healthy", timeout=2)[0] == 200
    for connection in waiting:
        response = connection.getresponse()
        assert response.status == 200
        response.read()
        connection.close()


def test_a_client_that_hangs_in_its_request_keeps_no_other_waiting(web: Fixture) -> None:
    with contextlib.ExitStack() as stack:
        for data in (b"", b"GET", b"GET / HTTP/1.1\r\nHost: x", b"GET / HTTP/1.1\r\n" * 2):
            client = socket.create_connection(("127.0.0.1", web.server.ports[0]))
            stack.enter_context(client)
            client.sendall(data)
        for path in ("/-/healthy", "/metrics", "/"):
            assert web.ask(path)[0] == 200


@pytest.mark.parametrize("head", [b"GET /metrics HTTP/1.1\r\nX: ", b"GET /"])
def test_a_request_that_comes_in_drops_has_a_time_for_all_of_it(
    web: Fixture, monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    monkeypatch.setattr(handler, "_READ", 0.3)
    with socket.create_connection(("127.0.0.1", web.server.ports[0]), timeout=0.05) as client:
        client.sendall(head)
        while True:  # each drop comes long before the time is over
            try:
                assert client.recv(1) == b""
                break
            except TimeoutError:
                client.sendall(b"x")
            except ConnectionResetError:
                break


def test_an_answer_that_is_taken_in_drops_has_a_time_for_all_of_it(
    web: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler, "_WRITE", 0.3)
    size = 20_000_000
    web.state.probes = [ProbeRow("x" * size, "", "", "", "")]
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(30)
        client.connect(("127.0.0.1", web.server.ports[0]))
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        taken = 0
        with contextlib.suppress(ConnectionError):
            while drop := client.recv(4096):
                taken += len(drop)
                time.sleep(0.001)
    assert taken < size


def test_without_descriptors_left_it_says_so_once_and_goes_on_when_there_are_some(
    web: Fixture, capfd: pytest.CaptureFixture[str], logging_to_stderr: None
) -> None:
    assert web.ask("/-/healthy")[0] == 200  # whatever is opened at the first time is open
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    clients = [socket.socket() for _ in range(5)]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(client.fileno() for client in clients) + 1, hard))
        for client in clients:
            client.settimeout(30)
            client.connect(("127.0.0.1", web.server.ports[0]))
            client.sendall(b"GET /-/healthy HTTP/1.0\r\n\r\n")
        err = ""
        while "cannot accept a connection" not in err:
            err += capfd.readouterr().err
        assert web.server.alive(30)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for client in clients:
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        client.close()
    err += capfd.readouterr().err
    assert err.count("\n") == 1


def test_a_client_that_goes_in_the_middle_does_no_harm(
    web: Fixture, capfd: pytest.CaptureFixture[str], logging_to_stderr: None
) -> None:
    for data in (b"", b"GET", b"GET /metrics HTTP/1.1\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", web.server.ports[0])) as client:
            client.sendall(data)
            # Closing with this set sends a reset.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert web.ask("/metrics")[0] == 200
    assert capfd.readouterr().err == ""


# The syntax of HTTP.


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),  # TLS
        (b"GET / HTTP/9.9\r\n\r\n", 505),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + (b"X: " + b"y" * 1000 + b"\r\n") * 17 + b"\r\n", 431),
        (b"GET http://[ HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_is_refused_in_one_line(web: Fixture, request_: bytes, status: int) -> None:
    answer = web.raw(request_)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"Connection: close" in head
    assert re.fullmatch(rb"[a-z -]+\n", body, re.IGNORECASE)
    assert web.ask("/-/healthy")[0] == 200


def test_what_a_browser_may_send_with_its_cookies_is_no_more_than_is_taken(web: Fixture) -> None:
    assert web.ask("/metrics", headers={"Cookie": "x" * 15_000})[0] == 200


def test_a_request_without_its_end_is_not_answered(web: Fixture) -> None:
    with socket.create_connection(("127.0.0.1", web.server.ports[0]), timeout=10) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b""


def test_a_body_is_not_taken_for_the_next_request(web: Fixture) -> None:
    inner = b"GET /x HTTP/1.1\r\n\r\n"
    for head in (b"Content-Length: %d\r\n" % len(inner), b"Transfer-Encoding: chunked\r\n"):
        answer = web.raw(b"GET /-/healthy HTTP/1.1\r\n" + head + b"\r\n" + inner)
        assert answer.count(b"HTTP/1.1 ") == 1
        assert answer.endswith(b"healthy\n")


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 0\r\nContent-Length: 19",
        b"Content-Length: 19\r\nContent-Length: 19",
        b"Content-Length : 19",
        b"Content-Length: 0\r\n 19",
        b"Content-Length: 0, 19",
        b"Content-Length: -0",
        b"Content-Length: +19",
        b"Content-Length: 0\x0c19",
        b"Content-Length:",
        b"Content-Length: \xb2",
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding\x0b: chunked",
        b"no header\r\nContent-Length: 19",
        b": nameless\r\nContent-Length: 19",
        b" continued\r\nContent-Length: 19",
        b"X: y\rContent-Length: 19",
        b"X: y\0",
    ],
)
def test_a_head_that_two_readers_could_read_in_two_ways_is_refused(web: Fixture, head: bytes) -> None:
    inner = b"GET /x HTTP/1.1\r\n\r\n"
    assert len(inner) == 19
    answer = web.raw(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n" + inner)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.endswith(b"\r\n\r\nbad request\n")


def test_no_body_is_invited(web: Fixture) -> None:
    with socket.create_connection(("127.0.0.1", web.server.ports[0]), timeout=10) as client:
        client.sendall(b"PUT /metrics HTTP/1.1\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 405 ")


def test_a_large_body_does_not_cost_the_client_its_answer(web: Fixture) -> None:
    connection = web.connect()
    connection.request("POST", "/metrics", body=b"x" * 500_000)
    response = connection.getresponse()
    assert (response.status, response.read()) == (405, b"method not allowed: GET or HEAD\n")
    connection.close()


def test_requests_share_a_connection(web: Fixture) -> None:
    connection = web.connect()
    connection.connect()
    used = connection.sock
    for path in ("/metrics", "/-/healthy", "/x", "/"):
        connection.request("GET", path)
        connection.getresponse().read()
        assert connection.sock is used
    connection.close()


def test_requests_in_one_packet_are_answered_in_order(web: Fixture) -> None:
    answer = web.raw(b"GET /-/healthy HTTP/1.1\r\n\r\nGET /-/ready HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert [part.split(b"\r\n\r\n")[1] for part in answer.split(b"HTTP/1.1 200")[1:]] == [
        b"healthy\n",
        b"ready\n",
    ]


def test_a_client_of_http_1_0_is_answered_and_the_connection_closed(web: Fixture) -> None:
    assert web.raw(b"GET /-/healthy HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\nhealthy\n")


@pytest.mark.parametrize(
    "request_", [b"GET / HTTP/0.9\r\n\r\n", b"GET / HTTP/0.9\r\n: \r\n\r\n", b"PUT / HTTP/0.9\r\n\r\n"]
)
def test_whoever_says_http_0_9_is_answered_with_a_head_all_the_same(web: Fixture, request_: bytes) -> None:
    """Found by fuzzing: the library leaves out the head, and with it what a browser must not do with the page."""
    answer = web.raw(request_)
    assert answer.startswith(b"HTTP/1.1 ")
    assert b"X-Content-Type-Options: nosniff\r\n" in answer


def test_requests_are_logged_at_debug_level_only(
    web: Fixture, capfd: pytest.CaptureFixture[str], logging_to_stderr: None
) -> None:
    web.ask("/metrics")
    web.raw(b"nonsense\r\n\r\n")
    assert capfd.readouterr().err == ""
    logging.getLogger().setLevel("DEBUG")
    web.raw(b"GET /x\x1b[31m HTTP/1.0\r\n\r\n")
    deadline = time.monotonic() + 5
    err = ""
    # The line comes after the answer, and so may the one of the request before.
    while '"/x' not in err and time.monotonic() < deadline:
        err += capfd.readouterr().err
    got = json.loads(err.splitlines()[-1])
    assert (got["level"], got["msg"], got["method"], got["status"]) == (
        "debug",
        "request",
        "GET",
        404,
    )
    assert (got["client"], got["path"]) == ("127.0.0.1", "/x\x1b[31m")


# Closing.


def test_closing_frees_the_port_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    web = Fixture()
    assert web.ask("/metrics")[0] == 200
    web.server.close()
    assert not healthy("127.0.0.1", web.server.ports[0])
    deadline = time.monotonic() + 5
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(threading.enumerate()) - before == set()
    again = Fixture(f"127.0.0.1:{web.server.ports[0]}")
    again.server.close()


def test_closing_twice_or_without_a_start_is_no_error() -> None:
    server = Server(["127.0.0.1:0"], "/metrics", CollectorRegistry(), State())
    server.close()
    server.close()


def test_it_is_alive_while_it_accepts_and_not_before_or_after() -> None:
    server = Server(["127.0.0.1:0"], "/metrics", CollectorRegistry(), State())
    # However often it is asked: nobody takes the knocks out of the pipe.
    assert not any(server.alive(0) for _ in range(2000))
    server.start()
    assert all(server.alive(10) for _ in range(3))
    server.close()
    assert not server.alive(0.01)


def test_sockets_that_listen_already_are_served() -> None:
    made = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = tuple(listener.getsockname()[1] for listener in made)
    for listener in made:
        listener.setblocking(False)
    server = Server([], "/metrics", CollectorRegistry(), State(), made)
    server.start()
    assert server.ports == ports
    assert all(healthy("127.0.0.1", port) for port in ports)
    server.close()
    assert not any(healthy("127.0.0.1", port) for port in ports)


def closing_takes(web: Fixture) -> float:
    started = time.monotonic()
    web.server.close()
    return time.monotonic() - started


def test_closing_is_immediate_when_clients_are_idle() -> None:
    web = Fixture()
    idle = [web.connect() for _ in range(5)]
    for connection in idle:
        connection.request("GET", "/-/healthy")
        connection.getresponse().read()
    assert closing_takes(web) < 0.3
    for connection in idle:
        connection.close()


def test_closing_takes_less_than_a_second_whatever_clients_and_collectors_do() -> None:
    web = Fixture()
    with contextlib.ExitStack() as stack:
        for data in (b"", b"GET / HT", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n"):
            client = socket.create_connection(("127.0.0.1", web.server.ports[0]))
            stack.enter_context(client)
            client.sendall(data)
        with hanging(web, answer=None):
            assert closing_takes(web) < 1


def test_closing_takes_less_than_a_second_when_a_client_does_not_take_its_page() -> None:
    web = Fixture()
    web.state.probes = [ProbeRow("x" * 50_000_000, "", "", "", "")]
    with socket.create_connection(("127.0.0.1", web.server.ports[0])) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert client.recv(1) == b"H"
        assert closing_takes(web) < 1


def test_a_scrape_under_way_is_still_answered_when_the_server_closes(web: Fixture) -> None:
    with hanging(web) as end:
        threading.Timer(0.1, end.set).start()
        assert closing_takes(web) < 1
