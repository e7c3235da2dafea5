# SPDX-License-Identifier: Apache-2.0
"""The helper: a fork of the daemon that keeps what it takes to attach probes, and serves nobody else.

It holds the programs and maps, so that a probe that was shed is attached again without compiling, and no link: when
the serving process ends, however it ends, nothing stays attached. What it can be asked for is ``message``'s.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
from collections.abc import Container, Sequence
from dataclasses import replace
from typing import NoReturn

from hmm_exporter import capabilities, libc, log, memory
from hmm_exporter.bpf import syscall
from hmm_exporter.bpf.attach import Attachments, attach_more, kind_of_probe, wanted_programs
from hmm_exporter.bpf.link import Program, link
from hmm_exporter.bpf.load import NotAttached
from hmm_exporter.bpf.plan import ATTACHED, Outcome, choose
from hmm_exporter.bpf.watch import watched_kernel, with_probes
from hmm_exporter.catalog.probe import Probe
from hmm_exporter.catalog.probes import PROBES
from hmm_exporter.config import Config
from hmm_exporter.errors import StartError
from hmm_exporter.kernel.features import Kernel
from hmm_exporter.privileged import message
from hmm_exporter.privileged.message import Attach, Attached, Refused

_NAME = b"hmm-helper"
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15  # include/uapi/linux/prctl.h

_log = log.Logger(__name__)


def start(kernel: Kernel, config: Config, attachments: Attachments) -> socket.socket:
    """Fork it; the channel to it. To be called by the main thread, whose end is the helper's.

    Raises StartError.
    """
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    daemon = os.getpid()
    # What both have in common stays common as long as nobody writes to it: the collector would.
    gc.freeze()
    try:
        pid = os.fork()
    except OSError as error:
        raise StartError(f"the helper cannot be started: {error.strerror}: one more process must be allowed") from None
    if pid:
        its.close()
        gc.unfreeze()
        return ours
    _live(kernel, config, attachments, its, daemon)


def _live(kernel: Kernel, config: Config, attachments: Attachments, channel: socket.socket, daemon: int) -> NoReturn:
    status = 1
    try:
        libc.call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.call("prctl", _PR_SET_NAME, _NAME, 0, 0, 0)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # the daemon's affair; its end is this process's, too
        if os.getppid() == daemon:  # else it ended in between
            _keep_only_what_attaches(attachments, channel)
            _Helper(kernel, config, attachments).serve(channel)
        status = 0
    except Exception:
        _log.exception("the helper failed")
    finally:
        os._exit(status)  # what is registered for the end of the process is the daemon's


def _keep_only_what_attaches(attachments: Attachments, channel: socket.socket) -> None:
    """Neither links nor what the daemon reads, nobody's connection, no other capability."""
    attachments.detach(attachments.probes)
    attachments.resources = None  # the daemon alone tells programs which devices there are
    maps = attachments.maps.fds.values() if attachments.maps else ()
    last = 2
    for fd in sorted([channel.fileno(), *(program.fd for program in attachments.programs), *maps]):
        os.closerange(last + 1, fd)
        last = fd
    os.closerange(last + 1, os.sysconf("SC_OPEN_MAX"))
    # That of BPF statistics, and of kprobes where kernel.perf_event_paranoid is 3, is not wanted, and used if there.
    capabilities.keep_only(*capabilities.WANTED, capabilities.CAP_SYS_ADMIN)


class _Helper:
    """Answers requests."""

    def __init__(self, kernel: Kernel, config: Config, attachments: Attachments) -> None:
        self._kernel = kernel
        self._config = config
        self._attachments = attachments

    def serve(self, channel: socket.socket) -> None:
        """Until the daemon closes its end."""
        while True:
            try:
                request = message.receive_request(channel)
                if request is None:
                    return
                if isinstance(request, Attach):
                    outcomes = self._attach(request)
                    message.send_attached(channel, Attached(outcomes, self._attachments.links))
                else:
                    _switch_statistics_on(channel)
            except Refused as refusal:
                message.send_refusal(channel, str(refusal))
            finally:
                # The daemon has them now, or nobody shall.
                self._attachments.detach(self._attachments.probes)

    def _attach(self, request: Attach) -> list[Outcome]:
        """Outcomes of the probes that were asked for. Raises Refused."""
        groups = frozenset(request.groups)
        outcomes, not_loaded = [], []
        # From the last function of a call to the first: nothing is begun whose end is not watched.
        for probe in (each for each in reversed(PROBES) if each.name in request.probes):
            loaded = [program for program in self._attachments.programs if program.probe == probe.name]
            if {program.name for program in loaded} == set(wanted_programs(probe, groups)):
                outcomes.append(self._link(probe, loaded, request.load_only))
            else:
                self._attachments.forget(probe.name)
                not_loaded.append(probe.name)
        if not_loaded:
            config = with_probes(self._config, request.groups, request.exclude)
            outcomes += self._load(not_loaded, config, request.load_only)
        return outcomes

    def _link(self, probe: Probe, programs: Sequence[Program], load_only: bool) -> Outcome:
        """In the order in which they were attached first: the return before the entry."""
        function = programs[0].function
        try:
            for program in programs:
                self._attachments.keep(program, None if load_only else link(self._kernel, program))
        except NotAttached as refusal:
            self._attachments.detach([probe.name])
            return Outcome(probe, function, refusal.state, reason=f"{programs[0].kind}: {refusal.reason}")
        return Outcome(probe, function, ATTACHED, kind_of_probe(programs[-1]))

    def _load(self, probes: Container[str], config: Config, load_only: bool) -> list[Outcome]:
        try:
            kernel = watched_kernel(config)  # its BTF was let go of
            plan, left_out = choose(kernel, config)
            plan = replace(plan, targets=tuple(target for target in plan.targets if target.probe in probes))
            outcomes = attach_more(kernel, config, plan, self._attachments, load_only) if plan.targets else []
        except StartError as error:
            raise Refused(str(error)) from None
        kernel.symbols.close()
        kernel.iomem.close()
        del kernel
        memory.trim()
        return outcomes + [outcome for outcome in left_out if outcome.probe.name in probes]


def _switch_statistics_on(channel: socket.socket) -> None:
    try:
        fd = syscall.enable_statistics()
    except PermissionError:
        message.send_statistics(channel, None)
        return
    except OSError as error:
        raise Refused(f"BPF statistics: {error.strerror}") from None
    try:
        message.send_statistics(channel, fd)
    finally:
        os.close(fd)
