# SPDX-License-Identifier: Apache-2.0
"""Listen addresses, as in ``--web.listen-address``: their syntax and the sockets made from them.

What is said over a connection does not belong here.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hmm_exporter.errors import StartError

ALLOWED = ":port, host:port or [IPv6]:port with a port from 0 (any free one) to 65535"

_SYNTAX = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<host>[\w.-]*)):(?P<port>\d{1,5})", re.ASCII)

# Prometheus opens one connection a target; the rest is room for a burst, which waits here for its turn.
_BACKLOG = 1024

# What a kernel without IPv6, or a service manager that forbids it, answers.
_NO_SUCH_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


@dataclass(frozen=True)
class Address:
    """A listen address; ``host`` is empty where all of the machine's addresses are meant."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(text: str) -> Address:
    """The address that *text* spells; raises ValueError where it spells none."""
    match = _SYNTAX.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise ValueError(ALLOWED)
    return Address(match["six"] or match["host"] or "", int(match["port"]))


def listen(text: str) -> list[socket.socket]:
    """Listening sockets for *text*: one, or one for each address that a name stands for.

    They listen at once: of two sockets that are merely bound with SO_REUSEADDR, neither would
    learn of the other. Raises StartError.
    """
    try:
        address = parse(text)
    except ValueError as error:
        shown = text if text.isprintable() else ascii(text)
        raise StartError(f"cannot listen on {shown}: not an address: {error}") from None
    sockets: list[socket.socket] = []
    refusal: OSError | None = None
    try:
        for family, where in _candidates(address):
            # A name has several addresses and one port, also where the kernel picks the port.
            port = sockets[0].getsockname()[1] if sockets else address.port
            try:
                sockets.append(_listen(family, (where[0], port, *where[2:])))
            except OSError as error:
                if error.errno not in _NO_SUCH_FAMILY:
                    raise
                refusal = error
            else:
                if not address.host:
                    break  # the dual-stack socket: IPv4 is only for where it cannot be had
        if not sockets:
            raise refusal or OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    except (OSError, UnicodeError) as error:
        for made in sockets:
            made.close()
        raise StartError(f"cannot listen on {text}: {_reason(error)}") from None
    return sockets


def name(listener: socket.socket) -> str:
    """Where *listener* really listens, with the port that the kernel chose for port 0."""
    host, port = listener.getsockname()[:2]
    return str(Address("" if host == "::" else host, port))


def _candidates(address: Address) -> Iterator[tuple[socket.AddressFamily, tuple[Any, ...]]]:
    if not address.host:
        yield socket.AF_INET6, ("::", address.port)
        yield socket.AF_INET, ("0.0.0.0", address.port)
        return
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    # /etc/hosts may give a name the same address twice.
    yield from dict.fromkeys((family, where) for family, _, _, _, where in found)


def _listen(family: socket.AddressFamily, where: tuple[Any, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Connections of a predecessor that linger in TIME_WAIT must not keep a restart from
        # binding; on Linux this does not let two listeners share a port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # The wildcard is both families, whatever net.ipv6.bindv6only says, as in every
            # exporter written in Go; another address is itself.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, where[0] != "::")
        listener.bind(where)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, UnicodeError):
        return "not a host name"
    if isinstance(error, socket.gaierror):
        return f"the name cannot be resolved ({error.strerror})"
    if error.errno == errno.EADDRINUSE:
        return "address already in use (is another hmm-exporter running? choose another with --web.listen-address)"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address"
    if error.errno == errno.EACCES:
        return "permission denied (ports below 1024 need CAP_NET_BIND_SERVICE)"
    return str(error.strerror or error).lower()
