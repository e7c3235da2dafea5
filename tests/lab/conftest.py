# SPDX-License-Identifier: Apache-2.0
"""The lab's fixtures: one machine for all tests, and an exporter in it for each kind of probe."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from tests.exposition import Samples
from tests.lab import guest
from tests.lab.command import GuestProcess
from tests.lab.image import cached_image, ensure_image
from tests.lab.recipe import RecipeError, chosen
from tests.lab.vm import VirtualMachine

ROOT = Path(__file__).parents[2]
# With the machine's processor emulated and the host busy, LLVM takes its time, and so does watching: nothing is
# shed for that. Each scrape is of what was just counted.
CONFIGURATION = """\
probes: {{attach: {attach}, groups: {{per_page: true}}}}
loader: {{timeout: 300s}}
log: {{level: debug}}
series_from_zero: 0
limits: {{cpu: 0}}
"""

# The kernel runs no kprobe's program on a CPU where a task is in bpf(2) on a map, and on 7.3 the daemon is preempted
# there, now and then in its sweep every 15 seconds (kernel/trace/bpf_trace.c, trace_call_bpf; kernel/bpf/syscall.c,
# bpf_disable_instrumentation). Such a loss is counted, and then there is nothing to compare.
ATTEMPTS = 3

Done = TypeVar("Done")


def pytest_configure() -> None:
    try:
        chosen()
    except RecipeError as error:
        raise pytest.UsageError(str(error)) from error


@contextlib.contextmanager
def booted(package: Path, processors: int = 1, kernel_arguments: Sequence[str] = ()) -> Iterator[VirtualMachine]:
    """A machine with the exporter's package, which is copied to the folder first, and the driver."""
    recipe = chosen()
    if os.geteuid() != 0 and not cached_image(recipe):
        reason = f"no image of {recipe.kernel} in the cache, and only root can build one: run it as root once"
        # Where these are the tests that have to pass (.ci/run), none of them may be left out unseen.
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    shutil.copytree(ROOT / "hmm_exporter", package / "hmm_exporter", ignore=shutil.ignore_patterns("__pycache__"))
    with VirtualMachine(ensure_image(recipe), processors=processors, kernel_arguments=kernel_arguments) as vm:
        vm.push(package, "/opt/hmm-exporter")
        vm.run("modprobe test_hmm")
        yield vm


def build_mirror(folder: Path) -> Path:
    """The workload that says what the driver counted."""
    program = folder / "mirror"
    source = Path(__file__).with_name("mirror.c")
    subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-static", "-o", program, source, "-lpthread"], check=True)
    return program


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualMachine]:
    with booted(tmp_path_factory.mktemp("package")) as vm:
        yield vm


@pytest.fixture(scope="session")
def mirror(machine: VirtualMachine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program, in the guest."""
    machine.push(build_mirror(tmp_path_factory.mktemp("mirror")), "/run/mirror")
    return "/run/mirror"


@dataclass(frozen=True)
class GuestExporter:
    """An exporter that runs in the machine and is scraped from outside of it."""

    machine: VirtualMachine
    attach: str
    process: GuestProcess

    def get(self, path: str, accept: str = "*/*") -> str:
        url = f"http://127.0.0.1:{self.machine.host_port}{path}"
        request = urllib.request.Request(url, headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=60) as response:
            body: bytes = response.read()
        return body.decode()

    def scrape(self) -> Samples:
        return Samples.parse(self.get("/metrics"))

    def measured(self, name: str, work: Callable[[], Done]) -> tuple[Done, Samples, Samples]:
        """What the work gave, the figures after it, and since before it; with a fresh driver, and of a run of which
        nothing was missed, if there is one.
        """
        for _ in range(ATTEMPTS):
            guest.reload_test_hmm(self.machine)
            before = self.scrape()
            done = work()
            after = self.scrape()
            since = after.since(before)
            missed = since.nonzero("hmm_exporter_probe_missed_total")
            if not missed:
                break
            print(f"{self.attach}, {name}: measured again, for the exporter says what it missed: {missed}")
        return done, after, since


@contextlib.contextmanager
def serving(machine: VirtualMachine, attach: str, *flags: str, settings: str = "") -> Iterator[GuestExporter]:
    """An exporter that is ready, until the end of the block. ``settings``: lines of its configuration."""
    machine.run("cat > /tmp/hmm-exporter.yaml", stdin=(CONFIGURATION.format(attach=attach) + settings).encode())
    command = " ".join(("python3 -m hmm_exporter --config.file /tmp/hmm-exporter.yaml", *flags))
    process = machine.start(f"cd /opt/hmm-exporter; exec {command}")
    running = GuestExporter(machine, attach, process)
    for _ in range(600):
        try:
            running.get("/-/ready")
            break
        except (urllib.error.URLError, ConnectionError):
            assert process.running(), process.stderr()
            time.sleep(0.5)
    yield running
    assert process.stop().status == 0, process.stderr()


@pytest.fixture(scope="session", params=["fentry", "kprobe"])
def exporter(request: pytest.FixtureRequest, machine: VirtualMachine) -> Iterator[GuestExporter]:
    with serving(machine, str(request.param)) as running:
        yield running
