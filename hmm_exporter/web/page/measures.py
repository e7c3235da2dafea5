# SPDX-License-Identifier: Apache-2.0
"""What the page asks of the figures: sums of a sample, and shares of one sum in another.

Names of samples stand here and in ``health``. How an answer looks is ``summary``'s and ``tables``' work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hmm_exporter.catalog.metrics import METRICS
from hmm_exporter.catalog.values import Direction, Unmoved
from hmm_exporter.report.snapshot import Number, Snapshot
from hmm_exporter.report.units import Unit
from hmm_exporter.web.page.figures import Figures

_HELP = {metric.name: metric.help for metric in METRICS}

Labels = tuple[str, ...]


@dataclass(frozen=True)
class Sum:
    """Of a sample, over all label sets that have one of these values; with a title for people."""

    title: str
    sample: str
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def unit(self) -> Unit:
        """The base unit is in a metric's name."""
        return next((unit for unit in Unit if f"_{unit.value}_" in self.sample), Unit.count)

    @property
    def help(self) -> str:
        return f"{self.sample}: {_HELP[self.sample]}"

    def watched(self, now: Snapshot) -> bool:
        return now.has(self.sample)

    def of(self, now: Snapshot, by: tuple[str, ...]) -> dict[Labels, Number]:
        labels = tuple(self.where)
        found: dict[Labels, Number] = {}
        for key, value in now.sums(self.sample, (*by, *labels)).items():
            if all(its in self.where[label] for its, label in zip(key[len(by) :], labels)):
                found[key[: len(by)]] = found.get(key[: len(by)], 0) + value
        return found

    def total(self, now: Snapshot) -> Number:
        return self.of(now, ()).get((), 0)


@dataclass(frozen=True)
class Share:
    """Alarming as in deploy/prometheus/alerts.yaml: above ``most``, while there is more than ``rate`` of ``weight``."""

    title: str
    what: Sum
    of: tuple[Sum, ...]
    """The first one, less the others."""
    by: tuple[str, ...]
    """What the alert tells apart."""
    most: float
    rate: float
    weight: Sum
    nothing: str
    """What to say where there is nothing to have a share of."""

    @property
    def help(self) -> str:
        return self.what.help

    def watched(self, now: Snapshot) -> bool:
        return all(each.watched(now) for each in (self.what, *self.of))

    def values(self, now: Snapshot, by: tuple[str, ...]) -> dict[Labels, float]:
        """Without what there is nothing to have a share of."""
        whole, *less = (each.of(now, by) for each in self.of)
        what = self.what.of(now, by)
        of = {labels: value - sum(each.get(labels, 0) for each in less) for labels, value in whole.items()}
        return {labels: what.get(labels, 0) / value for labels, value in of.items() if value > 0}

    def alarms(self, figures: Figures) -> dict[Labels, float]:
        """Alarming shares by what the alert tells apart; none, where no time is known."""
        if not figures.seconds:
            return {}
        weight = self.weight.of(figures.new, self.by)
        return {
            labels: share
            for labels, share in self.values(figures.new, self.by).items()
            if share > self.most and weight.get(labels, 0) / figures.seconds > self.rate
        }


_DIRECTION = "direction"
_TO_DEVICE = {_DIRECTION: (Direction.host_to_device.name, Direction.device_to_device.name)}
_FROM_DEVICE = {_DIRECTION: (Direction.device_to_host.name,)}
_EBUSY = "hmm_range_fault_ebusy_total"
_UNMOVED = "hmm_migration_unmoved_bytes_total"

STARTED = Sum("Migrations", "hmm_migrations_started_total")
MOVED = Sum("Moved to devices", "hmm_migration_moved_bytes_total", _TO_DEVICE)
MOVED_BACK = Sum("Moved back", "hmm_migration_moved_bytes_total", _FROM_DEVICE)
RETURNED = Sum("Thrashed", "hmm_migration_returned_bytes_total")
STALLED = Sum("CPU threads stalled", "hmm_process_fault_stall_seconds_total")
WALKS = Sum("Walks", "hmm_range_fault_attempts_total")
CALLS = Sum("Calls", "hmm_range_faults_total")
RACED = Sum("Raced", _EBUSY, {"reason": ("raced",)})
OWN_FAULT = Sum("Own fault", _EBUSY, {"reason": ("own_fault",)})
LOCK_DROPPED = Sum("Lock dropped", _EBUSY, {"reason": ("lock_dropped",)})
EBUSY_CALLERS = Sum("EBUSY", "hmm_range_fault_ebusy_callers_total")
_FAILED = Sum("Refused", "hmm_migration_failures_total")
_BUSY = Sum("Busy", _UNMOVED, {"reason": (Unmoved.busy.name,)})

PROCESS = {
    "migrations": Sum("Migrations", "hmm_process_migrations_total"),
    "moved": Sum("To devices", "hmm_process_moved_bytes_total", _TO_DEVICE),
    "thrash": Sum("Thrashed", "hmm_process_returned_bytes_total"),
    "stall": Sum("Stalled", STALLED.sample),
    "faults": Sum("Range faults", "hmm_process_range_faults_total"),
}
"""By the word in the page's address that sorts by it."""

THRASH = Share("Thrash", RETURNED, (MOVED,), ("device",), 0.5, 4 << 20, RETURNED, "nothing moved to a device")
REFUSED = Share("Refused migrations", _FAILED, (STARTED,), (), 0.05, 1, _FAILED, "no migration")
BUSY = Share(
    "Left behind: busy",
    _BUSY,
    (
        Sum("Requested", "hmm_migration_requested_bytes_total"),
        Sum("Not there to move", _UNMOVED, {"reason": (Unmoved.not_selected.name, Unmoved.not_read.name)}),
    ),
    (),
    0.1,
    1 << 20,
    _BUSY,
    "nothing to move",
)
_OF_WALKS = Share(
    "EBUSY",
    Sum("EBUSY", _EBUSY, {"reason": ("raced", "own_fault")}),
    (WALKS,),
    ("driver",),
    0.5,
    10,
    WALKS,
    "no range was walked",
)
_OF_CALLS = Share(
    _OF_WALKS.title,
    Sum("EBUSY", "hmm_range_fault_failures_total", {"errno": ("EBUSY",)}),
    (CALLS,),
    ("driver",),
    0.5,
    10,
    CALLS,
    "no range fault",
)


def ebusy(total: Snapshot) -> Share:
    """By walks where these are told, else by calls, of which each may have been several."""
    return _OF_WALKS if _OF_WALKS.watched(total) else _OF_CALLS
