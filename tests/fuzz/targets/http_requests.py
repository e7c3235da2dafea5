# SPDX-License-Identifier: Apache-2.0
"""The HTTP server: any bytes get well-formed answers that say nothing of the input, and then the connection ends.

The server is the real one, with its thread for each connection; a socket pair stands for the network. Nothing may
be logged as more than debug, no connection and no thread stays behind, and the server is alive afterwards. The
first byte of an input says where the rest is cut into two packets, and, from 128 on, that it goes to a server that
wants a password: without that, only health is told.
"""

from __future__ import annotations

import base64
import functools
import gzip
import itertools
import logging
import re
import socket
import sys
import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, cast

import bcrypt
from prometheus_client import CollectorRegistry

from hmm_exporter.web.server import Server
from tests.fuzz.target import ScratchFile, Target
from tests.unit.web.served import Collector, State

_PATIENCE = 8.0
"""Seconds. Nothing here makes the server wait for as long as one."""

_HEAD = re.compile(rb"HTTP/1\.1 ([0-9]{3}) [A-Za-z -]+\r\n((?:[A-Za-z-]+: [ -~]*\r\n)+)\r\n")
_HEADERS = frozenset(
    "Date Content-Type Content-Length Cache-Control X-Content-Type-Options Content-Security-Policy"
    " Connection Allow Vary Content-Encoding Cross-Origin-Resource-Policy WWW-Authenticate".split()
)
_REFUSALS = frozenset(
    [f"{status.phrase.lower()}\n".encode() for status in HTTPStatus if status >= 400]
    + [b"a name and a password are needed\n", b"reloading by HTTP is off: give --web.enable-lifecycle, or SIGHUP\n"]
    + [b"method not allowed: POST or PUT\n"]
    + [b"not a URL\n", b"not found: the metrics are at /metrics\n", b"method not allowed: GET or HEAD\n"]
)
_HEALTH = (b"healthy\n", b"ready\n")
_PAGES = (b"<!DOCTYPE html>", b"# HELP hmm_test")
_CREDENTIALS = base64.b64encode(b"u:p")
_ECHO = "Zq9<x>"
"""Words of an input that no page may repeat."""


class _Connection(socket.socket):
    """One end of a pair, which has no Nagle's algorithm to switch off."""

    def setsockopt(self, level: int, *option: Any) -> None:
        if level != socket.IPPROTO_TCP:
            super().setsockopt(level, *option)


class _Network:
    """In place of a socket that listens: who accepts gets the other end of a pair."""

    def __init__(self) -> None:
        self._waiting: list[socket.socket] = []

    def connect(self) -> socket.socket:
        client, server = socket.socketpair()
        server = _Connection(fileno=server.detach())
        client.settimeout(_PATIENCE)
        self._waiting.append(server)
        return client

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        return self._waiting.pop(), ("192.0.2.1", 1)


class _Complaints(logging.Handler):
    """What the server logs as a warning or an error, or a thread did not catch."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.getMessage()}: {record.exc_info}")


class _World:
    """The server, made when the first input comes: a fuzzer's process has no need of any other's."""

    def __init__(self, web_config: str | None) -> None:
        self.complaints = _Complaints()
        logging.getLogger().addHandler(self.complaints)
        sys.unraisablehook = lambda args: self.complaints.lines.append(str(args))
        registry = CollectorRegistry()
        registry.register(Collector())
        self.network = _Network()
        self.server = Server(("127.0.0.1:0",), "/metrics", registry, State(), web_config=web_config)
        self.server.start()
        self.inputs = itertools.count(1)

    def answers(self, data: bytes) -> bytes:
        """All that is answered to *data*, and then to the end of it."""
        with self.network.connect() as client:
            self.server._accept(cast(Any, self.network))
            cut = data[0] % 128 if data else 0
            try:
                client.sendall(data[1:cut])
                client.sendall(data[max(cut, 1) :])
                client.shutdown(socket.SHUT_WR)
            except BrokenPipeError:
                pass  # it has heard enough
            parts = []
            try:
                while part := client.recv(1 << 20):
                    parts.append(part)
            except ConnectionResetError:
                pass  # it did not read all of it
        return b"".join(parts)


@functools.cache
def _world(protected: bool) -> _World:
    if not protected:
        return _World(None)
    stored = bcrypt.hashpw(b"p", bcrypt.gensalt(4)).decode()
    return _World(str(_file.write(f"basic_auth_users:\n  u: {stored}\n".encode())))


_file = ScratchFile()


def try_one(data: bytes) -> None:
    protected = data[:1] >= b"\x80"
    world = _world(protected)
    for status, body in _parsed(world.answers(data)):
        if body is None or body in _HEALTH:
            continue
        assert body.startswith(_PAGES) if status == 200 else body in _REFUSALS, (status, body)
        assert status != 200 or not protected or _CREDENTIALS in data, "told to somebody without a password"
        assert _ECHO[:3].encode() not in body, "what was asked for is repeated"
    assert not world.complaints.lines, world.complaints.lines
    deadline = time.monotonic() + _PATIENCE
    # The client hears of the end a little before all is over.
    while world.server._connections:
        assert time.monotonic() < deadline, "a connection or a thread stays behind"
        time.sleep(0)
    if next(world.inputs) % 1000 == 0:
        assert world.server.alive(_PATIENCE)


def _parsed(answers: bytes) -> Iterator[tuple[int, bytes | None]]:
    """(status, body) of each answer; HEAD has none. What is no answer is an error."""
    while answers:
        head = _HEAD.match(answers)
        assert head, answers[:200]
        headers = dict(line.split(": ", 1) for line in head[2].decode().splitlines())
        assert headers.keys() <= _HEADERS, headers
        rest = answers[head.end() :]
        if not rest or rest.startswith(b"HTTP/1.1 "):
            answers = rest
            yield int(head[1]), None
            continue
        length = int(headers["Content-Length"])
        assert length <= len(rest), "cut short"
        body, answers = rest[:length], rest[length:]
        yield int(head[1]), gzip.decompress(body) if "Content-Encoding" in headers else body


TARGET = Target(
    try_one,
    words=[
        *("GET ", "HEAD ", "POST ", "/ ", "/metrics", "/-/healthy", "/-/ready", "?a=b", "%2e", "//", "http://[::1"),
        *(" HTTP/1.1\r\n", " HTTP/1.0\r\n", " HTTP/0.9\r\n", " HTTP/2.0\r\n", "\r\n\r\n", "\r\n", "\n", "\r"),
        *("Host: x\r\n", "Connection: close\r\n", "Connection: keep-alive\r\n", "Content-Length: ", "Expect: "),
        *("Transfer-Encoding: chunked\r\n", "100-continue\r\n", "Accept: application/openmetrics-text;version=1.0.0"),
        *(";q=0.5,", "*/*", "Accept-Encoding: gzip\r\n", "identity;q=0", "X-Prometheus-Scrape-Timeout-Seconds: 1\r\n"),
        *(
            "Authorization: Basic ",
            _CREDENTIALS,
            f"?refresh={_ECHO}&top={_ECHO}",
            ": ",
            " \t",
            "\x00",
            "nan",
            "1e400",
            "-1",
        ),
    ],
    most_bytes=1024,
)
