# SPDX-License-Identifier: Apache-2.0
"""A scrape: from the registry to a finished exposition, or to families for the status page, one at a time.

What the page contains is the collectors' work, which format a client wants ``negotiation``'s.
"""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest as _text
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.exposition import generate_latest as _openmetrics

from hmm_exporter import log
from hmm_exporter.metrics.beginnings import looking
from hmm_exporter.web.negotiation import Format

# node_exporter's --web.max-requests: two Prometheus servers and a few people are far below.
MAX_SCRAPES = 40

# Of a page of 1,500 series (106 kB) level 1 makes 9.6 kB in 0.15 ms, level 9, which is gzip's
# default, 5.1 kB in 2.3 ms. The network is not what is short on a GPU node.
_GZIP_LEVEL = 1

_RENDER: Mapping[Format, Callable[[CollectorRegistry], bytes]] = {
    Format.TEXT: _text,
    Format.OPENMETRICS: _openmetrics,
    Format.OPENMETRICS_0: _openmetrics,
}

_log = log.Logger(__name__)
_Result = TypeVar("_Result")


class Busy(Exception):
    """The scrape was not begun because of others; says so in one line."""


class Failed(Exception):
    """A collector failed; says so in one line. What happened is in the log, not for any client."""


class Telemetry:
    """Asks a registry; scrapes are serialised, and those that wait are bounded in number."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._one = threading.Lock()
        self._room = threading.BoundedSemaphore(MAX_SCRAPES)

    def render(self, form: Format, compressed: bool, patience: float) -> bytes:
        """The whole page, after waiting at most *patience* seconds for other scrapes to end.

        Raises Busy and Failed; never returns a part of a page.
        """
        page = self._alone(lambda: _RENDER[form](self._registry), patience)
        return gzip.compress(page, _GZIP_LEVEL) if compressed else page

    def families(self, patience: float) -> list[Family]:
        """What there is, for a person to look at, under the limits of a scrape. Raises Busy and Failed."""
        with looking():
            return self._alone(lambda: list(self._registry.collect()), patience)

    def _alone(self, work: Callable[[], _Result], patience: float) -> _Result:
        if not self._room.acquire(blocking=False):
            raise Busy(f"{MAX_SCRAPES} scrapes are running or waiting already")
        try:
            if not self._one.acquire(timeout=patience):
                raise Busy(f"another scrape has been running for more than {patience:g} s")
            try:
                return work()
            except Exception as error:
                _log.exception("scrape failed")
                raise Failed(f"a collector failed ({type(error).__name__}); see the log") from None
            finally:
                self._one.release()
        finally:
            self._room.release()
