# SPDX-License-Identifier: Apache-2.0
"""The serving process's side of the channel to the helper: one request at a time, each answered or refused."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator

from hmm_exporter.privileged import message
from hmm_exporter.privileged.message import Attach, Attached, Busy, Refused, Statistics

ENDED = "the helper has ended: only a restart attaches probes again"
SOON = 10.0
"""Seconds that an answer may take for which nothing is compiled."""


class Client:
    """Owns the channel until `close`, with which the helper ends."""

    def __init__(self, channel: socket.socket, patience: float) -> None:
        """``patience``: seconds that an answer may take for which something is compiled."""
        self._channel = channel
        self._patience = patience
        self._one = threading.Lock()

    @property
    def alive(self) -> bool:
        """Whether the helper is there to be asked."""
        if self._channel.fileno() < 0:
            return False
        poll = select.poll()
        poll.register(self._channel, 0)  # POLLHUP and POLLERR are always told
        return not poll.poll(0)

    def attach(self, request: Attach, soon: bool = False) -> Attached:
        """Programs of these probes with their links, which become the caller's. Raises Refused.

        ``soon``: they are loaded already.
        """
        with self._answered(SOON if soon else self._patience):
            message.send_request(self._channel, request)
            return message.receive_attached(self._channel)

    def statistics(self) -> int | None:
        """A fd: while it is open, the kernel counts runs of programs and the time in them; None: it is not permitted.

        Raises Refused.
        """
        with self._answered(SOON):
            message.send_request(self._channel, Statistics())
            return message.receive_statistics(self._channel)

    def close(self) -> None:
        """Also while somebody waits for an answer, which is then refused."""
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)
        self._channel.close()

    @contextlib.contextmanager
    def _answered(self, patience: float) -> Iterator[None]:
        if not self._one.acquire(blocking=False):
            raise Busy("the helper is at something else")
        try:
            self._channel.settimeout(patience)
            yield
        except TimeoutError:
            # Its answer would be taken for the next one's.
            self.close()
            raise Refused("the helper did not answer in time, and was given up") from None
        except (OSError, ValueError, KeyError, TypeError):
            self.close()
            raise Refused(ENDED) from None
        finally:
            self._one.release()
