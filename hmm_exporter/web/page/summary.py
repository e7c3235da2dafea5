# SPDX-License-Identifier: Apache-2.0
"""The few figures that come first: how much moves, what thrashes, who waits, what is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from hmm_exporter.catalog.metrics import METRICS
from hmm_exporter.catalog.values import Direction, Unmoved
from hmm_exporter.report.snapshot import Number, Snapshot
from hmm_exporter.report.units import Unit
from hmm_exporter.web.page.figures import NONE, Figures, percent, written
from hmm_exporter.web.page.markup import Html, element

_HELP = {metric.name: metric.help for metric in METRICS}


@dataclass(frozen=True)
class Sum:
    """Of a sample over all label sets that have one of these values."""

    sample: str
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, now: Snapshot, by: tuple[str, ...] = ()) -> dict[tuple[str, ...], Number]:
        labels = tuple(self.where)
        found: dict[tuple[str, ...], Number] = {}
        for key, value in now.sums(self.sample, (*by, *labels)).items():
            if all(its in self.where[label] for its, label in zip(key[len(by) :], labels)):
                found[key[: len(by)]] = found.get(key[: len(by)], 0) + value
        return found

    def total(self, now: Snapshot) -> Number:
        return self.of(now).get((), 0)


@dataclass(frozen=True)
class Amount:
    title: str
    what: Sum
    unit: Unit = Unit.count


@dataclass(frozen=True)
class Share:
    """Alarming as in deploy/prometheus/alerts.yaml: above ``share``, if there is more than ``rate`` of ``what``."""

    title: str
    what: Sum
    of: tuple[Sum, ...]
    """The first one, less the others."""
    share: float
    rate: float
    rate_of: Sum
    nothing: str
    """What to say where there is nothing to have a share of."""
    unit: Unit = Unit.count

    def value(self, now: Snapshot) -> float | None:
        whole, *less = (each.total(now) for each in self.of)
        whole -= sum(less)
        return self.what.total(now) / whole if whole > 0 else None

    def alarms(self, figures: Figures) -> bool:
        share = self.value(figures.new)
        if not figures.seconds or share is None:
            return False
        return share > self.share and self.rate_of.total(figures.new) / figures.seconds > self.rate


_TO_DEVICE = (Direction.host_to_device.name, Direction.device_to_device.name)
_STARTED = Sum("hmm_migrations_started_total")
_FAILED = Sum("hmm_migration_failures_total")
_RETURNED = Sum("hmm_migration_returned_bytes_total")
_UNMOVED = "hmm_migration_unmoved_bytes_total"
_BUSY = Sum(_UNMOVED, {"reason": (Unmoved.busy.name,)})
_WALKS = Sum("hmm_range_fault_attempts_total")
EBUSY = Share(
    "EBUSY of range faults",
    Sum("hmm_range_fault_ebusy_total", {"reason": ("raced", "own_fault")}),
    (_WALKS,),
    0.5,
    10,
    _WALKS,
    "no range was walked",
)
_CALLS = Sum("hmm_range_faults_total")
EBUSY_BY_CALL = Share(
    EBUSY.title,
    Sum("hmm_range_fault_failures_total", {"errno": ("EBUSY",)}),
    (_CALLS,),
    0.5,
    10,
    _CALLS,
    "no range fault",
)
"""Where attempts cannot be told."""
TILES: tuple[Amount | Share, ...] = (
    Share(
        "Thrash",
        _RETURNED,
        (Sum("hmm_migration_moved_bytes_total", {"direction": _TO_DEVICE}),),
        0.5,
        4 << 20,
        _RETURNED,
        "nothing moved to a device",
        Unit.bytes,
    ),
    Amount("CPU threads stalled", Sum("hmm_process_fault_stall_seconds_total"), Unit.seconds),
    EBUSY,
    Share("Refused migrations", _FAILED, (_STARTED,), 0.05, 1, _FAILED, "no migration"),
    Amount("Moved to devices", Sum("hmm_migration_moved_bytes_total", {"direction": _TO_DEVICE}), Unit.bytes),
    Amount(
        "Moved back",
        Sum("hmm_migration_moved_bytes_total", {"direction": (Direction.device_to_host.name,)}),
        Unit.bytes,
    ),
    Share(
        "Left behind: busy",
        _BUSY,
        (
            Sum("hmm_migration_requested_bytes_total"),
            Sum(_UNMOVED, {"reason": (Unmoved.not_selected.name, Unmoved.not_read.name)}),
        ),
        0.1,
        1 << 20,
        _BUSY,
        "nothing to move",
        Unit.bytes,
    ),
    Amount("Migrations", _STARTED),
)


def section(figures: Figures) -> Html:
    return element("div", *(_tile(each, figures) for each in _watched(figures.total)), class_="tiles")


def ebusy(total: Snapshot) -> Share:
    """By attempts where these are told, else by calls."""
    return EBUSY if total.has(_WALKS.sample) else EBUSY_BY_CALL


def _watched(total: Snapshot) -> Iterator[Amount | Share]:
    for tile in TILES:
        yield ebusy(total) if tile is EBUSY else tile


def _tile(tile: Amount | Share, figures: Figures) -> Html:
    class_ = "tile"
    if not figures.total.has(tile.what.sample):
        value, note = NONE, "not watched"
    elif isinstance(tile, Amount):
        value, note = _amount(tile.what, tile.unit, figures)
    else:
        share = tile.value(figures.new)
        amount, note = _amount(tile.what, tile.unit, figures)
        value, note = (
            (percent(share), f"{amount} · {note}" if note else amount) if share is not None else (NONE, tile.nothing)
        )
        class_ += " alarming" if tile.alarms(figures) else ""
    help = f"{tile.what.sample}: {_HELP[tile.what.sample]}"
    return element(
        "div",
        element("h3", tile.title),
        element("p", value, class_="value"),
        element("p", note, class_="note"),
        class_=class_,
        title=help,
    )


def _amount(what: Sum, unit: Unit, figures: Figures) -> tuple[str, str]:
    """A rate and what it is in all, or where no time is known, what it is in all."""
    total = written(what.total(figures.total), unit)
    return (figures.rate(what.total(figures.new), unit), f"{total} in all") if figures.seconds else (total, "in all")
