# SPDX-License-Identifier: Apache-2.0
"""What systemd, or another service manager, tells this process by its environment, and is told.

Readiness, status, the watchdog (sd_notify(3)), and sockets that are passed (sd_listen_fds(3)).
Whether the daemon is well is the daemon's to say. Elsewhere, where none of the variables is set,
nothing here does anything.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass

from hmm_exporter import log
from hmm_exporter.errors import StartError

_FIRST = 3
"""SD_LISTEN_FDS_START: the passed sockets have numbers from here on."""

_log = log.Logger(__name__)


@dataclass(frozen=True)
class Manager:
    """The service manager, or nobody."""

    watchdog: float = 0.0
    """Seconds within which it wants to hear that the daemon lives, or will kill it; 0 for never."""
    sockets: Sequence[tuple[int, str]] = ()
    """Descriptors that it passed, with their names."""
    _address: str = ""

    def ready(self, status: str) -> None:
        """The start is over."""
        self._notify("READY=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        """One line for ``systemctl status``."""
        self._notify(f"STATUS={status}")

    def alive(self) -> None:
        """Answers the watchdog."""
        self._notify("WATCHDOG=1")

    def stopping(self) -> None:
        self._notify("STOPPING=1", "STATUS=stopping")

    def listeners(self) -> list[socket.socket]:
        """The passed sockets, to be closed by the caller. Raises StartError if it cannot listen on them."""
        if not self.sockets:
            raise StartError(
                "web.systemd_socket: no socket was passed: systemd passes those of hmm-exporter.socket, when started"
            )
        return [_listener(number, name) for number, name in self.sockets]

    def _notify(self, *assignments: str) -> None:
        if not self._address:
            return
        # An abstract name is written with @, and begins with a NUL (unix(7)).
        where = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto("\n".join(assignments).encode(), where)
        except OSError as error:
            # Who waits for it will act; this line is for whoever then asks why.
            _log.warning("cannot tell the service manager", what=assignments[0], error=error.strerror)


def manager(environment: MutableMapping[str, str] = os.environ) -> Manager:
    """The service manager of this process, whose variables are taken out: they are for no child."""
    names = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    given = {name: environment.pop(name, "") for name in names}
    myself = str(os.getpid())
    # Without its id it is meant for whoever reads it (sd_watchdog_enabled(3)).
    watched = given["WATCHDOG_PID"] in ("", myself)
    passed = _number(given["LISTEN_FDS"]) if given["LISTEN_PID"] == myself else 0
    fd_names = given["LISTEN_FDNAMES"].split(":") if given["LISTEN_FDNAMES"] else []
    sockets = []
    for number in range(_FIRST, _FIRST + passed):
        name = fd_names[number - _FIRST] if number - _FIRST < len(fd_names) else f"descriptor {number}"
        sockets.append((number, name))
    return Manager(_number(given["WATCHDOG_USEC"]) / 1e6 if watched else 0.0, tuple(sockets), given["NOTIFY_SOCKET"])


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


def _listener(number: int, name: str) -> socket.socket:
    try:
        os.set_inheritable(number, False)
        listener = socket.socket(fileno=number)
        stream = listener.family in (socket.AF_INET, socket.AF_INET6) and listener.type == socket.SOCK_STREAM
        if stream and listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            listener.setblocking(False)
            return listener
        listener.close()
    except OSError:
        pass  # not a socket
    raise StartError(f"{name} is not a TCP socket that listens: ListenStream=10466 and Accept=no make one")
