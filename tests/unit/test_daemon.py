# SPDX-License-Identifier: Apache-2.0
"""The life of the process, without a kernel: what is done in which order, and that it ends well.

Attaching is the affair of tests/unit/bpf; here a stand-in attaches nothing. The endpoint is a real one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hmm_exporter import __version__, daemon, systemd
from hmm_exporter.bpf import watch
from hmm_exporter.bpf.attach import Attachments
from hmm_exporter.bpf.plan import ABSENT, ATTACHED, DENIED, DISABLED, ERROR, Outcome
from hmm_exporter.bpf.source import Plan
from hmm_exporter.catalog.probes import GROUPS, PROBES
from hmm_exporter.config import Config, Filter, Probes, Web
from hmm_exporter.daemon import State, check
from hmm_exporter.errors import StartError
from hmm_exporter.kernel.features import Kernel
from hmm_exporter.metrics.scrape import Scrape
from hmm_exporter.web.server import Server
from tests.unit.bpf import kernels

Attach = Callable[[Kernel, Config, Plan], Attachments]


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """The process's own handling of signals, put back."""
    before = {
        number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def run(config: Config, read: Callable[[], Config] | None = None) -> int:
    return daemon.run(config, read or (lambda: config))


def configured(port: int = 0, **changes: object) -> Config:
    return replace(Config(), web=Web(listen_addresses=(f"127.0.0.1:{port}",)), **changes)  # type: ignore[arg-type]


class Machine:
    """Stands where the kernel and the attaching do; notes what was done."""

    def __init__(self) -> None:
        self.kernel = kernels.kernel()
        self.done: list[str] = []
        self.configs: list[Config] = []
        self.states: dict[str, tuple[str, str, str]] = {}
        """Probes that are not attached by fentry: state, kind, reason."""
        self.in_sleep: Callable[[], None] = lambda: os.kill(os.getpid(), signal.SIGTERM)
        self.in_attach: Callable[[], None] = lambda: None
        self.pause = daemon.SWEEP_SECONDS
        self.now = 0.0

    def running_kernel(self) -> Kernel:
        self.done.append("kernel")
        return self.kernel

    def attach(self, kernel: Kernel, config: Config, plan: Plan) -> Attachments:
        self.done.append("attach")
        self.configs.append(config)
        self.in_attach()
        machine = self

        class Noted(Attachments):
            def close(self) -> None:
                machine.done.append("close")
                super().close()

        attachments = Noted()
        for target in reversed(plan.targets):
            (probe,) = (each for each in PROBES if each.name == target.probe)
            state, kind, reason = self.states.get(target.probe, (ATTACHED, "fentry", ""))
            attachments.outcomes.append(Outcome(probe, target.function, state, kind, reason))
        return attachments

    def sleep(self, seconds: float) -> None:
        assert seconds == self.pause
        self.now += seconds
        self.done.append("sleep")
        self.in_sleep()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(watch, "running_kernel", made.running_kernel)
    monkeypatch.setattr(watch, "attach", made.attach)
    # This process has other tests to run: what is given up, and what the helper does, is tests/bpf's.
    monkeypatch.setattr(daemon, "confine", lambda: [])
    monkeypatch.setattr(daemon, "start_helper", lambda *_: socket.socketpair()[0])

    class Time:
        sleep = staticmethod(made.sleep)
        monotonic = staticmethod(lambda: made.now)
        clock_gettime = staticmethod(time.clock_gettime)
        CLOCK_BOOTTIME = time.CLOCK_BOOTTIME

    monkeypatch.setattr(daemon, "time", Time)
    return made


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def test_a_new_state_is_not_ready_and_says_why() -> None:
    state = State()
    assert (state.ready, state.probes, state.version) == (False, (), __version__)
    assert state.reason.startswith("starting: ")


def test_a_state_is_ready_once_the_probes_were_tried_and_tells_of_each() -> None:
    state = State()
    state.attached(
        [
            Outcome(PROBES[0], "migrate_vma_setup", ATTACHED, "fentry"),
            Outcome(PROBES[1], "migrate_vma_pages", DENIED, reason="not permitted"),
        ]
    )
    assert (state.ready, state.reason) == (True, "")
    assert [tuple(row) for row in state.probes] == [
        ("migrate_vma_setup", "migrate_vma_setup", "fentry", "attached", ""),
        ("migrate_vma_pages", "migrate_vma_pages", "none", "denied", "not permitted"),
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_told_to_stop_and_then_closes_everything(
    machine: Machine, number: signal.Signals
) -> None:
    machine.in_sleep = lambda: os.kill(os.getpid(), number)
    assert run(configured()) == 0
    assert machine.done == ["kernel", "attach", "sleep", "close"]


def test_it_is_healthy_at_once_and_ready_when_the_probes_were_tried(machine: Machine) -> None:
    port = free_port()
    answers: list[tuple[int, int]] = []

    def ask() -> None:
        answers.append((get(port, "/-/healthy")[0], get(port, "/-/ready")[0]))

    def ask_and_stop() -> None:
        ask()
        os.kill(os.getpid(), signal.SIGTERM)

    machine.in_attach, machine.in_sleep = ask, ask_and_stop
    assert run(configured(port)) == 0
    assert answers == [(200, 503), (200, 200)]
    with pytest.raises(OSError, match="refused"), socket.create_connection(("127.0.0.1", port)):
        pass


def test_metrics_are_of_the_kernel_the_process_and_python(machine: Machine) -> None:
    port, pages = free_port(), list[str]()
    machine.states = {"hmm_range_fault": (ERROR, "none", "taken")}

    def scrape_and_stop() -> None:
        pages.append(get(port, "/metrics")[1])
        os.kill(os.getpid(), signal.SIGTERM)

    machine.in_sleep = scrape_and_stop
    run(configured(port))
    assert 'hmm_exporter_probe_attached{probe="migrate_vma_setup"} 1.0' in pages[0]
    assert 'hmm_exporter_probe_attached{probe="hmm_range_fault"} 0.0' in pages[0]
    assert 'release="7.3.4"' in pages[0]
    assert 'btf="yes"' in pages[0]
    assert "process_resident_memory_bytes " in pages[0]
    assert "python_info{" in pages[0]


def test_a_port_in_use_ends_the_start_before_anything_costly(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=f"127.0.0.1:{port}"):
            run(configured(port))
    assert machine.done == []


def test_a_start_that_fails_gives_the_port_back(machine: Machine) -> None:
    def fail() -> None:
        raise StartError("loader: no Python at /usr/bin/python3")

    port = free_port()
    machine.in_attach = fail
    with pytest.raises(StartError):
        run(configured(port))
    with socket.create_server(("127.0.0.1", port)):
        pass
    assert machine.done == ["kernel", "attach"]


def test_a_signal_while_it_attaches_is_a_stop(machine: Machine) -> None:
    machine.in_attach = lambda: os.kill(os.getpid(), signal.SIGTERM)
    assert run(configured()) == 0
    assert machine.done == ["kernel", "attach"]


def test_further_signals_do_not_disturb_the_stop(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    close = Server.close

    def close_under_fire(server: Server) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        close(server)

    monkeypatch.setattr(Server, "close", close_under_fire)
    assert run(configured()) == 0
    assert machine.done[-1] == "close"


def test_it_sweeps_after_each_pause(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scrape, "sweep", lambda scrape: machine.done.append("sweep"))

    def three_times() -> None:
        if machine.done.count("sleep") == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    machine.in_sleep = three_times
    assert run(configured()) == 0
    assert machine.done == ["kernel", "attach", "sleep", "sweep", "sleep", "sweep", "sleep", "close"]


def test_a_sweep_that_fails_is_logged_and_tried_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(scrape: Scrape) -> None:
        machine.done.append("sweep")
        raise OSError(12, "Cannot allocate memory")

    def twice() -> None:
        if machine.done.count("sleep") == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Scrape, "sweep", fail)
    machine.in_sleep = twice
    with caplog.at_level(logging.ERROR):
        assert run(configured()) == 0
    assert machine.done == ["kernel", "attach", "sleep", "sweep", "sleep", "close"]
    assert "cannot end idle rows" in caplog.text


class Manager:
    """Stands where systemd does: a socket that is told, and the environment that says so."""

    def __init__(self, environment: pytest.MonkeyPatch, folder: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(folder / "notify"))
        self.socket.setblocking(False)
        environment.setenv("NOTIFY_SOCKET", str(folder / "notify"))
        environment.setenv("WATCHDOG_USEC", "24000000")

    def told(self) -> list[str]:
        """All that it was told since it was last asked."""
        messages = []
        with contextlib.suppress(BlockingIOError):
            while True:
                messages.append(self.socket.recv(4096).decode())
        return messages


@pytest.fixture
def manager(machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Manager]:
    made = Manager(monkeypatch, tmp_path)
    machine.pause = 12.0
    yield made
    made.socket.close()


def test_the_service_manager_is_told_of_start_readiness_life_and_stop(machine: Machine, manager: Manager) -> None:
    told: list[list[str]] = []
    machine.states = {"hmm_range_fault": (DENIED, "none", "not permitted")}

    def three_times() -> None:
        told.append(manager.told())
        if len(told) == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    machine.in_attach = lambda: told.append(manager.told())
    machine.in_sleep = three_times
    assert run(configured()) == 0
    groups = {group.name for group in GROUPS if group.default}
    wanted = sum(probe.group in groups for probe in PROBES)
    assert told == [
        ["STATUS=compiling and attaching the probes"],
        [f"READY=1\nSTATUS={wanted - 1} of {wanted} probes attached"],
        ["WATCHDOG=1"],
        ["WATCHDOG=1"],
    ]
    assert manager.told() == ["STOPPING=1\nSTATUS=stopping"]


def test_what_is_started_for_compiling_is_not_told_of_the_service_manager(machine: Machine, manager: Manager) -> None:
    left: list[str] = []
    machine.in_attach = lambda: left.extend(os.environ)
    run(configured())
    assert "PATH" in left
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC"} & set(left)


def test_a_daemon_that_cannot_accept_any_more_does_not_say_that_it_lives(
    machine: Machine, manager: Manager, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Server, "start", lambda server, first: None)  # as if its thread had ended
    machine.pause = 0.02
    monkeypatch.setenv("WATCHDOG_USEC", "40000")

    def twice() -> None:
        if machine.done.count("sleep") == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    machine.in_sleep = twice
    assert run(configured()) == 0
    assert "WATCHDOG=1" not in manager.told()
    assert "the thread that accepts connections does not answer" in caplog.messages


def test_a_passed_socket_is_served_and_no_other_port(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = []
    with socket.create_server(("127.0.0.1", 0)) as passed:
        port = passed.getsockname()[1]
        taken = passed.detach()
    monkeypatch.setattr(systemd, "_FIRST", taken)
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "1")

    def ask_and_stop() -> None:
        answers.append(get(port, "/-/ready"))
        os.kill(os.getpid(), signal.SIGTERM)

    machine.in_sleep = ask_and_stop
    assert run(replace(Config(), web=Web(systemd_socket=True))) == 0
    assert answers == [(200, "ready\n")]


def test_a_passed_socket_that_nobody_asked_for_is_told(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert run(configured()) == 0
    assert "a socket was passed and is not used: give --web.systemd-socket" in caplog.messages


def test_a_socket_that_was_not_passed_ends_the_start_before_anything_costly(machine: Machine) -> None:
    with pytest.raises(StartError, match=r"^web\.systemd_socket: no socket was passed"):
        run(replace(Config(), web=Web(systemd_socket=True)))
    assert machine.done == []


def test_a_simulator_is_watched_in_place_of_the_kernel(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def simulated_kernel(program: Path) -> Kernel:
        asked.append(program)
        return machine.kernel

    monkeypatch.setattr(watch, "simulated_kernel", simulated_kernel)
    assert run(configured(simulator="build/hmm-simulator")) == 0
    assert asked == [Path("build/hmm-simulator")]
    assert "kernel" not in machine.done


def test_only_what_went_wrong_is_a_warning(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.states = {
        "hmm_range_fault": (DENIED, "none", "not permitted"),
        "migrate_vma_pages": (ERROR, "none", "taken"),
    }
    machine.kernel = kernels.kernel(without={"migrate_device_pfns"})
    with caplog.at_level(logging.WARNING):
        run(configured())
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    # This kernel's files of symbols and of physical ranges do not exist.
    assert warnings == [
        "probe not attached",
        "probe not attached",
        "drivers and callers will be called unknown",
        "which device, and in which direction, will not be told",
    ]


def test_a_kernel_on_which_nothing_can_thrash_is_told_so(
    machine: Machine, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    machine.kernel = replace(machine.kernel, device_private=False)
    told = "no memory migrates to a device here, and none can thrash"
    check(Config(), strict=False)
    assert f"kernel: {told}: CONFIG_DEVICE_PRIVATE is off" in capsys.readouterr().out.splitlines()
    with caplog.at_level(logging.WARNING):
        run(configured())
    assert told in [record.getMessage() for record in caplog.records]


def test_where_no_probe_is_attached_a_warning_says_that_nothing_is_watched(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.states = {probe.name: (DENIED, "none", "not permitted") for probe in PROBES}
    with caplog.at_level(logging.WARNING):
        run(configured())
    assert "nothing is watched" in [record.getMessage() for record in caplog.records]


CHECKED = {
    "migrate_vma_setup": (ATTACHED, "fentry", ""),
    "hmm_range_fault": (DENIED, "none", "fentry: not permitted"),
}


def test_check_prints_a_line_for_each_probe_in_the_catalogues_order_and_lets_go(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.states = CHECKED
    machine.kernel = kernels.kernel(without={"migrate_device_pfns"})
    assert check(Config(), strict=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-2]] == [probe.name for probe in PROBES]
    width = max(len(probe.name) for probe in PROBES)
    by_name = {line.split()[0]: line[width + 2 :] for line in lines}
    assert by_name["migrate_vma_setup"] == "attached  fentry on migrate_vma_setup"
    assert by_name["hmm_range_fault"] == "denied    fentry: not permitted"
    assert by_name["migrate_device_pfns"].startswith("absent    not in this kernel")
    assert lines[-1].startswith("devices: which device, and in which direction, will not be told: ")
    assert lines[-2].startswith("symbols: drivers and callers will be called unknown: /nonexistent: ")
    assert machine.done == ["kernel", "attach", "close"]


def test_check_tries_every_group_and_leaves_out_what_is_excluded(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    off = {group.name: False for group in GROUPS}
    config = Config(probes=Probes(exclude=("hmm_range_fault",), groups=off), filter=Filter(tgids=(1,)))
    check(config, strict=False)
    out = capsys.readouterr().out
    assert out.count("attached") == len(PROBES) - 2
    assert "disabled  named in probes.exclude" in out
    assert "disabled  needs hmm_range_fault: named in probes.exclude" in out
    assert machine.configs[0].filter == config.filter


@pytest.mark.parametrize(("state", "status"), [(ATTACHED, 0), (DENIED, 1), (ERROR, 1), (ABSENT, 0), (DISABLED, 0)])
def test_a_strict_check_fails_for_what_this_kernel_could_have_and_nothing_else(
    machine: Machine, state: str, status: int
) -> None:
    machine.states = {"hmm_range_fault": (state, "none", "whatever")}
    assert check(Config(), strict=True) == status
    assert check(Config(), strict=False) == 0


def test_the_time_since_the_process_began_is_measured_from_before_its_first_line() -> None:
    code = (
        "import json, time; before = time.monotonic(); time.sleep(0.2)\n"
        "from hmm_exporter.daemon import _seconds_since_start\n"
        "print(json.dumps([_seconds_since_start(), time.monotonic() - before]))"
    )
    output = subprocess.check_output([sys.executable, "-c", code], cwd=Path(daemon.__file__).parent.parent, timeout=30)
    since_start, since_first_line = json.loads(output)
    assert since_first_line - 0.02 <= since_start < since_first_line + 5
