# SPDX-License-Identifier: Apache-2.0
"""What is looked at each second: one scrape as Prometheus does it, and what /proc says of the exporter's processes."""

from __future__ import annotations

import gzip
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.soak.load import METRICS

FORMATS = {
    "text": "text/plain; version=0.0.4",
    "openmetrics": "application/openmetrics-text; version=1.0.0",
}
_SERIES = re.compile(r"^(\w+)((?:\{.*\})?) (\S+)$", re.MULTILINE)
#: Arrivals are as many as there were places in the latest hour, up to what maps.arrivals allows.
_COME_AND_GO = 'map="arrival"'


@dataclass(frozen=True)
class Sample:
    """Of all processes together, but for the helper's own memory."""

    seconds: float
    """Since the start."""
    rss: int
    anonymous: int
    helper: int
    """RSS of the processes beside the one that serves."""
    fds: int
    threads: int
    entries: int
    """Of all maps but that of arrivals."""
    series: int
    format: str
    latency: float
    """Seconds until the exposition was there, as gzip."""
    bytes: int
    """Of the answer."""
    events: int
    """Counted so far."""


class Watcher:
    """One exporter, from its start on. Adds up what each series has gained, as Prometheus would."""

    def __init__(self, url: str, pid: int) -> None:
        self._url = url
        self._pid = pid
        self._started = time.monotonic()
        self._before: dict[tuple[str, str], float] = {}
        self.counted: Counter[str] = Counter()
        """By metric. Series that have ended are in it, and begin at 0 again if they come back."""
        self.latest: Mapping[tuple[str, str], float] = {}

    def sample(self, format: str) -> Sample:
        begun = time.monotonic()
        request = urllib.request.Request(
            self._url + "/metrics", headers={"Accept": FORMATS[format], "Accept-Encoding": "gzip"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            assert response.headers["Content-Encoding"] == "gzip"
            answer = response.read()
        latency = time.monotonic() - begun
        self._add_up(gzip.decompress(answer).decode())
        others = list(_children(self._pid))
        everyone = [self._pid, *others]
        return Sample(
            seconds=round(time.monotonic() - self._started, 3),
            rss=_memory(self._pid)["Rss"],
            anonymous=_memory(self._pid)["Anonymous"],
            helper=sum(_memory(pid)["Rss"] for pid in others),
            fds=sum(_entries(pid, "fd") for pid in everyone),
            threads=sum(_entries(pid, "task") for pid in everyone),
            entries=int(sum(self._named("hmm_exporter_map_entries", but=_COME_AND_GO))),
            series=int(sum(self._named("hmm_exporter_series"))),
            format=format,
            latency=round(latency, 4),
            bytes=len(answer),
            events=sum(self.counted[node] for node, _ in METRICS.values()),
        )

    def look(self) -> str:
        """The page that a person would see."""
        with urllib.request.urlopen(self._url, timeout=60) as response:
            return str(response.read().decode())

    def gauge(self, name: str) -> float:
        return sum(self._named(name))

    def _named(self, name: str, but: str = "nothing") -> Iterator[float]:
        return (value for (each, labels), value in self.latest.items() if each == name and but not in labels)

    def _add_up(self, exposition: str) -> None:
        self.latest = {(name, labels): float(value) for name, labels, value in _SERIES.findall(exposition)}
        watched = {name for names in METRICS.values() for name in names}
        for key, value in self.latest.items():
            if key[0] in watched:
                before = self._before.get(key, 0)
                self.counted[key[0]] += int(value - before if value >= before else value)
        self._before = {key: value for key, value in self.latest.items() if key[0] in watched}


def _children(pid: int) -> Iterator[int]:
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, file.read_text().split()):
            yield child
            yield from _children(child)


def _memory(pid: int) -> dict[str, int]:
    """Bytes by the words of smaps_rollup."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}


def _entries(pid: int, name: str) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/{name}").iterdir())
