# SPDX-License-Identifier: Apache-2.0
"""Faults that come while it serves: a crowd, clients that break off, and no descriptor, thread, memory or log left.

One daemon lives through most of them, one after another, and is exact after each.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import resource
import socket
import subprocess
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from hmm_exporter.capabilities import WANTED
from tests.bpf.faults import Starting, check_totals, command, free_port, scrape, within
from tests.exposition import Samples
from tests.process import Exporter, issue_exactly

RESET = b"\1\0\0\0\0\0\0\0"  # struct linger: closing with it sends RST
GET = b"GET /metrics HTTP/1.0\r\n\r\n"


class Survivor:
    """An exporter, and all that was ever issued to it."""

    def __init__(self, exporter: Exporter) -> None:
        self.exporter = exporter
        self.pid = exporter.process.pid
        self.where = "127.0.0.1", int(exporter.url.rpartition(":")[2])
        self._issued: list[Mapping[str, Any]] = []
        self.issue()

    def issue(self, events: int = 300) -> None:
        self._issued.append(issue_exactly(events))

    def is_well(self) -> None:
        """Exact, after some more events."""
        self.issue()
        check_totals(self.exporter.scrape(), *self._issued)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.where, timeout=60)

    def held(self) -> tuple[int, int]:
        """Threads and file descriptors."""
        return len(os.listdir(f"/proc/{self.pid}/task")), len(os.listdir(f"/proc/{self.pid}/fd"))

    def reloaded(self, times: int) -> Callable[[], bool]:
        """Whether it has taken so many configurations."""
        return lambda: self.exporter.log.count('msg="configuration reloaded"') == times

    @contextlib.contextmanager
    def limited(self, limit: int, most: int) -> Iterator[None]:
        """That resource, of the running process."""
        soft, hard = resource.prlimit(self.pid, limit)
        resource.prlimit(self.pid, limit, (most, hard))
        try:
            yield
        finally:
            resource.prlimit(self.pid, limit, (soft, hard))


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Survivor]:
    with Exporter(tmp_path_factory.mktemp("load")) as exporter:
        yield Survivor(exporter)


@pytest.fixture
def survivor(one: Survivor) -> Iterator[Survivor]:
    """What it holds afterwards is what it held before."""
    one.exporter.scrape()
    held = one.held()
    yield one
    assert within(60, lambda: one.held() <= held), f"{one.held()} threads and fds, {held} before"
    one.is_well()
    assert "raceback" not in one.exporter.log


@pytest.fixture
def many_files() -> Iterator[None]:
    """For our end of a thousand connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def whole(answer: bytes) -> int:
    """The status of an answer that is complete."""
    head, _, body = answer.partition(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.startswith(b"Content-Length: "))
    assert len(body) == int(length.split()[1])
    status = int(head.split()[1])
    if status == 200:
        Samples.parse(body.decode())
    return status


def read(client: socket.socket) -> bytes:
    """All that comes until the other end closes, or breaks off."""
    answer = b""
    with contextlib.suppress(ConnectionError):
        while chunk := client.recv(1 << 16):
            answer += chunk
    return answer


def test_a_thousand_scrapes_at_once_are_answered_whole_or_not_at_all_and_health_in_between(
    survivor: Survivor, many_files: None
) -> None:
    clients = []
    statuses: Counter[int] = Counter()
    for number in range(1000):
        clients.append(survivor.connect())
        clients[-1].sendall(GET)
        if number % 250 == 0:
            assert survivor.exporter.get("/-/healthy") == "healthy\n"
    for number, client in enumerate(clients):
        with client:
            answer = read(client)
            statuses[whole(answer) if answer else 0] += 1
        if number % 250 == 0:
            assert survivor.exporter.get("/-/healthy") == "healthy\n"
    assert statuses.keys() <= {0, 200, 503}
    assert statuses[200] > 0
    assert sum(statuses.values()) == 1000


def test_clients_that_reset_in_the_middle_of_the_page_leave_nothing(survivor: Survivor) -> None:
    for _ in range(50):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)  # far less than a page
        client.connect(survivor.where)
        client.sendall(GET)
        assert client.recv(64).startswith(b"HTTP/1.1 ")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.close()


def test_without_descriptors_left_it_says_so_once_and_recovers(survivor: Survivor) -> None:
    said = survivor.exporter.log.count("cannot accept a connection")
    _, fds = survivor.held()
    with contextlib.ExitStack() as idle:
        with survivor.limited(resource.RLIMIT_NOFILE, fds + 5):
            for _ in range(20):
                idle.enter_context(survivor.connect())
            assert within(60, lambda: "Too many open files" in survivor.exporter.log)
            # Those that wait make room.
            assert survivor.exporter.get("/-/healthy") == "healthy\n"
        survivor.is_well()
    assert survivor.exporter.log.count("cannot accept a connection") == said + 1


def test_without_memory_a_scrape_is_whole_or_an_error_and_it_recovers(survivor: Survivor) -> None:
    size = int(Path(f"/proc/{survivor.pid}/statm").read_text().split()[0]) * resource.getpagesize()
    statuses = []
    for spare in (0, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24):
        with survivor.limited(resource.RLIMIT_AS, size + spare), survivor.connect() as client:
            client.sendall(GET)
            answer = read(client)
            statuses.append(whole(answer) if answer else 0)
    assert set(statuses) <= {0, 200, 500, 503}
    assert survivor.exporter.process.poll() is None


def test_scrapes_while_it_reloads_are_whole_and_no_counter_that_stays_goes_down(survivor: Survivor) -> None:
    ended = threading.Event()
    pages: list[list[Samples]] = [[], [], []]
    problems: list[BaseException] = []

    def scrape_on(mine: list[Samples]) -> None:
        connection = http.client.HTTPConnection(*survivor.where, timeout=60)
        try:
            while not ended.is_set():
                connection.request("GET", "/metrics")
                answer = connection.getresponse()
                page = answer.read().decode()
                assert answer.status in (200, 503), page
                if answer.status == 200:
                    mine.append(Samples.parse(page))
        except BaseException as error:
            problems.append(error)

    scrapers = [threading.Thread(target=scrape_on, args=(mine,)) for mine in pages]
    traffic = threading.Thread(target=survivor.issue, args=(2000,))
    for thread in (*scrapers, traffic):
        thread.start()
    reloads = 0
    try:
        while traffic.is_alive() or reloads < 6:
            reloads += 1
            toggled = dict.fromkeys(("huge_fault", "device_exclusive", "interval_notifier"), reloads % 2 == 0)
            survivor.exporter.reload({"probes": {"groups": toggled}})
            assert within(60, survivor.reloaded(reloads)), survivor.exporter.log
    finally:
        ended.set()
        for thread in (*scrapers, traffic):
            thread.join()
        survivor.exporter.reload({})
    assert within(60, survivor.reloaded(reloads + 1))
    assert not problems, problems
    stays = ("hmm_migration", "hmm_range_fault", "hmm_process_migration", "hmm_exporter_migrations_abandoned_total")
    for mine in pages:
        assert len(mine) > 2
        for earlier, later in itertools.pairwise(mine):
            for (name, labels), value in earlier.values.items():
                if name.startswith(stays) and name.endswith(("_total", "_bucket", "_count", "_sum")):
                    assert later.values[name, labels] >= value, (name, labels)


def test_without_a_thread_for_a_connection_it_says_so_once_and_recovers(tmp_path: Path) -> None:
    # Root is not counted (RLIMIT_NPROC, getrlimit(2)); so it is somebody else, with the rights that it takes.
    rights = ",".join(f"+{name.lower().removeprefix('cap_')}" for name in (*WANTED.values(), "CAP_SYS_ADMIN"))
    user = ["setpriv", "--reuid=65531", "--regid=65531", "--clear-groups", f"--inh-caps=-all,{rights}"]
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o011)
    with Exporter(tmp_path, prefix=[*user, f"--ambient-caps=-all,{rights}"]) as exporter:
        survivor = Survivor(exporter)
        most = resource.getrlimit(resource.RLIMIT_NPROC)[0]
        limit = [*user, "prlimit", f"--pid={exporter.process.pid}"]
        subprocess.run([*limit, "--nproc=1:"], check=True)
        for _ in range(20):
            with survivor.connect() as client:
                assert read(client) == b""
        subprocess.run([*limit, f"--nproc={'unlimited' if most == resource.RLIM_INFINITY else most}:"], check=True)
        survivor.is_well()
        assert exporter.log.count("cannot answer a client") == 1


def test_a_log_that_nobody_reads_any_more_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    reader, writer = os.pipe()
    to_the_pipe = ["sh", "-c", f'exec "$@" >/proc/self/fd/{writer} 2>&1', "sh"]
    settings = {"web": {"listen_addresses": [f"127.0.0.1:{port}"], "enable_lifecycle": True}}
    with Starting([*to_the_pipe, *command(tmp_path, settings)], tmp_path / "log", pass_fds=[writer]) as daemon:
        os.close(writer)
        said = b""
        while b" msg=ready " not in said:
            line = os.read(reader, 1 << 16)
            assert line, daemon.log
            said += line
        os.close(reader)  # from now on a line is EPIPE, and SIGPIPE
        with urllib.request.urlopen(urllib.request.Request(url + "/-/reload", method="PUT"), timeout=60) as answer:
            assert answer.read() == b"reloaded\n"
        issued = issue_exactly(300)
        check_totals(scrape(url), issued)
        daemon.process.terminate()
        assert daemon.status() == 0
