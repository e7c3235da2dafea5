# SPDX-License-Identifier: Apache-2.0
"""Who may ask what: the rate limit and passwords, before the routes; and the headers that a file adds to answers.

What is answered belongs to ``routes``; whether a password is right to ``basic_auth``.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus

from hmm_exporter.web.basic_auth import BasicAuth, Verdict
from hmm_exporter.web.protection import Loaded
from hmm_exporter.web.routes import HEALTH_PATHS, Request, Response, line
from hmm_exporter.web.web_config import RateLimit, duration

_CHALLENGE = ("WWW-Authenticate", 'Basic realm="hmm-exporter", charset="UTF-8"')
_RETRY = ("Retry-After", "1")


class Gate:
    """Between a connection and the routes."""

    def __init__(self, routes: Callable[[Request], Response]) -> None:
        self._routes = routes
        self._auth = BasicAuth()
        self._bucket = _Bucket()

    def __call__(self, request: Request, loaded: Loaded) -> Response:
        """The answer to *request* while *loaded* counts."""
        return self._refusal(request, loaded) or self._routes(request)

    def _refusal(self, request: Request, loaded: Loaded) -> Response | None:
        if request.path in HEALTH_PATHS:  # the kubelet knows no password, and its question costs nothing
            return None
        if not self._bucket.allows(loaded.config.rate_limit):
            return line(HTTPStatus.TOO_MANY_REQUESTS, "too many requests: see rate_limit", _RETRY)
        users = loaded.config.basic_auth_users
        if not users:
            return None
        verdict = self._auth.judge(users, request.headers.get("Authorization", ""), request.client)
        if verdict is Verdict.BUSY:
            return line(HTTPStatus.TOO_MANY_REQUESTS, "too many passwords are being looked at", _RETRY)
        if verdict is Verdict.WRONG:
            return line(HTTPStatus.UNAUTHORIZED, "a name and a password are needed", _CHALLENGE)
        return None


def configured(response: Response, loaded: Loaded) -> Iterator[tuple[str, str]]:
    """The headers that *loaded* adds to *response*."""
    headers = loaded.config.http_server_config.headers
    # What a page says of itself is narrower, and nosniff is in every answer.
    own = {"x-content-type-options", *(name.lower() for name, _ in response.headers)}
    for each in dataclasses.fields(headers):
        name, value = each.metadata["rule"].key, getattr(headers, each.name)
        if value and name.lower() not in own:
            yield name, value


class _Bucket:
    """A token bucket: full at the start, and a token more each interval."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._limit = RateLimit()
        self._tokens, self._at = 0.0, 0.0

    def allows(self, limit: RateLimit) -> bool:
        """Takes a token, where there is one."""
        interval, now = duration(limit.interval), time.monotonic()
        if not interval:
            return True
        with self._lock:
            if limit != self._limit:
                self._limit, self._tokens, self._at = limit, limit.burst, now
            self._tokens = min(limit.burst, self._tokens + (now - self._at) / interval)
            self._at = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True
