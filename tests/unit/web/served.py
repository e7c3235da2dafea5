# SPDX-License-Identifier: Apache-2.0
"""A server over a counter, for the tests of this folder to ask."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric

from hmm_exporter.web.server import Server
from hmm_exporter.web.status import ProbeRow

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class State:
    """A daemon's status that a test sets."""

    def __init__(self) -> None:
        self.ready = True
        self.reason = ""
        self.version = "0.1.0"
        self.probes: Sequence[ProbeRow] = ()
        self.reload: Callable[[], str] | None = None


class Collector:
    """One counter; collecting it does what a test says first."""

    def __init__(self) -> None:
        self.before: Callable[[], object] = lambda: None
        self.after: Callable[[], object] = lambda: None

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        self.before()
        family = CounterMetricFamily("hmm_test", "A counter; größer than ASCII.", labels=["comm"])
        family.add_metric(["päython"], 3)
        yield family
        self.after()


class Fixture:
    """A server with what it was made of."""

    def __init__(self, *addresses: str, path: str = "/metrics", web_config: Path | None = None) -> None:
        self.state, self.collector = State(), Collector()
        registry = CollectorRegistry()
        registry.register(self.collector)
        web = None if web_config is None else str(web_config)
        self.server = Server(addresses or ("127.0.0.1:0",), path, registry, self.state, (), web)
        self.tls: ssl.SSLContext | None = None
        """How :meth:`ask` talks; None: in the clear."""
        self.server.start()

    def connect(self, timeout: float = 10) -> http.client.HTTPConnection:
        if self.tls:
            return http.client.HTTPSConnection("127.0.0.1", self.server.ports[0], timeout=timeout, context=self.tls)
        return http.client.HTTPConnection("127.0.0.1", self.server.ports[0], timeout=timeout)

    def ask(
        self,
        path: str,
        method: str = "GET",
        headers: Mapping[str, str] = types.MappingProxyType({}),
        timeout: float = 10,
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Status, headers and body."""
        connection = self.connect(timeout)
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def raw(self, data: bytes) -> bytes:
        """Everything that is answered to *data* before the server closes."""
        with socket.create_connection(("127.0.0.1", self.server.ports[0]), timeout=10) as client:
            client.sendall(data)
            return b"".join(iter(lambda: client.recv(65536), b""))


def is_answered(web: Fixture) -> bool:
    try:
        return web.ask("/metrics")[0] == 200
    except (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected):
        return False


def patience(seconds: float) -> dict[str, str]:
    """What Prometheus sends with a scrape_timeout of so many seconds."""
    return {"X-Prometheus-Scrape-Timeout-Seconds": str(seconds)}


@contextlib.contextmanager
def hanging(web: Fixture, answer: int | None = 200) -> Iterator[threading.Event]:
    """A scrape that has begun, and goes on until the event is set or the block left.

    At the end its answer is checked: a status, or None where the connection was cut.
    """
    begun, end = threading.Event(), threading.Event()
    answers: list[int | None] = []

    def hang() -> None:
        begun.set()
        assert end.wait(30)

    def scrape() -> None:
        try:
            answers.append(web.ask("/metrics", timeout=30)[0])
        except ConnectionError:
            answers.append(None)

    web.collector.before = hang
    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        assert begun.wait(10)
        yield end
    finally:
        end.set()
        thread.join(30)
    assert answers == [answer]


def healthy(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/-/healthy")
        return connection.getresponse().read() == b"healthy\n"
    except ConnectionRefusedError:
        return False
    finally:
        connection.close()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
