# SPDX-License-Identifier: Apache-2.0
"""What the serving process may ask of the helper, and what it is told: one datagram each, of JSON, with fds.

The helper believes nothing: a request is one of those below, of names that the catalogue has, or it is refused.
There is no path, no program and no number in it that would mean anything to the kernel.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hmm_exporter.bpf.link import Program
from hmm_exporter.bpf.plan import Outcome
from hmm_exporter.catalog.probes import GROUPS, PROBES

_MAX_BYTES = 1 << 17
_MAX_FDS = 253  # SCM_MAX_FD, include/net/scm.h: two for each program of each probe are far less

_PROBES = {probe.name: probe for probe in PROBES}
_GROUPS = frozenset(group.name for group in GROUPS)
_NOT_KNOWN = "the helper does not know what was asked of it"


class Refused(Exception):
    """The helper cannot or will not do what was asked: why, in a line."""


class Busy(Refused):
    """Something else is under way, which may take long: ask later."""


@dataclass(frozen=True)
class Attach:
    """Attach these probes, as far as the groups are on and they are not excluded."""

    probes: Sequence[str]
    groups: Sequence[str]
    exclude: Sequence[str]
    load_only: bool = False
    """Compile and load what that takes, to be attached by the next request."""


@dataclass(frozen=True)
class Statistics:
    """Switch the kernel's BPF statistics on, until the fd that is given for it is closed."""


@dataclass(frozen=True)
class Attached:
    """What became of each probe of an Attach, and of those that are left out; programs of probes with their links."""

    outcomes: Sequence[Outcome]
    programs: Sequence[tuple[Program, int]]


Request = Attach | Statistics


def send_request(channel: socket.socket, request: Request) -> None:
    """Raises OSError."""
    if isinstance(request, Attach):
        name = "load" if request.load_only else "attach"
        channel.send(json.dumps({name: [request.probes, request.groups, request.exclude]}).encode())
    else:
        channel.send(json.dumps({"statistics": []}).encode())


def receive_request(channel: socket.socket) -> Request | None:
    """None when nobody will ask any more. Raises Refused."""
    data = channel.recv(_MAX_BYTES)  # fds that came with it are nowhere: recv takes none
    if not data:
        return None
    try:
        match json.loads(data):
            case {"attach": [list(probes), list(groups), list(exclude)], **more} if not more:
                return _known(Attach(probes, groups, exclude))
            case {"load": [list(probes), list(groups), list(exclude)], **more} if not more:
                return _known(Attach(probes, groups, exclude, load_only=True))
            case {"statistics": [], **more} if not more:
                return Statistics()
    except (ValueError, TypeError, RecursionError):
        pass
    raise Refused(_NOT_KNOWN)


def _known(request: Attach) -> Attach:
    if _PROBES.keys() >= {*request.probes, *request.exclude} and _GROUPS.issuperset(request.groups):
        return request
    raise Refused(_NOT_KNOWN)


def send_attached(channel: socket.socket, attached: Attached) -> None:
    """The fds stay the caller's, too. Raises OSError."""
    outcomes = [(each.probe.name, each.function, each.state, each.kind, each.reason) for each in attached.outcomes]
    programs = [(program.probe, program.name, program.kind, program.function) for program, _ in attached.programs]
    fds = [fd for program, link in attached.programs for fd in (program.fd, link)]
    _send_reply(channel, fds, outcomes=outcomes, programs=programs)


def send_statistics(channel: socket.socket, fd: int | None) -> None:
    """None: it is not permitted. Raises OSError."""
    _send_reply(channel, [] if fd is None else [fd])


def send_refusal(channel: socket.socket, reason: str) -> None:
    """Raises OSError."""
    _send_reply(channel, [], refused=reason)


def _send_reply(channel: socket.socket, fds: Sequence[int], **reply: object) -> None:
    socket.send_fds(channel, [json.dumps({"fds": len(fds), **reply}).encode()], fds)


def receive_attached(channel: socket.socket) -> Attached:
    """The fds become the caller's. Raises Refused, OSError, ValueError."""
    reply, fds = _receive_reply(channel)
    outcomes = [
        Outcome(_PROBES[probe], function, state, kind, reason)
        for probe, function, state, kind, reason in reply["outcomes"]
    ]
    programs = [
        (Program(probe, name, kind, program, function), link)
        for (probe, name, kind, function), program, link in zip(reply["programs"], fds[::2], fds[1::2])
    ]
    return Attached(outcomes, programs)


def receive_statistics(channel: socket.socket) -> int | None:
    """The fd becomes the caller's; None: it is not permitted. Raises Refused, OSError, ValueError."""
    _, fds = _receive_reply(channel)
    return fds[0] if fds else None


def _receive_reply(channel: socket.socket) -> tuple[dict[str, Any], list[int]]:
    data, fds, _, _ = socket.recv_fds(channel, _MAX_BYTES, _MAX_FDS)
    if not data:
        raise ConnectionResetError
    reply: dict[str, Any] = json.loads(data)
    if len(fds) != reply["fds"]:  # where no more may be open, the kernel leaves out the rest (MSG_CTRUNC)
        for fd in fds:
            os.close(fd)
        raise Refused("what the helper attached could not be taken over: too many files are open (RLIMIT_NOFILE)")
    if "refused" in reply:
        raise Refused(str(reply["refused"]))
    return reply, fds
