# SPDX-License-Identifier: Apache-2.0
"""Lets a series that is new be seen at 0 before it is seen at what it has counted.

Prometheus counts an increase from a series' first sample on. Whatever a label set had counted when it was first scraped
would never be in a rate(): most failures are the first of their label set, and a short process has no second scrape. So
a new one is shown at 0 for a while, longer than the interval of every Prometheus that scrapes, and then at what it has;
a restart of the exporter begins at 0, too, so that no counter has passed by then what it was before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

Series = tuple[str, tuple[str, ...]]
"""A metric's name and the values of its labels."""

_looking = ContextVar("looking", default=False)


@contextmanager
def looking() -> Iterator[None]:
    """Who collects in this block is a person: sees what there is, and is no reason to take a series for known."""
    token = _looking.set(True)
    try:
        yield
    finally:
        _looking.reset(token)


class Beginnings:
    """Remembers which series there were in the latest collection, and since when the new ones are."""

    def __init__(self, seconds: float) -> None:
        """``seconds``: for how long a series is new; 0 for never."""
        self.seconds = seconds
        self._known: frozenset[Series] = frozenset()
        self._since: dict[Series, float] = {}

    def staying(self) -> Collection[Series]:
        """Series that may not go now, though their rows have ended: nobody has seen what they have counted.

        Who only looks is no reason for any to go.
        """
        return self._known if _looking.get() else self._since.keys()

    def new(self, series: Sequence[Series], now: float) -> Collection[Series]:
        """Those of the *series* of a collection that are to be shown at 0. ``now`` is of a clock that does not jump."""
        if _looking.get():
            return ()
        since = {each: self._since.get(each, now) for each in series if each not in self._known or each in self._since}
        self._since = {each: begun for each, begun in since.items() if now - begun < self.seconds}
        self._known = frozenset(series)
        return self._since
