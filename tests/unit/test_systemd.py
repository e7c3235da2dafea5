# SPDX-License-Identifier: Apache-2.0
"""What a service manager is told, over real sockets; what is taken from it, in processes that it could have started."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hmm_exporter import systemd

ROOT = Path(systemd.__file__).parents[1]

# Says what it was given, and what a child of it would be.
LISTEN = """\
import json, subprocess
from hmm_exporter import systemd
from hmm_exporter.errors import StartError
manager = systemd.manager()
names = [name for _, name in manager.sockets]
try:
    told = [listener.getsockname()[1] for listener in manager.listeners()]
except StartError as error:
    told = str(error)
found = subprocess.check_output("env; ls -l /proc/self/fd", shell=True, text=True, close_fds=False)
print(json.dumps([names, told, "LISTEN" in found, "socket:" in found]))
"""


@pytest.fixture(params=["path", "abstract"])
def listening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """NOTIFY_SOCKET, and the manager's end of it."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@hmm-exporter-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address.replace("@", "\0", 1) if request.param == "abstract" else address)
        receiver.settimeout(10)
        yield address, receiver


def test_the_manager_hears_of_the_start_the_life_and_the_end(listening: tuple[str, socket.socket]) -> None:
    address, receiver = listening
    manager = systemd.manager({"NOTIFY_SOCKET": address})
    manager.status("attaching")
    manager.ready("18 of 19 probes attached")
    manager.alive()
    manager.stopping()
    assert [receiver.recv(4096).decode().split("\n") for _ in range(4)] == [
        ["STATUS=attaching"],
        ["READY=1", "STATUS=18 of 19 probes attached"],
        ["WATCHDOG=1"],
        ["STOPPING=1", "STATUS=stopping"],
    ]


def test_without_a_manager_nothing_is_done(caplog: pytest.LogCaptureFixture) -> None:
    manager = systemd.manager({})
    manager.ready("all is well")
    assert (manager.watchdog, manager.sockets, caplog.messages) == (0.0, (), [])


@pytest.mark.parametrize("address", ["/nonexistent/notify", "vsock:2:1234", "x" * 200])
def test_a_manager_that_cannot_be_told_costs_a_log_line_and_no_more(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        systemd.manager({"NOTIFY_SOCKET": address}).ready("all is well")
    assert caplog.messages == ["cannot tell the service manager"]


MINE, OTHER = str(os.getpid()), "1"


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": MINE}, 30.0),
        ({"WATCHDOG_USEC": "500000"}, 0.5),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": OTHER}, 0.0),
        ({"WATCHDOG_USEC": "soon", "WATCHDOG_PID": MINE}, 0.0),
        ({"WATCHDOG_PID": MINE}, 0.0),
    ],
)
def test_the_watchdogs_period_is_this_processs(environment: dict[str, str], seconds: float) -> None:
    assert systemd.manager(environment).watchdog == seconds


def test_the_variables_are_taken_out_and_no_other() -> None:
    environment = dict.fromkeys(
        ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "HOME"), "1"
    )
    systemd.manager(environment)
    assert environment == {"HOME": "1"}


def given(passed: int, pid: str = "$$", fds: str = "1", names: str = "web") -> tuple[object, ...]:
    """What a process makes of *passed* as its descriptor 3: names, ports or an error, and what a child has of it."""
    shell = f'LISTEN_PID={pid} LISTEN_FDS={fds} LISTEN_FDNAMES={names} exec "$@" 3<&0 </dev/null'
    command = ["sh", "-c", shell, "sh", sys.executable, "-c", LISTEN]
    return tuple(json.loads(subprocess.check_output(command, stdin=passed, cwd=ROOT, timeout=60)))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def test_a_passed_socket_is_listened_on_and_no_child_has_it(listener: socket.socket) -> None:
    assert given(listener.fileno()) == (["web"], [listener.getsockname()[1]], False, False)


def test_a_socket_without_a_name_is_called_by_its_number(listener: socket.socket) -> None:
    assert given(listener.fileno(), names="")[0] == ["descriptor 3"]


@pytest.mark.parametrize(("pid", "fds"), [("1", "1"), ("$$", "0"), ("$$", "-1"), ("$$", ""), ("", "1")])
def test_sockets_that_are_not_for_this_process_are_none(listener: socket.socket, pid: str, fds: str) -> None:
    names, said, *_ = given(listener.fileno(), pid, fds)
    assert names == []
    assert str(said).startswith("web.systemd_socket: no socket was passed: systemd passes those of hmm-exporter.socket")


def test_what_is_not_a_listening_tcp_socket_is_refused(tmp_path: Path) -> None:
    """What Accept=yes, ListenDatagram=, a path and ListenFIFO= would pass."""
    with contextlib.ExitStack() as stack:
        pair, _ = map(stack.enter_context, socket.socketpair())
        datagram = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        path = stack.enter_context(socket.socket(socket.AF_UNIX))
        path.bind(str(tmp_path / "socket"))
        path.listen()
        file = stack.enter_context((tmp_path / "file").open("w"))
        for each in (pair, datagram, path, file):
            assert given(each.fileno())[1] == (
                "web is not a TCP socket that listens: ListenStream=10466 and Accept=no make one"
            )
