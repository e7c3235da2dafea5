# SPDX-License-Identifier: Apache-2.0
"""What the daemon tells the HTTP endpoint about itself. How it knows does not belong here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol


class ProbeRow(NamedTuple):
    """One line of the status page's table of probes; the words are those of ``--check``."""

    name: str
    function: str
    kind: str
    """fentry, fexit, kprobe, kretprobe, tracepoint, uprobe or none."""
    state: str
    """attached, absent, disabled, denied or error."""
    reason: str
    """Why it is not attached, and what would help; empty for one that is."""


class Status(Protocol):
    """The state of the daemon. Read by many threads at once, so reading must be cheap and safe."""

    @property
    def ready(self) -> bool:
        """Whether the metrics mean something: the probes are attached."""

    @property
    def reason(self) -> str:
        """Why it is not ready, in a few words; where it is, what else is worth knowing, if any."""

    @property
    def probes(self) -> Sequence[ProbeRow]:
        """All probes, in the catalogue's order; empty until they have been tried."""

    @property
    def reload(self) -> Callable[[], str] | None:
        """Reloads the configuration; why it was refused, or empty. None where clients may not ask for that."""

    @property
    def version(self) -> str:
        """The exporter's version."""
