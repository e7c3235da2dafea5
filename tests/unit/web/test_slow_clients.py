# SPDX-License-Identifier: Apache-2.0
"""Clients that hang, drip or go: they keep nobody waiting, and have a time for all of it."""

from __future__ import annotations

import contextlib
import resource
import socket
import time

import pytest

from hmm_exporter.web import handler
from hmm_exporter.web.status import ProbeRow
from tests.unit.web.served import Fixture


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
    size = 5_000_000
    web.state.probes = [ProbeRow("x" * size, "", "", "", "")]
    web.server._listeners[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # what it accepts inherits
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
