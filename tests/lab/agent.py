# SPDX-License-Identifier: Apache-2.0
"""The QEMU guest agent's wire protocol, as far as the lab speaks it: synchronise, start a process, ask for its outcome.

Belongs here: what goes over the agent's unix socket. Does not belong here: the machine's life (vm.py), and what the
commands mean (guest.py). Calls may come from several threads: each request and its answer are one unit.
"""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: The agent's own limit on what it keeps of a process's output; beyond it, it drops silently but for a flag.
OUTPUT_LIMIT = 16 * 2**20

#: An agent that does not answer for so long is as good as dead, even in a loaded machine.
ANSWER_SECONDS = 60.0


class AgentError(RuntimeError):
    """The agent refused a request, or did not answer in time."""


class AgentGoneError(AgentError):
    """There is nothing at the other end of the socket any more."""


@dataclass(frozen=True)
class Exit:
    """How a process of the guest ended; 128 and more means: killed by the signal of that number less 128."""

    status: int
    stdout: bytes
    stderr: bytes


class GuestAgent:
    """A connection to the agent of one machine."""

    def __init__(self, path: Path, alive: Callable[[], bool]) -> None:
        self._alive = alive
        self._lock = threading.Lock()
        self._received = bytearray()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(0.1)
        self._socket.connect(str(path))

    def close(self) -> None:
        self._socket.close()

    def synchronise(self, timeout: float) -> None:
        """Waits until the agent answers. The request waits in the port until the guest opens it: one is enough."""
        self._request("guest-sync", {"id": 1}, timeout)

    def execute(self, arguments: list[str], environment: list[str], stdin: bytes = b"", capture: bool = True) -> int:
        """Starts a process and returns its process id."""
        program, *rest = arguments
        request: dict[str, Any] = {"path": program, "arg": rest, "env": environment, "capture-output": capture}
        if stdin:
            request["input-data"] = base64.b64encode(stdin).decode()
        answer = self._request("guest-exec", request)
        return int(answer["pid"])

    def outcome(self, pid: int) -> Exit | None:
        """How the process ended, None while it runs. The agent tells the end once, and then forgets the process."""
        answer = self._request("guest-exec-status", {"pid": pid})
        if not answer["exited"]:
            return None
        if answer.get("out-truncated") or answer.get("err-truncated"):
            raise AgentError(f"the output of process {pid} is over the guest agent's limit of {OUTPUT_LIMIT} bytes")
        status = answer["exitcode"] if "exitcode" in answer else 128 + answer.get("signal", 0)
        return Exit(status, base64.b64decode(answer.get("out-data", "")), base64.b64decode(answer.get("err-data", "")))

    def _request(self, name: str, arguments: dict[str, Any], timeout: float = ANSWER_SECONDS) -> dict[str, Any]:
        message = json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n"
        with self._lock:
            deadline = time.monotonic() + timeout
            self._send(message, deadline)
            answer = json.loads(self._line(deadline))
        if "error" in answer:
            raise AgentError(f"{name}: {answer['error'].get('desc', answer['error'])}")
        result = answer["return"]
        return result if isinstance(result, dict) else {"value": result}

    def _send(self, message: bytes, deadline: float) -> None:
        # Not sendall: its timeout leaves unknown how much was sent, and the guest drains the port slowly.
        view = memoryview(message)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except TimeoutError:
                self._check(deadline)
            except OSError as error:
                raise AgentGoneError(f"the machine is gone: {error}") from error

    def _line(self, deadline: float) -> bytes:
        scanned = 0
        while (end := self._received.find(b"\n", scanned)) < 0:
            scanned = len(self._received)
            try:
                chunk = self._socket.recv(2**16)
            except TimeoutError:
                self._check(deadline)
                continue
            except OSError as error:
                raise AgentGoneError(f"the machine is gone: {error}") from error
            if not chunk:
                raise AgentGoneError("the machine is gone: it closed the agent's socket")
            self._received += chunk
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return line

    def _check(self, deadline: float) -> None:
        if not self._alive():
            raise AgentGoneError("the machine is gone: its process has ended")
        if time.monotonic() > deadline:
            raise AgentError("the guest agent did not answer in time")
