# SPDX-License-Identifier: Apache-2.0
"""The serving process's side of the channel to the helper: one request at a time, each answered or refused."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence

from hmm_exporter.privileged import message
from hmm_exporter.privileged.message import Attach, Attached, Refused, Statistics

ENDED = "the helper has ended: only a restart attaches probes again"


class Client:
    """Owns the channel until `close`, with which the helper ends."""

    def __init__(self, channel: socket.socket, patience: float) -> None:
        """``patience``: seconds that an answer may take."""
        self._channel = channel
        self._channel.settimeout(patience)
        self._one = threading.Lock()

    def attach(self, probes: Sequence[str], groups: Sequence[str], exclude: Sequence[str]) -> Attached:
        """Programs of these probes with their links, which become the caller's. Raises Refused."""
        with self._one, self._answered():
            message.send_request(self._channel, Attach(probes, groups, exclude))
            return message.receive_attached(self._channel)

    def statistics(self) -> int:
        """A fd: while it is open, the kernel counts runs of programs and the time in them. Raises Refused."""
        with self._one, self._answered():
            message.send_request(self._channel, Statistics())
            return message.receive_statistics(self._channel)

    def close(self) -> None:
        self._channel.close()

    @contextlib.contextmanager
    def _answered(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            # Its answer would be taken for the next one's.
            self._channel.close()
            raise Refused("the helper did not answer in time, and was given up") from None
        except OSError:
            raise Refused(ENDED) from None
