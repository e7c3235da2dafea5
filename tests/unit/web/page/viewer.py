# SPDX-License-Identifier: Apache-2.0
"""Somebody who looks at the status page of a scrape over maps in memory, and the page as text and tags."""

from __future__ import annotations

from collections.abc import Iterable
from html.parser import HTMLParser

from prometheus_client.metrics_core import Metric as Family

from hmm_exporter.catalog import tables
from hmm_exporter.catalog.values import DEVICE_NONE, Class, Direction, Trigger
from hmm_exporter.web.page.markup import NO_BREAK
from hmm_exporter.web.page.page import StatusPage
from hmm_exporter.web.status import ProbeRow
from tests.unit.metrics.test_scrape import COMM, OPS, OWNER, World
from tests.unit.web.served import State

VOID = ("meta", "link")


class Page(HTMLParser):
    """Text, links and tags of a page; all tags must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = ""
        self.links: list[str | None] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        """The text of each element, in the order in which they end."""
        self._open: list[tuple[str, int]] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.links += [value for name, value in attrs if name == "href"]
        if tag not in VOID:
            self._open.append((tag, len(self.text)))

    def handle_endtag(self, tag: str) -> None:
        its, begun = self._open.pop()
        assert its == tag
        self.texts.append(self.text[begun:].strip())

    def handle_data(self, data: str) -> None:
        if all(tag != "style" for tag, _ in self._open):
            self.text += f" {data.replace(NO_BREAK, ' ')}"


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Viewer:
    """Looks at the page of a world, at times that a test sets."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clock, self.state = Clock(), State()
        self.state.probes = [
            ProbeRow(o.probe.name, o.function, o.kind, o.state, o.reason) for o in world.attachments.outcomes
        ]
        self.page = StatusPage(self.state, self._families, "/metrics", self.clock)

    def _families(self, patience: float) -> Iterable[Family]:
        return self.world.scrape.collect()

    def html(self, query: str = "") -> str:
        return self.page.render(query).decode()

    def look(self, query: str = "", after: float = 0) -> Page:
        self.clock.seconds += after
        return Page(self.html(query))

    def migrate(
        self, migrations: int = 1, moved: int = 0, returned: int = 0, comm: bytes = COMM, device: int = 0
    ) -> None:
        """Prefetches to a device, as a program books them; CPU faults bring some of it back."""
        book = self.world.bpf.book
        book(tables.MIGRATION, (OWNER, Class.prefetch, Trigger.kthread, DEVICE_NONE), started=migrations)
        by_way = [0] * len(Direction)
        by_way[Direction.host_to_device] = moved
        key = (OWNER, Class.prefetch, Trigger.kthread, device)
        book(tables.MIGRATION, key, completed=migrations, requested_bytes=moved, moved_bytes=by_way)
        book(tables.MIGRATION, (OWNER, Class.fault_back, Trigger.cpu_fault, device), returned_bytes=returned)
        its = (comm, OWNER, Class.prefetch)
        book(tables.PROCESS_MIGRATION, its, started=migrations, moved_bytes=by_way, returned_bytes=returned)

    def walk(self, walks: int, raced: int = 0, own_fault: int = 0, ops: int = OPS) -> None:
        """Walks of a range by a driver, some of which end in EBUSY."""
        book = self.world.bpf.book
        book(tables.DRIVER, (ops,))
        book(tables.RANGE_FAULT, (ops, 0, 0), calls=walks)
        book(tables.RANGE_ATTEMPT, (ops,), attempts=walks, raced=raced, own_fault=own_fault)
