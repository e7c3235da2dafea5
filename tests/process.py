# SPDX-License-Identifier: Apache-2.0
"""A running exporter, and a running simulator, for tests that talk to them from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from tests.exposition import Samples

ROOT = Path(__file__).parent.parent
SIMULATOR = ROOT / "tests/simulator/build/hmm-simulator"
READY_SECONDS = 60


class Exporter:
    """``python -m hmm_exporter`` with a configuration, from `with` to the end of its block."""

    def __init__(
        self,
        folder: Path,
        configuration: Mapping[str, Any] | None = None,
        arguments: Sequence[str] = (),
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """``prefix`` is a command that runs the exporter, such as setpriv."""
        self._file = folder / "hmm-exporter.yaml"
        self._configure(configuration or {})
        self._command = [*prefix, sys.executable, "-m", "hmm_exporter", "--config.file", str(self._file), *arguments]
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
        self._log = folder / "hmm-exporter.log"

    def __enter__(self) -> Exporter:
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stderr=log, cwd="/", env=self._environment
            )
        self.url = self._wait_for_url()
        self._wait_until_ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def log(self) -> str:
        return self._log.read_text()

    def get(self, path: str, accept: str = "") -> str:
        request = urllib.request.Request(self.url + path, headers={"Accept": accept} if accept else {})
        with urllib.request.urlopen(request, timeout=30) as response:
            body: bytes = response.read()
        return body.decode()

    def scrape(self) -> Samples:
        return Samples.parse(self.get("/metrics"))

    def reload(self, configuration: Mapping[str, Any]) -> None:
        """Ask it to take another configuration; it does so by itself, or refuses."""
        self._configure(configuration)
        self.process.send_signal(signal.SIGHUP)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; the exit status."""
        self.process.send_signal(number)
        return self.process.wait(30)

    def _configure(self, configuration: Mapping[str, Any]) -> None:
        # What has happened is to be read at once.
        settings: dict[str, Any] = {"simulator": str(SIMULATOR), "series_from_zero": 0} | dict(configuration)
        settings["limits"] = {"cpu": 0} | dict(settings.get("limits", {}))  # nothing is shed, however busy the machine
        settings["web"] = {"listen_addresses": ["127.0.0.1:0"]} | dict(settings.get("web", {}))
        self._file.write_text(yaml.safe_dump(settings))

    def _wait_for_url(self) -> str:
        for _ in range(READY_SECONDS * 20):
            for line in self.log.splitlines():
                if " msg=listening " in line:
                    return "http://" + line.partition("addresses=")[2].split()[0].strip('"')
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"the exporter does not listen:\n{self.log}")

    def _wait_until_ready(self) -> None:
        for _ in range(READY_SECONDS * 20):
            try:
                self.get("/-/ready")
                return
            except urllib.error.URLError:
                assert self.process.poll() is None, f"the exporter ended:\n{self.log}"
                time.sleep(0.05)
        raise AssertionError(f"the exporter is not ready:\n{self.log}")


def issue_exactly(
    events: int, threads: int = 4, program: Path = SIMULATOR, arguments: Sequence[str] = ()
) -> dict[str, Any]:
    """Run the simulator in its exact mode to the end; what it says it issued."""
    return _books([str(program), "exact", "--threads", str(threads), "--events", str(events), *arguments])


def churn(processes: int, first: int = 0, threads: int = 4, arguments: Sequence[str] = ()) -> dict[str, Any]:
    """Let that many processes come, do a few things, and go; what the simulator says it issued."""
    numbers = {"--processes": processes, "--first": first, "--threads": threads}
    options = [word for option, number in numbers.items() for word in (option, str(number))]
    return _books([str(SIMULATOR), "churn", *options, *arguments])


def _books(command: Sequence[str]) -> dict[str, Any]:
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    issued: dict[str, Any] = json.loads(done.stdout)
    return issued


def play_scenarios(seconds: int) -> None:
    """Run the simulator's scenarios for a while."""
    subprocess.run([SIMULATOR, "run", "--seconds", str(seconds)], check=True, capture_output=True)
