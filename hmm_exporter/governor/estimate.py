# SPDX-License-Identifier: Apache-2.0
"""How much CPU time the programs take: an estimate from all of their runs and the time of some.

The programs count every run themselves. The kernel times them while its BPF statistics are on, which costs every
program of the machine some tens of nanoseconds a run (kernel/bpf/core.c, bpf_stats_enabled_key), so it is asked for a
second in sixty. What the kernel has timed is taken as it is; of the rest, the runs are exact and the time of one is
what it was when it was last seen. What it takes to get into a program (a breakpoint, a trampoline) is in neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ASSUMED_NANOSECONDS = 1300
"""A run where none may be timed: the mean of all programs at the defaults in docs/benchmark.md, rounded up.

That machine is emulated, and slower than any real one. Programs that read pages take more, all others less.
"""
_FORGETTING = 0.5
"""What an earlier measurement weighs beside the next one."""


@dataclass(frozen=True)
class Counted:
    """Of one probe's programs."""

    runs: int
    """All since the start, as the programs count them."""
    timed: int = 0
    """Those that the kernel has timed since the programs were loaded."""
    nanoseconds: int = 0
    """What those took."""


@dataclass
class _Probe:
    latest: Counted = Counted(0)
    timed: int = 0
    untimed: int = 0
    recent_runs: float = 0.0
    recent_nanoseconds: float = 0.0
    total: float = 0.0

    def observe(self, counted: Counted) -> None:
        loaded_anew = counted.timed < self.latest.timed
        before, self.latest = Counted(0) if loaded_anew else self.latest, counted
        runs, nanoseconds = counted.timed - before.timed, counted.nanoseconds - before.nanoseconds
        if runs:
            self.recent_runs = self.recent_runs * _FORGETTING + runs
            self.recent_nanoseconds = self.recent_nanoseconds * _FORGETTING + nanoseconds
            self.timed += runs
            self.total += nanoseconds
        # A run is counted first and timed when it ends: for a moment there may be fewer of these than there were.
        untimed = counted.runs - self.timed
        if untimed > self.untimed:
            self.total += (untimed - self.untimed) * self.nanoseconds_a_run
            self.untimed = untimed

    @property
    def nanoseconds_a_run(self) -> float:
        return self.recent_nanoseconds / self.recent_runs if self.recent_runs else ASSUMED_NANOSECONDS


class Estimate:
    """Never goes down, whatever a run is found to take."""

    def __init__(self) -> None:
        self._probes: dict[str, _Probe] = {}

    def observe(self, counted: Mapping[str, Counted]) -> None:
        """What the programs of each probe have counted by now."""
        for probe, each in counted.items():
            self._probes.setdefault(probe, _Probe()).observe(each)

    def seconds(self) -> Mapping[str, float]:
        """CPU time by probe."""
        return {name: probe.total / 1e9 for name, probe in self._probes.items()}
