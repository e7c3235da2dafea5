# SPDX-License-Identifier: Apache-2.0
"""One client's connection: bytes in and out within time limits, plain or by TLS.

How many there may be is ``server``'s to say, what is talked over them ``handler``'s.
"""

from __future__ import annotations

import contextlib
import enum
import select
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING

from hmm_exporter.web.tls import Tls, talks_tls

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# A few of them are a page; a client that takes none is noticed after one.
_CHUNK = 1 << 16


class Phase(enum.Enum):
    """What a connection waits for."""

    IDLE = enum.auto()
    """A request that may never come, or the end of a handshake."""
    READING = enum.auto()
    ANSWERING = enum.auto()
    SENDING = enum.auto()
    GONE = enum.auto()
    """Its end, which another thread has decided on."""


class Connection:
    """Belongs to one thread; ``phase``, ``since`` and :meth:`shut_down` are for others, too."""

    def __init__(self, connection: socket.socket, client: str) -> None:
        self.client = client
        """The address at its other end."""
        self.tls: Tls | None = None
        self._socket = connection
        self._lock = threading.Lock()
        self.enter(Phase.IDLE, 0)

    def enter(self, phase: Phase, seconds: float) -> None:
        """From now on it is in *phase*, in which all that it waits for a client takes *seconds* at most."""
        self.phase, self.since = phase, time.monotonic()
        self._deadline = self.since + seconds

    def secure(self, tls: Tls) -> bool:
        """Shake hands; False where the client talks something else. Raises OSError."""
        self._socket.settimeout(self._left())
        if not talks_tls(self._socket):
            return False
        with self._lock:
            self._socket = wrapped = tls.wrap(self._socket)
        wrapped.settimeout(self._left())
        tls.shake_hands(wrapped)
        self.tls = tls
        return True

    def receive_into(self, buffer: WriteableBuffer) -> int:
        """Raises OSError, TimeoutError when the phase has lasted too long."""
        self._socket.settimeout(self._left())
        return self._socket.recv_into(buffer)

    def send(self, data: bytes) -> None:
        """All of *data*. Raises OSError, TimeoutError when the phase has lasted too long."""
        view = memoryview(data)
        while view:
            self._socket.settimeout(self._left())
            view = view[self._socket.send(view[:_CHUNK]) :]

    def send_at_once(self) -> None:
        """What is written goes out, without waiting for more."""
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)

    def drain(self, seconds: float) -> None:
        """End what is sent, and read what is left for a moment, and forget it.

        Closing with unread data would reset the connection before the answer is read.
        """
        self.enter(Phase.SENDING, seconds)
        self.shut_down(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            while True:
                self._socket.settimeout(self._left())
                if not socket.socket.recv(self._socket, _CHUNK):
                    return

    def shut_down(self, how: int) -> None:
        """As a socket's shutdown; a client that was quicker is no error.

        The socket's own: a SSLSocket's forgets that it talks TLS, and whoever sends then sends it in the clear.
        """
        with self._lock, contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, how)

    def end(self) -> None:
        """Its own thread will find it closed."""
        self.phase = Phase.GONE
        self.shut_down(socket.SHUT_RDWR)

    def waits_for_its_client(self) -> bool:
        """And not for its own thread: nothing has come that is not read, or there is no room for what is to go."""
        if self.phase in (Phase.ANSWERING, Phase.GONE):
            return False
        look = select.poll()
        with self._lock:
            if self._socket.fileno() < 0:
                return False
            look.register(self._socket, select.POLLOUT if self.phase is Phase.SENDING else select.POLLIN)
            return not look.poll(0)

    def close(self) -> None:
        if isinstance(self._socket, ssl.SSLSocket):
            with contextlib.suppress(OSError, ValueError):  # ValueError: there was no handshake
                self._socket.settimeout(0)  # say goodbye, and wait for none
                self._socket.unwrap()
        with self._lock:
            self._socket.close()

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("too slow")
        return left
