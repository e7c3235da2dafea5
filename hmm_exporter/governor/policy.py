# SPDX-License-Identifier: Apache-2.0
"""When which group of probes is shed, and when it is taken back. Decides only; ``governor.governor`` does it.

Above the limit, over a whole window, one group is shed; then a new window begins. In the catalogue's order, but for
groups that cost next to nothing: to be without them would help nobody. What was shed last is taken back first, when
the cost that is left and what the group is believed to cost have been below half of the limit for several windows. What
it cost is known from before it was shed, and believed less and less: that is halved again and again, the slower the
oftener the group had to go. So one that costs ten times what it may is tried again after three quarters of an hour, and
then more and more seldom.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from hmm_exporter.catalog.probe import Group

WINDOW_SECONDS = 60.0
"""Costs are averaged over it: a short burst sheds nothing."""
QUIET_SECONDS = 180.0
HALF_LIFE_SECONDS = 600.0
MOST_HALF_LIFE_SECONDS = 4 * 3600.0
FORGIVEN_SECONDS = 6 * 3600.0
"""A group that stayed for so long has never been shed."""
_TAKEN_BACK_BELOW = 0.5
_FUTILE = 0.1
"""The part of the limit below which to shed a group is of no use."""


@dataclass(frozen=True)
class Decision:
    """To shed a group, or to take it back. Costs are parts of one CPU."""

    group: str
    shed: bool
    cost: float
    """Of the group, when it was last watched."""
    total: float
    """Of all that are watched."""


@dataclass(frozen=True)
class _Shed:
    group: str
    cost: float
    at: float
    half_life: float

    def believed(self, now: float) -> float:
        return float(self.cost * 0.5 ** ((now - self.at) / self.half_life))


@dataclass(frozen=True)
class _History:
    times: int = 0
    taken_back: float = 0.0


class Policy:
    """Looks at costs, round by round. Times are seconds of a clock that does not jump."""

    def __init__(self, groups: Sequence[Group], limit: float) -> None:
        """``limit``: the part of one CPU that watching may take; 0: whatever it takes."""
        self.limit = limit
        self._order = [group.name for group in sorted(groups, key=lambda group: group.shed)]
        self._samples: deque[tuple[float, Mapping[str, float]]] = deque()
        self._shed: list[_Shed] = []
        self._history: dict[str, _History] = {}
        self._quiet_since: float | None = None

    @property
    def shed(self) -> tuple[str, ...]:
        """Groups that are shed, the latest last."""
        return tuple(each.group for each in self._shed)

    def keep(self, groups: Collection[str]) -> None:
        """No other group is shed any more: the configuration does not want it."""
        self._shed = [each for each in self._shed if each.group in groups]

    def round(self, now: float, seconds: Mapping[str, float]) -> Decision | None:
        """``seconds``: what each group has cost since the start. A decision holds when it is `done`."""
        latest = self._shed[-1] if self._shed else None
        costs = self._costs(now, seconds)
        total = sum(costs.values())
        if not self.limit:
            return Decision(latest.group, False, latest.cost, total) if latest else None
        if not costs:
            return None
        if total > self.limit:
            self._quiet_since = None
            return self._to_shed(costs, total)
        if not latest or total + latest.believed(now) >= self.limit * _TAKEN_BACK_BELOW:
            self._quiet_since = None
            return None
        if self._quiet_since is None:
            self._quiet_since = now
        if now - self._quiet_since < QUIET_SECONDS:
            return None
        return Decision(latest.group, False, latest.cost, total)

    def done(self, decision: Decision, now: float) -> None:
        """It was put into effect: a new window begins."""
        while len(self._samples) > 1:
            self._samples.popleft()
        self._quiet_since = None
        history = self._history.get(decision.group, _History())
        if not decision.shed:
            self._shed.pop()
            self._history[decision.group] = _History(history.times, now)
            return
        times = history.times if now - history.taken_back < FORGIVEN_SECONDS else 0
        half_life = min(HALF_LIFE_SECONDS * 2**times, MOST_HALF_LIFE_SECONDS)
        self._shed.append(_Shed(decision.group, decision.cost, now, half_life))
        self._history[decision.group] = _History(times + 1, now)

    def failed(self) -> None:
        """It could not be put into effect: try again after as much quiet."""
        self._quiet_since = None

    def _costs(self, now: float, seconds: Mapping[str, float]) -> Mapping[str, float]:
        """Of each group, on average over the window; empty before there was one."""
        self._samples.append((now, dict(seconds)))
        while len(self._samples) > 1 and now - self._samples[1][0] >= WINDOW_SECONDS:
            self._samples.popleft()
        then, before = self._samples[0]
        if now - then < WINDOW_SECONDS:
            return {}
        return {group: (spent - before.get(group, 0.0)) / (now - then) for group, spent in seconds.items()}

    def _to_shed(self, costs: Mapping[str, float], total: float) -> Decision | None:
        for group in self._order:
            if group not in self.shed and costs.get(group, 0.0) >= self.limit * _FUTILE:
                return Decision(group, True, costs[group], total)
        return None
