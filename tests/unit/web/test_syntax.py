# SPDX-License-Identifier: Apache-2.0
"""The syntax of HTTP, and what follows from it for a connection, over real sockets."""

from __future__ import annotations

import json
import logging
import re
import socket
import time

import pytest

from tests.unit.web.served import Fixture


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
