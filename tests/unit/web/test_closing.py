# SPDX-License-Identifier: Apache-2.0
"""How a server ends, whatever clients and collectors do; and that it lives until then."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest
from prometheus_client import CollectorRegistry

from hmm_exporter.web import handler
from hmm_exporter.web.server import Server
from hmm_exporter.web.status import ProbeRow
from tests.unit.web.served import Fixture, State, hanging, healthy


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


def end_of(web: Fixture) -> None:
    """Closes the server, whoever hangs; what hangs itself is a failure and not a test without end."""
    closing = threading.Thread(target=web.server.close, daemon=True)
    closing.start()
    closing.join(60)
    assert not closing.is_alive()


def test_closing_ends_connections_that_are_idle() -> None:
    web = Fixture()
    idle = [web.connect() for _ in range(5)]
    for connection in idle:
        connection.request("GET", "/-/healthy")
        connection.getresponse().read()
    end_of(web)
    for connection in idle:
        assert connection.sock.recv(1) == b""
        connection.close()


def test_closing_waits_for_no_client_and_no_collector() -> None:
    web = Fixture()
    with contextlib.ExitStack() as stack:
        for data in (b"", b"GET / HT", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n"):
            client = socket.create_connection(("127.0.0.1", web.server.ports[0]))
            stack.enter_context(client)
            client.sendall(data)
        with hanging(web, answer=None):  # until it is closed
            end_of(web)


def test_closing_waits_for_no_client_that_does_not_take_its_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "_WRITE", 600)
    web = Fixture()
    size = 1_000_000
    web.state.probes = [ProbeRow("x" * size, "", "", "", "")]
    web.server._listeners[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # what it accepts inherits
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(60)
        client.connect(("127.0.0.1", web.server.ports[0]))
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert client.recv(1) == b"H"
        end_of(web)
        with contextlib.suppress(ConnectionError):
            assert sum(map(len, iter(lambda: client.recv(65536), b""))) < size, "it was cut off"


def test_a_scrape_under_way_is_still_answered_when_the_server_closes(web: Fixture) -> None:
    with hanging(web) as end:  # which wants a 200
        threading.Timer(0.1, end.set).start()
        end_of(web)
