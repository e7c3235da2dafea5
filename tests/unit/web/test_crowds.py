# SPDX-License-Identifier: Apache-2.0
"""More clients than there is room for: health is answered whatever they do."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.unit.web.served import Fixture, hanging

# As many as there is room for.
_ROOM = 256


class _Insistent:
    """A client that asks again and again, and comes back where the server has closed."""

    def __init__(self, port: int) -> None:
        self._port, self.answered = port, 0
        self._socket = self._connected()

    def ask(self, request: bytes) -> None:
        try:
            with contextlib.suppress(BlockingIOError):
                self._socket.send(request)
            with contextlib.suppress(BlockingIOError):
                while taken := self._socket.recv(65536):
                    self.answered += taken.count(b"HTTP/1.1 200")
                raise ConnectionError("closed by the server")
        except ConnectionError:
            self.close()
            self._socket = self._connected()

    def close(self) -> None:
        self._socket.close()

    def _connected(self) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self._port), timeout=60)
        made.setblocking(False)
        return made


@contextlib.contextmanager
def _crowd(web: Fixture, request: bytes) -> Iterator[None]:
    """Clients that all ask for *request*, over and over while the block lasts."""
    clients = [_Insistent(web.server.ports[0]) for _ in range(_ROOM)]
    well_under_way, end = threading.Event(), threading.Event()

    def insist() -> None:
        while not end.wait(0.1):
            for client in clients:
                client.ask(request)
            if sum(client.answered for client in clients) > _ROOM:
                well_under_way.set()

    thread = threading.Thread(target=insist)
    thread.start()
    try:
        assert well_under_way.wait(60)
        yield
    finally:
        end.set()
        thread.join()
        for client in clients:
            client.close()


def test_clients_that_never_stop_asking_shut_nobody_out(web: Fixture) -> None:
    with _crowd(web, b"GET /-/healthy HTTP/1.1\r\n\r\n"):
        for _ in range(5):
            assert web.ask("/-/healthy", timeout=30)[0] == 200


def test_who_takes_the_last_room_is_answered_and_told_that_the_connection_ends(web: Fixture) -> None:
    with contextlib.ExitStack() as stack:
        told = []
        for _ in range(_ROOM):
            client = stack.enter_context(contextlib.closing(web.connect(timeout=60)))
            client.request("GET", "/-/healthy")
            response = client.getresponse()
            assert response.read() == b"healthy\n"
            told.append(response.headers["Connection"])
    assert told == [None] * (_ROOM - 1) + ["close"]


def test_when_there_is_no_room_those_that_wait_make_it_and_health_is_answered(
    web: Fixture, capfd: pytest.CaptureFixture[str], logging_to_stderr: None
) -> None:
    where = ("127.0.0.1", web.server.ports[0])
    with contextlib.ExitStack() as stack:
        kept = web.connect()
        kept.request("GET", "/-/healthy")
        kept.getresponse().read()
        for number in range(_ROOM + 44):
            client = stack.enter_context(socket.create_connection(where))
            client.sendall((b"", b"GET", b"GET / HTTP/1.1\r\nX: ")[number % 3])
        assert web.ask("/-/healthy")[0] == 200
        assert kept.sock.recv(1) == b"", "the one that was idle for longest had to go"
    (line,) = capfd.readouterr().err.splitlines()
    assert json.loads(line)["msg"] == "too many connections: closing those that wait"


def test_who_is_being_answered_makes_no_room(web: Fixture) -> None:
    with hanging(web), contextlib.ExitStack() as stack:
        for _ in range(_ROOM + 44):
            stack.enter_context(socket.create_connection(("127.0.0.1", web.server.ports[0])))
        assert web.ask("/-/healthy")[0] == 200


def test_a_thousand_scrapes_at_once_are_all_answered(web: Fixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))  # both ends are this process
    clients = [socket.create_connection(("127.0.0.1", web.server.ports[0]), timeout=60) for _ in range(1000)]
    for client in clients:
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    answers = {client.recv(65536).split()[1] for client in clients}
    for client in clients:
        client.close()
    assert answers <= {b"200", b"503"}
    assert b"200" in answers
    assert web.ask("/metrics")[0] == 200
