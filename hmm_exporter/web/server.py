# SPDX-License-Identifier: Apache-2.0
"""The HTTP server: listening sockets, and which connections there are.

One thread accepts for all addresses, and each connection has a thread, so that no client waits for
another. What is said over a connection belongs to ``handler``.

Connections are bounded. Where there is no room for another, the one that has kept us waiting for
longest makes room, so that health is always answered; one that is being answered does once it has the answer.
"""

from __future__ import annotations

import _thread
import selectors
import socket
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import cast

from prometheus_client import CollectorRegistry

from hmm_exporter import log
from hmm_exporter.config import ConfigError
from hmm_exporter.errors import StartError
from hmm_exporter.web import address
from hmm_exporter.web.connection import Connection, Phase
from hmm_exporter.web.gate import Gate
from hmm_exporter.web.handler import Handler
from hmm_exporter.web.protection import Protection
from hmm_exporter.web.routes import Routes
from hmm_exporter.web.status import Status

# Far more than Prometheus servers, probes and people need; far fewer than descriptors (1,024).
_MAX_CONNECTIONS = 256

# Seconds. A client may take a moment over its request before it counts as one that keeps us waiting:
# else the second half of a burst would push out the first.
_MOMENT = 1.0
_HANDSHAKE = 10.0
_LINGER = 1.0

# How long the accepting thread waits for room, or for a descriptor, before it looks at other things.
_PAUSE = 0.05

# A flood is told of in one line a minute, not in one for each of its connections.
_TELL_AGAIN = 60.0

# Within a second in all, as close() promises.
_GRACE = 0.5

_MAX_KNOCKS = 65536

_PLAIN = (
    f"HTTP/1.0 {HTTPStatus.BAD_REQUEST.value} {HTTPStatus.BAD_REQUEST.phrase}\r\nContent-Type: text/plain\r\n"
    "Connection: close\r\n\r\nthis is an HTTPS server, and the request was HTTP\n"
).encode()

_log = log.Logger(__name__)


class Server:
    """Serves metrics, health and the status page on *addresses*, and on sockets that listen already.

    The constructor listens, so that a port in use is known before anything costly begins; clients
    that come before :meth:`start` wait. *web_config* is the path of a web configuration file.
    Raises StartError and ConfigError.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        telemetry_path: str,
        registry: CollectorRegistry,
        status: Status,
        listeners: Sequence[socket.socket] = (),
        web_config: str | None = None,
    ) -> None:
        self._gate = Gate(Routes(telemetry_path, registry, status))
        self._listeners = list(listeners)
        # Each belongs to its thread: one that could not begin, because no memory was left, takes it with it.
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._told: dict[str, float] = {}
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._answered = threading.Event()
        self._thread: threading.Thread | None = None
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        try:
            self._protection = Protection(web_config)
            for text in addresses:
                self._listeners.extend(address.listen(text))
        except (StartError, ConfigError):
            self.close()
            raise
        self.addresses = tuple(address.name(listener) for listener in self._listeners)
        """Where it listens, with real ports; a name may stand for several addresses."""
        self.ports = tuple(listener.getsockname()[1] for listener in self._listeners)
        """Their ports, in the same order."""

    @property
    def protections(self) -> str:
        """What the web configuration protects it by, in words."""
        return ", ".join(sorted(self._protection.current().protections)) or "none"

    def start(self, first: Callable[[], object] = lambda: None) -> None:
        """Begin to answer, by a thread that does *first* before it hears anybody: those it starts are like it.

        Raises StartError.
        """
        thread = threading.Thread(target=self._accept_all, args=(first,), name="web", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            limits = "RLIMIT_NPROC, the cgroup's pids.max, or its memory"
            raise StartError(f"no thread can be started to answer by: a limit is reached ({limits})") from None
        self._thread = thread

    def alive(self, patience: float) -> bool:
        """Whether the thread that accepts does its rounds: it answers a knock within *patience* seconds."""
        self._answered.clear()
        try:
            self._wake.send(b"?")
        except BlockingIOError:
            pass  # hundreds of knocks wait already: it will hear one of them, if it hears any
        except OSError:  # closed
            return False
        return self._answered.wait(patience)

    def close(self) -> None:
        """Stop: at once where nothing is under way, within a second whatever clients do."""
        self._closing.set()
        self._wake.close()
        if self._thread is not None:
            self._thread.join()
        for listener in self._listeners:
            listener.close()
        self._woken.close()
        # Who is being answered still gets the answer; nobody is listened to any more.
        self._shut_down(socket.SHUT_RD)
        with self._changed:
            self._changed.wait_for(lambda: not self._connections, _GRACE)
        self._shut_down(socket.SHUT_RDWR)

    def _shut_down(self, how: int) -> None:
        with self._changed:
            for connection in self._connections:
                connection.shut_down(how)

    def _accept_all(self, first: Callable[[], object]) -> None:
        first()
        with selectors.DefaultSelector() as selector:
            for listener in (*self._listeners, self._woken):
                selector.register(listener, selectors.EVENT_READ)
            while not self._closing.is_set():
                try:
                    self._attend(selector)
                except MemoryError:  # whatever else fails for want of it, this thread goes on
                    time.sleep(_PAUSE)

    def _attend(self, selector: selectors.BaseSelector) -> None:
        for key, _ in selector.select():
            if key.fileobj is self._woken:
                self._woken.recv(_MAX_KNOCKS)
                self._answered.set()
            else:
                self._accept(cast(socket.socket, key.fileobj))

    def _accept(self, listener: socket.socket) -> None:
        if self._crowded() and not self._make_room():
            return  # the kernel keeps who knocks
        try:
            accepted, (host, *_) = listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # the client has gone again
        except OSError as error:
            # No descriptor or no memory is left. The client is still there: do not spin.
            self._tell("cannot accept a connection", error=str(error))
            self._make_room()
            return
        client = host.removeprefix("::ffff:")  # IPv4, by way of a socket for both
        connection = Connection(accepted, client)
        with self._changed:
            self._connections.add(connection)
        try:
            # Not threading.Thread, which waits for it to begin: for ever, where it then has no memory to.
            _thread.start_new_thread(self._converse, (connection,))
        except RuntimeError as error:  # no more threads
            self._tell("cannot answer a client", client=client, error=str(error))
            self._forget(connection)

    def _crowded(self) -> bool:
        return len(self._connections) >= _MAX_CONNECTIONS

    def _make_room(self) -> bool:
        """Close who has kept us waiting for longest, and wait a little for anybody to end; whether one has."""
        with self._changed:
            before, patience = len(self._connections), time.monotonic() - _MOMENT
            waiting = [each for each in self._connections if each.since < patience and each.waits_for_its_client()]
            oldest = min(waiting, key=lambda each: each.since, default=None)
            if oldest:
                self._tell("too many connections: closing those that wait", client=oldest.client, connections=before)
                oldest.end()
            return self._changed.wait_for(lambda: len(self._connections) < before, _PAUSE)

    def _converse(self, connection: Connection) -> None:
        try:
            tls = self._protection.current().tls
            if tls:
                connection.enter(Phase.IDLE, _HANDSHAKE)
                if not connection.secure(tls):
                    connection.send(_PLAIN)
                    connection.drain(_LINGER)
                    return
            Handler(connection, self._gate, self._protection, self._crowded)
        except OSError as error:  # gone, too slow, or without a certificate that would do
            _log.debug("connection lost", client=connection.client, error=str(error))
        except Exception:
            _log.exception("connection failed", client=connection.client)
        finally:
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        connection.close()
        with self._changed:
            self._connections.discard(connection)
            self._changed.notify_all()

    def _tell(self, message: str, **fields: object) -> None:
        now = time.monotonic()
        if now - self._told.get(message, -_TELL_AGAIN) >= _TELL_AGAIN:
            self._told[message] = now
            _log.warning(message, **fields)
