# SPDX-License-Identifier: Apache-2.0
"""Chromium without a screen, asked by its DevTools protocol through a pipe: pages as somebody would see them.

Belongs here: opening a page, and what the browser then tells of it. Does not belong here: what a page should be.
"""

from __future__ import annotations

import base64
import json
import select
import subprocess
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

COMMAND = ("chromium-headless-shell", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--log-level=3")
#: The browser reads from descriptor 3 and writes to 4.
_PIPE = ("sh", "-c", 'exec "$0" "$@" 3<&0 4>&1', *COMMAND, "--remote-debugging-pipe", "about:blank")
_SECONDS = 60
MARGIN = 16
"""Pixels above an element that a picture begins with."""

Json = dict[str, Any]


@dataclass(frozen=True)
class View:
    """A page, as it was drawn."""

    width: int
    inner_width: int
    scroll_width: int
    """More than the inner width where something sticks out."""
    requested: tuple[str, ...]
    """Every address that was asked for, data: included."""
    complaints: tuple[str, ...]
    """Of the console and the log: violations of the policy, errors of any kind."""
    title: str
    text: str
    background: str
    histograms: int
    """Elements of that class."""
    picture: bytes
    """PNG."""


class Browser:
    """Runs from `with` to the end of its block."""

    def __enter__(self) -> Browser:
        self._process = subprocess.Popen(
            _PIPE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        self._asked = 0
        self._rest = b""
        self._events: list[Json] = []
        self._session = ""
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self._ask(f"{domain}.enable")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()

    def view(self, url: str, width: int, scheme: str, part: tuple[str, str] = ("html", "html")) -> View:
        """*scheme* is light or dark; of *part*, the picture begins with the first element and ends with the second."""
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self._ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._events.clear()
        self._ask("Page.navigate", url=url)
        self._wait_for("Page.loadEventFired")
        edges = ((part[0], "top"), (part[1], "bottom"))
        top, bottom = (
            self._evaluate(f"document.querySelector('{its}').getBoundingClientRect().{edge}") for its, edge in edges
        )
        top = max(0, top - MARGIN)
        clip = {"x": 0, "y": top, "width": width, "height": bottom - top, "scale": 1}
        shot = self._ask("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        requested = tuple(each["request"]["url"] for each in self._of("Network.requestWillBeSent"))
        logged = [each["entry"]["text"] for each in self._of("Log.entryAdded")]
        said = [json.dumps(each["args"]) for each in self._of("Runtime.consoleAPICalled")]
        thrown = [json.dumps(each["exceptionDetails"]) for each in self._of("Runtime.exceptionThrown")]
        return View(
            width,
            self._evaluate("innerWidth"),
            self._evaluate("document.documentElement.scrollWidth"),
            requested,
            (*logged, *said, *thrown),
            self._evaluate("document.title"),
            self._evaluate("document.body.innerText"),
            self._evaluate("getComputedStyle(document.body).backgroundColor"),
            self._evaluate("document.querySelectorAll('.histogram').length"),
            base64.b64decode(shot["data"]),
        )

    def _evaluate(self, expression: str) -> Any:
        return self._ask("Runtime.evaluate", expression=expression)["result"]["value"]

    def _of(self, method: str) -> list[Json]:
        return [each["params"] for each in self._events if each["method"] == method]

    def _wait_for(self, method: str) -> None:
        while not self._of(method):
            self._read()

    def _ask(self, method: str, **parameters: Any) -> Json:
        self._asked += 1
        question: Json = {"id": self._asked, "method": method, "params": parameters}
        if self._session:
            question["sessionId"] = self._session
        assert self._process.stdin
        self._process.stdin.write(json.dumps(question).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._asked:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: Json = answer["result"]
                return result

    def _read(self) -> Json:
        """The next message; events are kept."""
        assert self._process.stdout
        deadline = time.monotonic() + _SECONDS
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0, deadline - time.monotonic()))
            more = self._process.stdout.read(1 << 20) if ready else b""
            assert more, "the browser does not answer"
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\0")
        message: Json = json.loads(line)
        if "method" in message:
            self._events.append(message)
        return message
