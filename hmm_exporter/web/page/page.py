# SPDX-License-Identifier: Apache-2.0
"""The page as a whole: what stands on it, most important first, and what it says where there are no figures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from urllib.parse import parse_qsl

from prometheus_client.metrics_core import Metric as Family

from hmm_exporter.web.page import health, histograms, probes, summary, who
from hmm_exporter.web.page.figures import Figures, Memory
from hmm_exporter.web.page.markup import Html, element, joined
from hmm_exporter.web.page.measures import PROCESS
from hmm_exporter.web.page.style import CONTENT_SECURITY_POLICY, STYLE
from hmm_exporter.web.status import Status
from hmm_exporter.web.telemetry import Busy, Failed

__all__ = ["CONTENT_SECURITY_POLICY", "StatusPage"]

PATIENCE = 2.0
"""Seconds that somebody waits for another scrape to end; the rest of the page can be read without figures."""
REFRESHES = (5, 10, 60)
"""Seconds after which the browser may be asked to look again."""


class StatusPage:
    """Answers ``/``: ``?refresh=10`` looks again by itself, ``?top=stall`` sorts processes by that column."""

    def __init__(
        self,
        status: Status,
        families: Callable[[float], Iterable[Family]],
        telemetry_path: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """*families* are those of a scrape, for which it waits so many seconds; it may raise Busy and Failed."""
        self._status = status
        self._memory = Memory(families, clock)
        self._one = threading.Lock()
        self._telemetry_path = telemetry_path

    def render(self, query: str) -> bytes:
        """The page in UTF-8. Links are relative, so that it works behind a proxy's path prefix.

        One at a time has figures: however many look, one of them asks for a scrape, and one is drawn.
        """
        if not self._one.acquire(timeout=PATIENCE):
            return self._page(query, None, f"others have been looking at this page for more than {PATIENCE:g} s")
        try:
            return self._page(query, *self._look())
        finally:
            self._one.release()

    def _page(self, query: str, figures: Figures | None, absent: str) -> bytes:
        chosen = dict(parse_qsl(query))
        refresh = next((each for each in map(str, REFRESHES) if each == chosen.get("refresh")), "")
        order = chosen.get("top", "")
        page = element(
            "html",
            element(
                "head",
                element("meta", charset="utf-8"),
                element("meta", name="viewport", content="width=device-width, initial-scale=1"),
                element("meta", http_equiv="refresh", content=refresh) if refresh else Html(),
                element("title", "hmm-exporter"),
                element("link", rel="icon", href="data:,"),
                element("style", STYLE),
            ),
            element(
                "body",
                self._header(refresh, order if order in PROCESS else ""),
                element("main", *self._main(figures, absent, order, refresh)),
            ),
            lang="en",
        )
        return f"<!DOCTYPE html>\n{page}\n".encode()

    def _look(self) -> tuple[Figures | None, str]:
        """Figures, or why there are none."""
        if not self._status.ready:
            return None, "the probes are not attached yet"  # counters at 0 would be a lie
        try:
            return self._memory.look(PATIENCE), ""
        except (Busy, Failed) as error:
            return None, str(error)

    def _header(self, refresh: str, order: str) -> Html:
        look = [("", "Refresh")] + [(str(each), f"every {each} s") for each in REFRESHES]
        return joined(
            element(
                "header",
                element(
                    "div",
                    element("h1", "hmm-exporter ", element("small", self._status.version)),
                    element("p", "Linux heterogeneous memory management, for Prometheus", class_="soft"),
                ),
                element(
                    "nav",
                    element("a", "Metrics", href=self._telemetry_path.lstrip("/")),
                    element("a", "Healthy", href="-/healthy"),
                    element("a", "Ready", href="-/ready"),
                    *(
                        element(
                            "a",
                            text,
                            href=who.address(top=order, refresh=each),
                            aria_current="true" if each and each == refresh else None,
                        )
                        for each, text in look
                    ),
                ),
            ),
        )

    def _main(self, figures: Figures | None, absent: str, order: str, refresh: str) -> Iterable[Html]:
        rows = list(self._status.probes)
        if figures is None:
            yield probes.now(self._status, rows, ())
            yield element("p", f"No figures: {absent}.", class_="soft")
        else:
            facts = health.facts(figures)
            yield probes.now(self._status, rows, [fact.problem for fact in facts if fact.problem])
            yield element("p", _since(figures), class_="since")
            yield summary.section(figures)
            yield who.section(figures, order, refresh)
            yield element("section", element("h2", "Histograms"), histograms.section(figures), class_="histograms")
            yield element("section", element("h2", "Exporter"), health.section(facts))
        yield element("section", element("h2", "Probes"), probes.table(rows))


def _since(figures: Figures) -> str:
    if not figures.seconds:
        return "First look: figures are what was counted in all. From the next look on they are rates."
    return (
        f"Rates over {figures.time}, since anybody last looked at this page."
        " “In all”: since the exporter's start, of what has not been idle for long."
    )
