# SPDX-License-Identifier: Apache-2.0
"""Faults of a machine with a real driver, under traffic: what moved is what the driver counted, no more and no less.

Belongs here: what takes a machine of its own to break. Does not belong here: what breaks the daemon alone, on the
simulator (tests/bpf/test_faults*.py).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from tests.exposition import Samples
from tests.lab import guest
from tests.lab.conftest import ATTEMPTS, CONFIGURATION, GuestExporter, booted, build_mirror, serving
from tests.lab.prediction import PAGE
from tests.lab.recipe import chosen
from tests.lab.vm import VirtualMachine

if chosen().kernel != "7.3":
    pytest.skip(
        "faults: once is enough, on 7.3, the kernel that is as its distribution built it", allow_module_level=True
    )

# As many pages as the driver asks of one migrate_vma_setup. A process does it so many times.
PAGES, ROUNDS = 64, 8
DEED = f"/run/mirror name=traffic warm={PAGES} " + "migrate resident back resident " * ROUNDS
STOP = "/run/stop-traffic"
# How to attach, and what the clock says at the start.
DAEMONS = (("fentry", "2100-01-01"), ("kprobe", "1970-01-02"))


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualMachine]:
    """With two processors, one of which can go away."""
    with booted(tmp_path_factory.mktemp("package"), processors=2) as vm:
        vm.push(build_mirror(tmp_path_factory.mktemp("mirror")), "/run/mirror")
        guest.transparent_hugepages(vm, "never")
        yield vm


@pytest.fixture(scope="module", params=DAEMONS, ids=lambda daemon: daemon[0])
def exporter(request: pytest.FixtureRequest, machine: VirtualMachine) -> Iterator[GuestExporter]:
    """It starts while the clock is wrong by years."""
    attach, date = request.param
    machine.run(f"date -s {date}")
    with serving(machine, attach) as running:
        yield running


@dataclass(frozen=True)
class Driver:
    """What the driver said in one run of the traffic: calls, and the pages that came to be there and to be here."""

    calls: int
    there: int
    here: int


def driver(answers: str) -> Driver:
    """From how many pages it found on its device after each call: to a call that moves a part it answers an error."""
    said = [line.split() for line in answers.splitlines()]
    assert [deed for deed, _ in said] == ["migrate", "resident", "back", "resident"] * (len(said) // 4)
    assert len(said) % (4 * ROUNDS) == 0
    resident = [int(count) for deed, count in said if deed == "resident"]
    there = here = 0
    for number, (moved, left) in enumerate(zip(resident[::2], resident[1::2])):
        before = resident[2 * number - 1] if number % ROUNDS else 0
        there, here = there + moved - before, here + moved - left
    return Driver(len(said) // 2, there, here)


class Traffic:
    """A process after another that moves its memory to the device and back."""

    def __init__(self, machine: VirtualMachine) -> None:
        self._machine = machine
        machine.run(f"rm -f {STOP}")
        self._process = machine.start(f"while [ ! -e {STOP} ]; do {DEED}; done")

    def end(self) -> Driver:
        self._machine.run(f"touch {STOP}")
        return driver(self._process.wait().stdout)


@dataclass
class Scraping:
    """Scrapes one after another, in a thread."""

    exporter: GuestExporter
    seen: list[Samples] = field(default_factory=list)
    error: Exception | None = None

    def __enter__(self) -> Scraping:
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._scrape)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()
        if self.error:
            raise self.error
        for earlier, later in zip(self.seen, self.seen[1:]):
            check_nothing_went_down(earlier, later)

    def _scrape(self) -> None:
        try:
            while not self._enough.is_set():
                self.seen.append(self.exporter.scrape())
        except Exception as error:
            self.error = error


def check_nothing_went_down(earlier: Samples, later: Samples) -> None:
    """No series of HMM's counters did, nor has one gone."""
    for key, value in earlier.values.items():
        if key[0].startswith("hmm_") and key[0].endswith(("_total", "_count", "_bucket", "_sum")):
            assert later.values.get(key, -1) >= value, key


def pages(since: Samples, name: str, **labels: str) -> int:
    return int(since.sum(name, **labels)) // PAGE


def check_exact(exporter: GuestExporter, name: str, work: Callable[[], None]) -> Samples:
    """Totals under traffic and that work; again where the exporter says that it missed something. What is since."""
    for _ in range(ATTEMPTS):
        before = exporter.scrape()
        traffic = Traffic(exporter.machine)
        work()
        done = traffic.end()
        after = exporter.scrape()
        since = after.since(before)
        missed = since.nonzero("hmm_exporter_probe_missed_total")
        print(f"{exporter.attach}, {name}: {done}, {missed=}")
        if not missed:
            break
    assert not missed
    assert done.calls > ROUNDS
    check_nothing_went_down(before, after)
    assert after.get("hmm_exporter_books_balanced") == 1
    assert after.get("hmm_exporter_migrations_in_flight") == 0
    assert after.get("hmm_exporter_map_entries", map="thread") == 0
    assert since.get("hmm_exporter_migrations_abandoned_total") == 0
    assert since.sum("hmm_migrations_started_total") == since.sum("hmm_migrations_completed_total") == done.calls
    assert pages(since, "hmm_migration_moved_bytes_total") == done.there + done.here
    assert pages(since, "hmm_process_moved_bytes_total", comm="traffic") == done.there + done.here
    return since


def in_kernel(machine: VirtualMachine) -> str:
    """What the kernel itself has of programs, links, and functions that something is attached to."""
    lists = "bpftool -j prog list | grep -o '\"id\":[0-9]*'; bpftool -j link list | grep -o '\"id\":[0-9]*'"
    tracing = (
        "cat /sys/kernel/tracing/enabled_functions /sys/kernel/tracing/uprobe_events /sys/kernel/debug/kprobes/list"
    )
    return machine.run(f"{lists}; {tracing}", check=False).stdout


@contextlib.contextmanager
def killed(machine: VirtualMachine, attach: str) -> Iterator[GuestExporter]:
    """A daemon that ends by SIGKILL when the block does."""
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(serving(machine, attach))
        yield daemon
        daemon.process.signal("KILL")
        daemon.process.wait()
        stack.pop_all()  # its end has been seen, and is not that of a daemon that was asked to stop


# The first test, for the exporter of the others has the port until the end.
def test_a_killed_daemon_leaves_nothing_and_the_next_one_is_exact(machine: VirtualMachine) -> None:
    before = in_kernel(machine)
    for attach in ("fentry", "kprobe"):
        traffic = Traffic(machine)
        with killed(machine, attach) as daemon:
            during = in_kernel(machine)
            pid = daemon.process.pid
            helpers = machine.run(f"cat /proc/{pid}/task/{pid}/children").stdout.split()
            assert traffic.end().calls
            check_exact(daemon, "to be killed", lambda: time.sleep(1))
            traffic = Traffic(machine)
        assert len(helpers) == 1
        after = until(lambda: in_kernel(machine), before)
        print(f"{attach}, killed: {len(during.split())} words of the kernel, {len(after.split())} afterwards")
        assert during != before == after
        assert machine.run(f"test -e /proc/{helpers[0]}", check=False).status == 1
        assert traffic.end().calls


def until(ask: Callable[[], str], wanted: str) -> str:
    """What it says when it says so, or at last: programs are freed a little later."""
    for _ in range(60):
        if (said := ask()) == wanted:
            break
        time.sleep(0.5)
    return said


def by_direction(since: Samples) -> dict[str, int]:
    directions = {dict(its)["direction"] for its in since.named("hmm_migration_moved_bytes_total")}
    moved = {each: pages(since, "hmm_migration_moved_bytes_total", direction=each) for each in directions}
    return {direction: count for direction, count in moved.items() if count}


def test_a_clock_that_jumps_by_years_changes_nothing(exporter: GuestExporter) -> None:
    def jump() -> None:
        for date in ("2100-01-01", "1970-01-02", "2038-01-20", "2026-01-01"):
            exporter.machine.run(f"date -s {date}")
            time.sleep(1)

    with Scraping(exporter):
        since = check_exact(exporter, "clock", jump)
    assert set(by_direction(since)) == {"host_to_device", "device_to_host"}


def test_a_stopped_daemon_misses_nothing(exporter: GuestExporter) -> None:
    def stop() -> None:
        exporter.process.signal("STOP")
        time.sleep(3)
        exporter.process.signal("CONT")

    since = check_exact(exporter, "stopped", stop)
    assert set(by_direction(since)) == {"host_to_device", "device_to_host"}


def test_the_driver_is_unloaded_and_loaded_again(exporter: GuestExporter) -> None:
    def reload() -> None:
        for _ in range(3):
            # It is in use, but for the moment from one process to the next.
            exporter.machine.run("until rmmod test_hmm 2>/dev/null; do :; done; sleep 0.5; modprobe test_hmm")
            time.sleep(1)
            exporter.scrape()  # what is gone before anybody looked is unknown

    devices = exporter.scrape().named("hmm_exporter_device_info")
    with Scraping(exporter):
        since = check_exact(exporter, "driver", reload)
    print(f"{exporter.attach}, driver: {by_direction(since)}")
    assert exporter.scrape().named("hmm_exporter_device_info") == devices
    since = check_exact(exporter, "after the driver", lambda: time.sleep(1))
    assert set(by_direction(since)) == {"host_to_device", "device_to_host"}
    names = {dict(its)["driver"] for its in since.nonzero("hmm_interval_notifier_removes_total")}
    assert names == {"test_hmm"}
    owners = {dict(its)["pgmap_owner"] for its in since.nonzero("hmm_migration_moved_bytes_total")}
    assert owners == {"test_hmm-0"}


def test_a_processor_goes_away_and_comes_back(exporter: GuestExporter) -> None:
    def unplug() -> None:
        for _ in range(3):
            # No scrape meanwhile: a kprobe's program is skipped, and counted as missed, on a CPU that reads a map.
            exporter.machine.run("echo 0 > /sys/devices/system/cpu/cpu1/online; sleep 1")
            exporter.machine.run("echo 1 > /sys/devices/system/cpu/cpu1/online; sleep 1")

    check_exact(exporter, "processor", unplug)
    for processor in (0, 1):
        before = exporter.scrape()
        done = driver(exporter.machine.run(f"taskset -c {processor} {DEED}").stdout)
        since = exporter.scrape().since(before)
        assert pages(since, "hmm_migration_moved_bytes_total") == done.there + done.here > 0
        assert since.sum("hmm_migrations_completed_total") == done.calls


def configure(exporter: GuestExporter, groups: str, cpu: str = "0") -> None:
    """Reload, and wait for it."""
    text = CONFIGURATION.format(attach=exporter.attach).replace("per_page: true", groups)
    text = text.replace("cpu: 0", f"cpu: {cpu}")
    done = exporter.process.stderr().count("configuration reloaded")
    exporter.machine.run("cat > /tmp/hmm-exporter.yaml", stdin=text.encode())
    exporter.process.signal("HUP")
    for _ in range(120):
        log = exporter.process.stderr()
        assert "not reloaded" not in log, log
        if log.count("configuration reloaded") > done:
            return
        time.sleep(0.5)
    raise AssertionError(log)


def states(exporter: GuestExporter) -> dict[str, str]:
    info = [dict(its) for its in exporter.scrape().named("hmm_exporter_probe_info")]
    return {its["probe"]: its["state"] for its in info}


def test_groups_that_a_reload_takes_off_and_on_leave_the_others_exact(exporter: GuestExporter) -> None:
    attached = states(exporter)

    def regroup() -> None:
        off = "per_page: false, range_fault: false, interval_notifier: false, device_range: false"
        configure(exporter, off)
        assert {"hmm_range_fault", "mmu_interval_notifier_remove"} <= {
            probe for probe, state in states(exporter).items() if state == "disabled"
        }
        configure(exporter, "per_page: true")

    check_exact(exporter, "reload", regroup)
    assert states(exporter) == attached


def test_what_is_shed_and_taken_back_leaves_the_others_exact(exporter: GuestExporter) -> None:
    attached = states(exporter)

    def shed() -> None:
        configure(exporter, "per_page: true", "0.01%")
        wait_for(exporter, "group of probes shed")
        assert "shed" in states(exporter).values()
        configure(exporter, "per_page: true")
        for _ in range(60):
            if states(exporter) == attached:
                return
            time.sleep(2)

    before = exporter.scrape()
    check_exact(exporter, "shed", shed)
    assert states(exporter) == attached
    assert exporter.scrape().since(before).sum("hmm_exporter_sheds_total") >= 1


def wait_for(exporter: GuestExporter, text: str) -> None:
    for _ in range(150):
        if text in exporter.process.stderr():
            return
        time.sleep(1)
    raise AssertionError(exporter.process.stderr())
