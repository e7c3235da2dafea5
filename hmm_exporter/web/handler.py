# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 over one connection: reads requests, has them answered, writes responses.

The syntax is the library's. What is answered belongs to ``routes``, who may ask to ``gate``.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from hmm_exporter import log
from hmm_exporter.web.connection import Connection, Phase
from hmm_exporter.web.gate import Gate, configured
from hmm_exporter.web.protection import Loaded, Protection
from hmm_exporter.web.routes import Request, Response

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

# Seconds. A connection may be idle for longer than the common scrape intervals, so that it is used
# again; all of a request must come, and all of a page be taken, in less than a scrape's usual time.
_IDLE = 120.0
_READ = 10.0
_WRITE = 30.0
_LINGER = 1.0

# Of a request's line and headers together. Prometheus sends half a KiB, a browser with cookies a few.
_MAX_HEAD = 1 << 14

# A line, headers, an empty line. The library stops at the first header that it cannot read, and takes what follows for
# a body: so it gets none that two readers could read in two ways (RFC 9112, 5.1, 5.2 and 11.2).
_HEAD = re.compile(rb"[^\n]*\n(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\0\r\n]*\r?\n)*\r?\n")

_log = log.Logger(__name__)


class Handler(BaseHTTPRequestHandler):
    """Talks with the client of *connection* until one of the two has had enough. Raises OSError."""

    protocol_version = "HTTP/1.1"
    # Else the library answers a request line that it cannot read without a status line.
    default_request_version = "HTTP/1.0"

    def __init__(
        self, connection: Connection, gate: Gate, protection: Protection, crowded: Callable[[], bool] = lambda: False
    ) -> None:
        self._connection, self._gate, self._protection, self._crowded = connection, gate, protection, crowded
        # It has no use for a server, nor for a socket.
        super().__init__(cast(Any, None), (connection.client, 0), cast(Any, None))

    def setup(self) -> None:
        self._connection.send_at_once()
        self.rfile = io.BufferedReader(_Stream(self._connection))
        self.wfile = cast(io.BufferedIOBase, _Stream(self._connection))

    def finish(self) -> None:
        pass  # the connection is closed by who has opened it

    def handle_one_request(self) -> None:
        self.close_connection = True
        self.command = self.requestline = self.request_version = self.path = ""
        self._connection.enter(Phase.IDLE, _IDLE)
        if not cast(io.BufferedReader, self.rfile).peek(1):
            return  # the client has closed
        self._connection.enter(Phase.READING, _READ)
        started = time.monotonic()
        head = self._read_head()
        if not head or not self._parse(head):
            return  # it has gone in the middle, or has been told why
        # No request here has a use for a body, but it must not be taken for the next request.
        body = "Transfer-Encoding" in self.headers or bool(self.headers.get("Content-Length", "0").strip().strip("0"))
        loaded = self._protection.current()
        # Under other keys or for other clients, one has to shake hands again. Where others wait to be heard, whoever
        # has an answer makes room, however soon he would ask again.
        if body or self._crowded() or self.request_version == "HTTP/1.0" or loaded.tls is not self._connection.tls:
            self.close_connection = True
        self._connection.enter(Phase.ANSWERING, _WRITE)
        response = self._answer(loaded)
        self._send(response, loaded)
        _log.debug(
            "request",
            client=self._connection.client,
            method=self.command,
            path=self.path,
            status=response.status.value,
            bytes=len(response.body),
            seconds=round(time.monotonic() - started, 6),
        )
        if body:
            self._connection.drain(_LINGER)

    def _read_head(self) -> bytes:
        """Request line and headers to the empty line; nothing where they do not end, or not soon enough."""
        head = b""
        while len(head) <= _MAX_HEAD:
            line = self.rfile.readline(_MAX_HEAD + 1 - len(head))
            head += line
            if line in (b"\r\n", b"\n"):
                return head
            if not line:
                return b""
        long = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if b"\n" in head else HTTPStatus.REQUEST_URI_TOO_LONG
        self.send_error(long)
        return b""

    def _parse(self, head: bytes) -> bool:
        """Whether it can be read, and in one way only; who sent it has been told if not."""
        stream = self.rfile
        self.rfile = io.BytesIO(head)
        try:
            self.raw_requestline = self.rfile.readline()
            if not self.parse_request():
                return False
        finally:
            self.rfile = stream
        lengths = self.headers.get_all("Content-Length", ["0"])
        if _HEAD.fullmatch(head) and len(lengths) == 1 and lengths[0].strip().isdecimal():
            return True
        self.send_error(HTTPStatus.BAD_REQUEST)
        return False

    def _answer(self, loaded: Loaded) -> Response:
        try:
            url = urlsplit(self.path)
        except ValueError:
            return Response(HTTPStatus.BAD_REQUEST, b"not a URL\n")
        try:
            request = Request(self.command, url.path, self.headers, self._connection.client, url.query)
            return self._gate(request, loaded)
        except Exception:
            _log.exception("request failed", method=self.command, path=self.path)
            return Response(HTTPStatus.INTERNAL_SERVER_ERROR, b"internal error; see the log\n")

    def _send(self, response: Response, loaded: Loaded) -> None:
        self._connection.enter(Phase.SENDING, _WRITE)
        if self.request_version == "HTTP/0.9":  # to which the library answers with a bare body
            self.request_version = "HTTP/1.0"
        self.send_response_only(response.status)
        self.send_header("Date", self.date_time_string())
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        self.send_header("Cache-Control", "no-store")
        # No other site's page may load, or guess at, what is here.
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        for name, value in (*response.headers, *configured(response, loaded)):
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    def handle_expect_100(self) -> bool:
        return True  # do not invite a body

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the library says of a request that it cannot read: one line, and no echo of it."""
        status = HTTPStatus(code)
        self.close_connection = True
        self._send(Response(status, f"{status.phrase.lower()}\n".encode()), self._protection.current())
        _log.debug("bad request", client=self._connection.client, status=code, error=message or "")
        self._connection.drain(_LINGER)

    def log_message(self, format: str, *args: Any) -> None:
        _log.debug(format % args, client=self._connection.client)


class _Stream(io.RawIOBase):
    """A connection as the library's handler wants it. Closing it closes nothing."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        return self._connection.receive_into(buffer)

    def write(self, data: ReadableBuffer) -> int:
        self._connection.send(bytes(data))
        return memoryview(data).nbytes
