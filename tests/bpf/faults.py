# SPDX-License-Identifier: Apache-2.0
"""For the tests of faults: a daemon that is not waited for, what the kernel has of it, and a world with less in it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.exposition import Samples
from tests.process import ROOT, SIMULATOR

_BPF = {"x86_64": 321, "aarch64": 280}
_PROG_GET_NEXT_ID, _MAP_GET_NEXT_ID, _LINK_GET_NEXT_ID = 11, 12, 31  # include/uapi/linux/bpf.h
_WAIT = 60.0


def within(seconds: float, happens: Callable[[], object]) -> bool:
    """Whether it does, before so long that it will not. Not a time that is asserted."""
    deadline = time.monotonic() + seconds
    while not happens():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def ids() -> dict[str, set[int]]:
    """The kernel's own lists of all BPF programs, maps and links there are."""
    return {
        "programs": _all(_PROG_GET_NEXT_ID),
        "maps": _all(_MAP_GET_NEXT_ID),
        "links": _all(_LINK_GET_NEXT_ID),
    }


def _all(command: int) -> set[int]:
    libc = ctypes.CDLL(None, use_errno=True)
    found: set[int] = set()
    last = 0
    while True:
        attributes = ctypes.create_string_buffer(struct.pack("<III", last, 0, 0), 12)
        if libc.syscall(_BPF[platform.machine()], command, attributes, 12) < 0:
            assert ctypes.get_errno() == errno.ENOENT
            return found
        last = struct.unpack_from("<I", attributes.raw, 4)[0]
        found.add(last)


def held_by(pid: int) -> dict[str, set[int]]:
    """Which of these a process holds, by its fds; nothing where it has ended."""
    names = {"prog_id": "programs", "map_id": "maps", "link_id": "links"}
    held: dict[str, set[int]] = {kind: set() for kind in names.values()}
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                for line in entry.read_text().splitlines():
                    name, _, value = line.partition(":")
                    if name in names:
                        held[names[name]].add(int(value))
    return held


def remain(held: Mapping[str, set[int]]) -> dict[str, set[int]]:
    """Which of them the kernel still has, when it has had the time to free them: it does so a little later."""
    left = dict(held)

    def gone() -> bool:
        now = ids()
        left.update({kind: held[kind] & now[kind] for kind in held})
        return not any(left.values())

    within(30, gone)
    return left


def children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def command(folder: Path, configuration: Mapping[str, Any] | None = None, arguments: Sequence[str] = ()) -> list[str]:
    """That starts an exporter on the simulator."""
    file = folder / "hmm-exporter.yaml"
    web = {"listen_addresses": ["127.0.0.1:0"]}
    settings = {"simulator": str(SIMULATOR), "series_from_zero": 0, "web": web} | dict(configuration or {})
    file.write_text(yaml.safe_dump(settings))
    return [sys.executable, "-m", "hmm_exporter", "--config.file", str(file), *arguments]


class Starting:
    """An exporter from its first moment on, in a process group of its own."""

    def __init__(self, command: Sequence[str], log: Path, **options: Any) -> None:
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stderr=stderr,
                cwd="/",
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                start_new_session=True,
                **options,
            )
        self._log = log

    def __enter__(self) -> Starting:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    @property
    def log(self) -> str:
        return self._log.read_text()

    def said(self, text: str) -> bool:
        """Waits for it to stand in the log; False if the process ends without."""
        within(_WAIT, lambda: text in self.log or self.process.poll() is not None)
        return text in self.log

    def status(self) -> int:
        return self.process.wait(_WAIT)

    def url(self) -> str:
        assert self.said(" msg=ready "), self.log
        line = next(line for line in self.log.splitlines() if " msg=listening " in line)
        return "http://" + line.partition("addresses=")[2].split()[0].strip('"')


@contextlib.contextmanager
def starting(
    folder: Path, prefix: Sequence[str] = (), arguments: Sequence[str] = (), **configuration: Any
) -> Iterator[Starting]:
    with Starting([*prefix, *command(folder, configuration, arguments)], folder / "log") as daemon:
        yield daemon


def scrape(url: str) -> Samples:
    with urllib.request.urlopen(url + "/metrics", timeout=60) as response:
        return Samples.parse(response.read().decode())


def total(issued: Mapping[str, Any], kind: str, **attributes: str) -> int:
    """How many such events the simulator issued."""
    events = (each for each in issued[kind] if attributes.items() <= each.items())
    return sum(int(each["count"]) for each in events)


def check_totals(samples: Samples, *issued: Mapping[str, Any]) -> None:
    """Everything that was issued is counted, and every migration is where it belongs in the books."""
    for metric, kind in (
        ("hmm_migrations_started_total", "migrations"),
        ("hmm_range_faults_total", "range_faults"),
        ("hmm_interval_notifier_removes_total", "notifier_removes"),
    ):
        issued_events = sum(total(each, kind) for each in issued)
        assert samples.sum(metric) == issued_events > 0, f"{metric}: {samples.sum(metric)} of {issued_events}"
    abandoned = sum(total(each, "migrations", outcome="abandoned") for each in issued)
    assert samples.get("hmm_exporter_migrations_abandoned_total") == abandoned
    assert samples.get("hmm_exporter_migrations_in_flight") == 0
    assert samples.get("hmm_exporter_books_balanced") == 1


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port


def in_a_world_where(script: str, *namespaces: str) -> list[str]:
    """A command prefix: mounts, or whatever the shell's *script* changes, are for this process alone."""
    return ["unshare", *(namespaces or ("--mount",)), "sh", "-c", f'{script} && exec "$@"', "sh"]


def the_error(daemon: Starting) -> str:
    """The one line that says why it did not start; there is neither a traceback nor a second one."""
    assert daemon.status() in (1, 2), daemon.log
    assert "raceback" not in daemon.log
    lines = [
        line for line in daemon.log.splitlines() if "level=error" in line or line.startswith("hmm-exporter: error")
    ]
    assert len(lines) == 1, daemon.log
    return lines[0]
