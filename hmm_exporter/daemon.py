# SPDX-License-Identifier: Apache-2.0
"""The life of the process: configure, learn the kernel, load, attach, drop, serve, stop.

Top to bottom, as it happens. How each step is done belongs to its own room.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

from hmm_exporter import __version__, log, memory, open_files, systemd
from hmm_exporter.bpf.attach import Attachments
from hmm_exporter.bpf.plan import ATTACHED, DENIED, ERROR, Outcome, reads_cgroups
from hmm_exporter.bpf.watch import attach_probes, watched_kernel
from hmm_exporter.catalog.probes import GROUPS
from hmm_exporter.config import Config
from hmm_exporter.confinement.confine import Part, confine
from hmm_exporter.governor.governor import Governor
from hmm_exporter.kernel.features import Kernel
from hmm_exporter.metrics.confinement import Confinement
from hmm_exporter.metrics.scrape import Scrape
from hmm_exporter.privileged.client import Client
from hmm_exporter.privileged.helper import start as start_helper
from hmm_exporter.probing import Probing
from hmm_exporter.reload import Reload
from hmm_exporter.web.server import Server
from hmm_exporter.web.status import ProbeRow
from hmm_exporter.workload.workloads import Workloads

SWEEP_SECONDS = 15.0
_LOAD_SECONDS = 30.0
"""For what the helper does beside compiling."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_log = log.Logger(__name__)


class _Stop(BaseException):
    """SIGTERM or SIGINT arrived."""


class _Hangup:
    """SIGHUP: what it asks for, or, before that can be done, that it was asked for."""

    def __init__(self) -> None:
        self._asked = False
        self._do: Callable[[], None] | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._do:
            self._do()
        self._asked = True

    def then(self, do: Callable[[], None]) -> None:
        """From now on. Once at once, if it was asked for."""
        self._do = do
        if self._asked:
            do()


class State:
    """What the endpoint tells about the daemon: see web.status.Status."""

    version = __version__

    def __init__(self) -> None:
        self.ready = False
        self.reason = "starting: the probes are not attached yet"
        self.probes: Sequence[ProbeRow] = ()
        self.reload: Callable[[], str] | None = None

    def attached(self, outcomes: Sequence[Outcome]) -> None:
        self.probes = [ProbeRow(o.probe.name, o.function, o.kind, o.state, o.reason) for o in outcomes]
        self.ready, self.reason = True, ""


def run(config: Config, read: Callable[[], Config]) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status. Raises StartError.

    ``read`` gives the configuration as it is then; it raises ConfigError.
    """
    manager = systemd.manager()
    registry, state = CollectorRegistry(), State()
    server, attachments, probing = None, None, None
    hangup = _Hangup()
    try:
        for number in _SIGNALS:
            signal.signal(number, _stop)
        signal.signal(signal.SIGHUP, hangup)
        open_files.allow()
        # Before anything costly: a port in use ends the start at once.
        passed = manager.listeners() if config.web.systemd_socket else ()
        if manager.sockets and not passed:  # its port is then in use, and nobody would know by whom
            _log.warning("a socket was passed and is not used: give --web.systemd-socket", name=manager.sockets[0][1])
        addresses = () if config.web.systemd_socket else config.web.listen_addresses
        server = Server(addresses, config.web.telemetry_path, registry, state, passed, config.web.config_file)
        parts: list[Part] = []
        server.start(lambda: parts.extend(confine()))
        addressed = " ".join(server.addresses)
        _log.info("listening", addresses=addressed, protections=server.protections, version=__version__)
        manager.status("compiling and attaching the probes")
        kernel = watched_kernel(config)
        attachments, outcomes = attach_probes(kernel, config)
        _log_outcomes(outcomes)
        for _, consequence, reason in _wants(kernel, config, attachments):
            _log.warning(consequence, reason=reason)
        kernel = dataclasses.replace(kernel, btf=None)
        memory.trim()
        # The last process that it starts; its end is seen by the channel.
        helper = Client(start_helper(kernel, config, attachments), patience=2 * config.loader.timeout + _LOAD_SECONDS)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        parts += confine()  # after the other thread's, long ago: what either could not give up counts
        _log_confinement(parts)
        scrape = Scrape(kernel, config, attachments, ready_seconds=_seconds_since_start())
        probing = Probing(config, attachments, helper, scrape)
        governor = Governor(
            config.limits.cpu, probing, attachments, scrape, changed=lambda: state.attached(probing.outcomes)
        )
        reload = Reload(config, read, _taker(probing, scrape, governor, state))
        its_own = ProcessCollector(registry=None), PlatformCollector(registry=None)
        for collector in (scrape, governor, reload, Confinement(parts), *its_own):
            registry.register(collector)
        state.reload = reload if config.web.enable_lifecycle else None
        state.attached(outcomes)
        _log.info(
            "ready",
            attached=sum(o.state == ATTACHED for o in outcomes),
            probes=len(outcomes),
            seconds=round(_seconds_since_start(), 2),
        )
        manager.ready(_summary(outcomes))
        hangup.then(reload.soon)
        pause = min(SWEEP_SECONDS, manager.watchdog / 2 or SWEEP_SECONDS)
        sweep_at = time.monotonic() + pause
        while True:
            wait = governor.round(time.monotonic())
            time.sleep(max(min(wait, sweep_at - time.monotonic()), 0))
            if time.monotonic() < sweep_at:
                continue
            sweep_at = time.monotonic() + pause
            # Whoever is said to live has just read all maps, which takes the lock of a scrape, and is listened to.
            swept, answered = _sweep(scrape), server.alive(patience=pause / 2)
            if not answered:
                _log.error("the thread that accepts connections does not answer")
            if swept and answered:
                manager.alive()
    except _Stop:
        _log.info("stopping")
        manager.stopping()
        return 0
    finally:
        for number in (*_SIGNALS, signal.SIGHUP):
            signal.signal(number, _ignore)
        if server:
            server.close()
        if probing:
            probing.close()
        elif attachments:
            attachments.close()


def check(config: Config, strict: bool) -> int:
    """Attach everything, print a line for each probe, let go; returns the exit status.

    All groups are tried, also those that the configuration switches off, because the question
    is what this kernel can do. With ``strict``, 1 if a probe that it could have is not attached.
    """
    groups = {group.name: True for group in GROUPS}
    config = dataclasses.replace(config, probes=dataclasses.replace(config.probes, groups=groups))
    kernel = watched_kernel(config)
    attachments, outcomes = attach_probes(kernel, config)
    attachments.close()
    names = max(len(outcome.probe.name) for outcome in outcomes)
    for outcome in outcomes:
        how = outcome.reason or f"{outcome.kind} on {outcome.function}"
        print(f"{outcome.probe.name:{names}}  {outcome.state:8}  {how}")
    for source, consequence, reason in _wants(kernel, config, attachments):
        print(f"{source}: {consequence}: {reason}")
    return int(strict and any(outcome.state in (DENIED, ERROR) for outcome in outcomes))


def _wants(kernel: Kernel, config: Config, attachments: Attachments) -> Iterator[tuple[str, str, str]]:
    """What is missing beside probes: (where, what it leads to, reason)"""
    if not kernel.device_private and not kernel.btf_problem:
        yield "kernel", "no memory migrates to a device here, and none can thrash", "CONFIG_DEVICE_PRIVATE is off"
    if not any(outcome.state == ATTACHED for outcome in attachments.outcomes):
        yield "probes", "nothing is watched", "no probe is attached"
    if kernel.symbols.problem:
        yield "symbols", "drivers and callers will be called unknown", kernel.symbols.problem
    if attachments.devices_problem:
        yield "devices", "which device, and in which direction, will not be told", attachments.devices_problem
    if config.process_labels and not reads_cgroups(kernel):
        yield "cgroups", f"{', '.join(config.process_labels)} will be unknown", "this kernel's BTF has no cgroups"
    yield from Workloads(config, simulated=kernel.simulated is not None).problems()


def _log_outcomes(outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        fields = {"probe": outcome.probe.name, "state": outcome.state, "kind": outcome.kind}
        if outcome.state in (DENIED, ERROR):
            _log.warning("probe not attached", **fields, reason=outcome.reason)
        elif outcome.state == ATTACHED:
            _log.debug("probe attached", **fields, function=outcome.function)
        else:
            _log.debug("probe left out", **fields, reason=outcome.reason)


def _log_confinement(parts: Sequence[Part]) -> None:
    for part in dict.fromkeys(parts):
        if part.problem:
            _log.warning("a right could not be given up", part=part.name, reason=part.problem)


def _taker(probing: Probing, scrape: Scrape, governor: Governor, state: State) -> Callable[[Config], None]:
    """How a configuration takes effect that was reloaded."""

    def take(config: Config) -> None:
        probing.regroup(config)  # the only step that can fail
        scrape.watch(probing.outcomes)
        scrape.limit(config)
        governor.limit(config.limits.cpu)
        state.attached(probing.outcomes)
        log.setup(config.log.level, config.log.format)
        _log_outcomes(probing.outcomes)

    return take


def _summary(outcomes: Sequence[Outcome]) -> str:
    """``18 of 19 probes attached``: of those that this kernel has and the configuration wants."""
    wanted = [outcome for outcome in outcomes if outcome.state in (ATTACHED, DENIED, ERROR)]
    return f"{sum(outcome.state == ATTACHED for outcome in wanted)} of {len(wanted)} probes attached"


def _sweep(scrape: Scrape) -> bool:
    """Whether it was possible."""
    try:
        scrape.sweep()
    except OSError as error:
        # Rows then stay longer; the figures are right all the same, and the next sweep may succeed.
        _log.error("cannot end idle rows", reason=error.strerror)
        return False
    return True


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    # Once: a second one would break into the clean-up after the first.
    for each in _SIGNALS:
        signal.signal(each, _ignore)
    raise _Stop


def _ignore(number: int, frame: FrameType | None) -> None:
    """Not SIG_IGN: Python reports a signal as an error that came just before it was set."""


def _seconds_since_start() -> float:
    """Since the kernel started this process: the interpreter's own start is part of what users wait for."""
    after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    started = int(after_name[19]) / os.sysconf("SC_CLK_TCK")  # field 22, in ticks since boot
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started
