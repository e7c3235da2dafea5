# SPDX-License-Identifier: Apache-2.0
"""The HTTP server: sockets, connections and the syntax of HTTP/1.1, which is the library's.

One thread accepts for all addresses, and each connection has a thread, so that no client waits for
another. What is answered belongs to ``routes``. TLS will wrap a connection in ``_converse``.
Limits are those of a trusted network: connections are bounded, and each wait for a client is, but
not the sum of a client's waits.
"""

from __future__ import annotations

import io
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, cast
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry

from hmm_exporter import log
from hmm_exporter.errors import StartError
from hmm_exporter.web import address
from hmm_exporter.web.routes import Request, Response, Routes
from hmm_exporter.web.status import Status

# Seconds. A connection may be idle for longer than the common scrape intervals, so that it is used
# again; a request must come, and a page be taken, in less than a scrape's usual time.
_IDLE = 120.0
_READ = 10.0
_WRITE = 30.0
_LINGER = 1.0

# Far more than Prometheus servers, probes and people need; far fewer than descriptors (1,024).
_MAX_CONNECTIONS = 256

# Within a second in all, as close() promises.
_GRACE = 0.5

_MAX_LINE = 65536

_log = log.Logger(__name__)


class Server:
    """Serves metrics, health and the landing page on *addresses*, and on sockets that listen already.

    The constructor listens, so that a port in use is known before anything costly begins; clients
    that come before :meth:`start` wait. Raises StartError.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        telemetry_path: str,
        registry: CollectorRegistry,
        status: Status,
        listeners: Sequence[socket.socket] = (),
    ) -> None:
        self._routes = Routes(telemetry_path, registry, status)
        self._listeners = list(listeners)
        self._connections: set[socket.socket] = set()
        self._full = False
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._answered = threading.Event()
        self._thread: threading.Thread | None = None
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        try:
            for text in addresses:
                self._listeners.extend(address.listen(text))
        except StartError:
            self.close()
            raise
        self.addresses = tuple(address.name(listener) for listener in self._listeners)
        """Where it listens, with real ports; a name may stand for several addresses."""
        self.ports = tuple(listener.getsockname()[1] for listener in self._listeners)
        """Their ports, in the same order."""

    def start(self, first: Callable[[], object] = lambda: None) -> None:
        """Begin to answer, by a thread that does *first* before it hears anybody: those it starts are like it."""
        self._thread = threading.Thread(target=self._accept_all, args=(first,), name="web", daemon=True)
        self._thread.start()

    def alive(self, patience: float) -> bool:
        """Whether the thread that accepts does its rounds: it answers a knock within *patience* seconds."""
        self._answered.clear()
        try:
            self._wake.send(b"?")
        except BlockingIOError:
            pass  # hundreds of knocks wait already: it will hear one of them, if it hears any
        except OSError:  # closed
            return False
        return self._answered.wait(patience)

    def close(self) -> None:
        """Stop: at once where nothing is under way, within a second whatever clients do."""
        self._closing.set()
        self._wake.close()
        if self._thread is not None:
            self._thread.join()
        for listener in self._listeners:
            listener.close()
        self._woken.close()
        # Who is being answered still gets the answer; nobody is listened to any more.
        self._shut_down(socket.SHUT_RD)
        with self._changed:
            self._changed.wait_for(lambda: not self._connections, _GRACE)
        self._shut_down(socket.SHUT_RDWR)

    def _shut_down(self, how: int) -> None:
        with self._changed:
            for connection in self._connections:
                try:
                    connection.shutdown(how)
                except OSError:
                    pass  # the client was quicker

    def _accept_all(self, first: Callable[[], object]) -> None:
        first()
        with selectors.DefaultSelector() as selector:
            for listener in (*self._listeners, self._woken):
                selector.register(listener, selectors.EVENT_READ)
            while not self._closing.is_set():
                for key, _ in selector.select():
                    if key.fileobj is self._woken:
                        self._woken.recv(_MAX_LINE)
                        self._answered.set()
                    else:
                        self._accept(cast(socket.socket, key.fileobj))

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, (host, *_) = listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # the client has gone again
        except OSError as error:
            # No descriptor or no memory is left. The client is still there: do not spin.
            _log.warning("cannot accept a connection", error=str(error))
            self._closing.wait(1)
            return
        client = host.removeprefix("::ffff:")  # IPv4, by way of a socket for both
        with self._changed:
            was_full, self._full = self._full, len(self._connections) >= _MAX_CONNECTIONS
            if not self._full:
                self._connections.add(connection)
        if self._full:
            if not was_full:  # one line for a flood, not one for each of its drops
                _log.warning("too many connections", client=client, connections=_MAX_CONNECTIONS)
            connection.close()
            return
        try:
            threading.Thread(target=self._converse, args=(connection, client), name="web-client", daemon=True).start()
        except RuntimeError as error:  # no more threads
            _log.warning("cannot answer a client", client=client, error=str(error))
            self._forget(connection)

    def _converse(self, connection: socket.socket, client: str) -> None:
        try:
            _Handler(connection, client, self._routes)
        except OSError as error:  # gone, or too slow
            _log.debug("connection lost", client=client, error=str(error))
        except Exception:
            _log.exception("connection failed", client=client)
        finally:
            self._forget(connection)

    def _forget(self, connection: socket.socket) -> None:
        with self._changed:
            self._connections.discard(connection)
            self._changed.notify_all()
        connection.close()


class _Handler(BaseHTTPRequestHandler):
    """One connection: reads requests, asks the routes, writes responses."""

    protocol_version = "HTTP/1.1"
    # Else the library answers a request line that it cannot read without a status line.
    default_request_version = "HTTP/1.0"
    disable_nagle_algorithm = True

    def __init__(self, connection: socket.socket, client: str, routes: Routes) -> None:
        self._routes = routes
        self._client = client
        super().__init__(connection, (client, 0), cast(Any, None))  # it has no use for a server

    def handle_one_request(self) -> None:
        self.close_connection = True
        self.command = self.requestline = self.request_version = self.path = ""
        self.connection.settimeout(_IDLE)
        if not cast(io.BufferedReader, self.rfile).peek(1):
            return  # the client has closed
        self.connection.settimeout(_READ)
        started = time.monotonic()
        self.raw_requestline = self.rfile.readline(_MAX_LINE + 1)
        if len(self.raw_requestline) > _MAX_LINE:
            self.send_error(HTTPStatus.REQUEST_URI_TOO_LONG)
            return
        if not self.parse_request():
            return  # it has been told why
        # No request here has a use for a body, but what follows one must not be taken for it.
        body = self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers
        if body or self.request_version == "HTTP/1.0":
            self.close_connection = True
        response = self._answer()
        self._send(response)
        _log.debug(
            "request",
            client=self._client,
            method=self.command,
            path=self.path,
            status=response.status.value,
            bytes=len(response.body),
            seconds=round(time.monotonic() - started, 6),
        )
        if body:
            self._linger()

    def _answer(self) -> Response:
        try:
            path = urlsplit(self.path).path
        except ValueError:
            return Response(HTTPStatus.BAD_REQUEST, b"not a URL\n")
        try:
            return self._routes(Request(self.command, path, self.headers))
        except Exception:
            _log.exception("request failed", method=self.command, path=self.path)
            return Response(HTTPStatus.INTERNAL_SERVER_ERROR, b"internal error; see the log\n")

    def _send(self, response: Response) -> None:
        self.connection.settimeout(_WRITE)
        self.send_response_only(response.status)
        self.send_header("Date", self.date_time_string())
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in response.headers:
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    def _linger(self) -> None:
        """Read what is left for a moment, and forget it.

        Closing with unread data would reset the connection before the answer is read.
        """
        self.connection.shutdown(socket.SHUT_WR)
        self.connection.settimeout(_LINGER)
        deadline = time.monotonic() + _LINGER
        while time.monotonic() < deadline and self.connection.recv(_MAX_LINE):
            pass

    def handle_expect_100(self) -> bool:
        return True  # do not invite a body

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the library says of a request that it cannot read: one line, and no echo of it."""
        status = HTTPStatus(code)
        self.close_connection = True
        self._send(Response(status, f"{status.phrase.lower()}\n".encode()))
        _log.debug("bad request", client=self._client, status=code, error=message or "")
        self._linger()

    def log_message(self, format: str, *args: Any) -> None:
        _log.debug(format % args, client=self._client)
