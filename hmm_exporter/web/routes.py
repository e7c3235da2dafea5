# SPDX-License-Identifier: Apache-2.0
"""Which path answers what: from a request to a response, both plain values.

Sockets and connections belong to ``server``, the syntax of HTTP to ``handler``; who may ask what to
``gate``, which stands before this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus

from prometheus_client import CollectorRegistry

from hmm_exporter.web import negotiation
from hmm_exporter.web.page.page import CONTENT_SECURITY_POLICY, StatusPage
from hmm_exporter.web.status import Status
from hmm_exporter.web.telemetry import Busy, Failed, Telemetry

HEALTH_PATHS = ("/-/healthy", "/-/ready")
"""What a supervisor asks, without a password and without limits: see ``gate``."""

_READING = ("GET", "HEAD")
_ACTING = ("POST", "PUT")

# How long a scrape waits for another one when the client does not say how long it will; the
# default of Prometheus' scrape_timeout. In seconds, as the most that a client may ask for.
_PATIENCE = 10.0
_MAX_PATIENCE = 60.0


@dataclass(frozen=True)
class Request:
    """What a client asks."""

    method: str
    path: str
    headers: Message
    client: str = ""
    """The address that asks."""
    query: str = ""


@dataclass(frozen=True)
class Response:
    """What it is told. A HEAD is answered like a GET; leaving the body out is the server's work."""

    status: HTTPStatus
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class _Route:
    answer: Callable[[Request], Response]
    methods: tuple[str, ...] = _READING


class Routes:
    """Answers requests. Nothing but the telemetry path and the status page ever waits for a scrape."""

    def __init__(self, telemetry_path: str, registry: CollectorRegistry, status: Status) -> None:
        self._telemetry_path = telemetry_path
        self._telemetry = Telemetry(registry)
        self._status = status
        self._page = StatusPage(status, self._telemetry.families, telemetry_path)
        self._routes = {
            "/": _Route(self._status_page),
            "/-/healthy": _Route(self._healthy),
            "/-/ready": _Route(self._ready),
            "/-/reload": _Route(self._reload, _ACTING),
            telemetry_path: _Route(self._metrics),  # may be "/"; then there is no status page
        }

    def __call__(self, request: Request) -> Response:
        """The answer to *request*."""
        route = self._routes.get(request.path) or _Route(self._not_found)
        if request.method not in route.methods:
            allow = ("Allow", ", ".join(route.methods))
            return line(HTTPStatus.METHOD_NOT_ALLOWED, f"method not allowed: {' or '.join(route.methods)}", allow)
        return route.answer(request)

    def _not_found(self, _: Request) -> Response:
        return line(HTTPStatus.NOT_FOUND, f"not found: the metrics are at {self._telemetry_path}")

    def _healthy(self, _: Request) -> Response:
        return line(HTTPStatus.OK, "healthy")

    def _ready(self, _: Request) -> Response:
        return line(HTTPStatus.OK, "ready") if self._status.ready else self._not_ready()

    def _reload(self, request: Request) -> Response:
        if not self._status.ready:
            return self._not_ready()
        if self._status.reload is None:
            return line(HTTPStatus.FORBIDDEN, "reloading by HTTP is off: give --web.enable-lifecycle, or SIGHUP")
        if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            return line(HTTPStatus.FORBIDDEN, "a page of another site may not ask for that")
        problem = self._status.reload()
        return line(HTTPStatus.INTERNAL_SERVER_ERROR, problem) if problem else line(HTTPStatus.OK, "reloaded")

    def _not_ready(self) -> Response:
        return line(HTTPStatus.SERVICE_UNAVAILABLE, f"not ready: {self._status.reason}")

    def _status_page(self, request: Request) -> Response:
        policy = ("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        return Response(HTTPStatus.OK, self._page.render(request.query), "text/html; charset=utf-8", (policy,))

    def _metrics(self, request: Request) -> Response:
        # Counters at 0 before the probes are attached would be a lie.
        if not self._status.ready:
            return self._not_ready()
        form = negotiation.choose_format(_header(request, "Accept"))
        compressed = negotiation.accepts_gzip(_header(request, "Accept-Encoding"))
        try:
            page = self._telemetry.render(form, compressed, _patience(request))
        except Busy as busy:
            return line(HTTPStatus.SERVICE_UNAVAILABLE, str(busy))
        except Failed as failed:
            return line(HTTPStatus.INTERNAL_SERVER_ERROR, str(failed))
        headers = [("Vary", "Accept, Accept-Encoding")]
        if compressed:
            headers.append(("Content-Encoding", "gzip"))
        return Response(HTTPStatus.OK, page, form.value, tuple(headers))


def line(status: HTTPStatus, text: str, *headers: tuple[str, str]) -> Response:
    """An answer of one line, whatever *text* contains."""
    line = " ".join(text.split()) + "\n"
    return Response(status, line.encode("utf-8", "backslashreplace"), headers=headers)


def _header(request: Request, name: str) -> str | None:
    """A header that is a list may come in several lines, which mean the same as one."""
    return ",".join(request.headers.get_all(name, ())) or None


def _patience(request: Request) -> float:
    """How many seconds the client will wait, as Prometheus says in a header of its own."""
    try:
        seconds = float(request.headers.get("X-Prometheus-Scrape-Timeout-Seconds", _PATIENCE))
    except ValueError:
        return _PATIENCE
    return min(seconds, _MAX_PATIENCE) if seconds > 0 else _PATIENCE
