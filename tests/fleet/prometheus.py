# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus, of one of Debian's releases, for as long as a `with` lasts.

Belongs here: starting one, asking it through its HTTP API. Does not belong here: what it scrapes, which rules it has.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from tests.fleet.tools import run, tool

READY_SECONDS = 60
SCRAPE_INTERVAL = 2


class Refused(Exception):
    """What Prometheus says about a request that it does not understand."""


@dataclass(frozen=True)
class Series:
    """One of the series that answer a query. An instant query's has one point, at the time that was asked for."""

    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]

    @property
    def value(self) -> float:
        return self.points[-1][1]


def static(address: str, **labels: str) -> dict[str, Any]:
    """A target for ``static_configs``. *address* may be a URL."""
    return {"targets": [urllib.parse.urlsplit(address).netloc or address], "labels": labels}


class Prometheus:
    """``scrape_configs`` are as in Prometheus' own configuration; rule files are read where they lie."""

    def __init__(
        self,
        folder: Path,
        scrape_configs: Sequence[Mapping[str, Any]] = (),
        rule_files: Sequence[Path] = (),
        release: str = "sid",
        external_labels: Mapping[str, str] | None = None,
        past: Path | None = None,
    ) -> None:
        """*past* is a file of samples with times, in OpenMetrics, that shall have been scraped before."""
        self.release = release
        self._program = tool(release, "prometheus")
        self._folder = folder / f"prometheus-{release}"
        self._log = self._folder / "prometheus.log"
        self._past = past
        self._configuration = {
            "global": {
                "scrape_interval": f"{SCRAPE_INTERVAL}s",
                "evaluation_interval": f"{SCRAPE_INTERVAL}s",
                "external_labels": dict(external_labels or {}),
            },
            "scrape_configs": list(scrape_configs),
            "rule_files": [str(file.resolve()) for file in rule_files],
        }

    def __enter__(self) -> Prometheus:
        self._folder.mkdir()
        file = self._folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(self._configuration))
        if self._past:
            promtool = tool(self.release, "promtool")
            run(promtool, "tsdb", "create-blocks-from", "openmetrics", "--quiet", self._past, self._folder / "data")
        address = f"127.0.0.1:{_free_port()}"
        self.url = f"http://{address}"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    self._program,
                    f"--config.file={file}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    f"--web.listen-address={address}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def log(self) -> str:
        return self._log.read_text()

    def get(self, path: str, **parameters: str | float) -> Any:
        """``data`` of what /api/v1/*path* answers; raises Refused with Prometheus' own words."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=60) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise Refused(json.load(error)["error"]) from error

    def query(self, expression: str, at: float | None = None) -> list[Series]:
        """An instant vector, now or at a Unix time. A scalar is one series without labels."""
        data = self.get("query", query=expression, **({} if at is None else {"time": at}))
        if data["resultType"] == "scalar":
            return [_series({"value": data["result"]})]
        return [_series(result) for result in data["result"]]

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[Series]:
        data = self.get("query_range", query=expression, start=start, end=end, step=step)
        return [_series(result) for result in data["result"]]

    def series(self, selector: str) -> list[dict[str, str]]:
        """The label sets that a selector matches, since the beginning."""
        found: list[dict[str, str]] = self.get("series", **{"match[]": selector})
        return found

    def rules(self) -> list[dict[str, Any]]:
        """All rules of all groups, with health, lastError, and where they are alerts, state."""
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]

    def targets(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("targets")["activeTargets"]
        return found

    def wait_for(self, expression: str, seconds: int = 30) -> list[Series]:
        """The first answer to a query that has any series in it."""
        for _ in range(seconds * 10):
            if answer := self.query(expression):
                return answer
            time.sleep(0.1)
        raise AssertionError(f"no answer in {seconds} s: {expression}")

    def wait_until_scraped(self, times: int = 2) -> None:
        """Until every target has answered so many scrapes. Raises AssertionError with what the targets say."""
        for _ in range((READY_SECONDS + times * SCRAPE_INTERVAL) * 10):
            targets = self.targets()
            scraped = self.query(f"sum_over_time(up[1h]) >= {times}")
            if targets and len(scraped) >= len(targets):
                return
            time.sleep(0.1)
        raise AssertionError(f"not scraped {times} times: {[(it['scrapeUrl'], it['lastError']) for it in targets]}")

    def _wait_until_ready(self) -> None:
        for _ in range(READY_SECONDS * 20):
            try:
                urllib.request.urlopen(f"{self.url}/-/ready", timeout=10).close()
                return
            except urllib.error.URLError:
                assert self._process.poll() is None, f"Prometheus ended:\n{self.log}"
                time.sleep(0.05)
        raise AssertionError(f"Prometheus is not ready:\n{self.log}")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _series(result: Mapping[str, Any]) -> Series:
    points = result["values"] if "values" in result else [result["value"]]
    return Series(result.get("metric", {}), [(float(at), float(value)) for at, value in points])
