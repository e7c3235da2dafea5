# SPDX-License-Identifier: Apache-2.0
"""The exporter's metrics about itself: what is attached, what was missed, how full the maps are.

Each function makes the families of one subject from facts that it is given or reads itself.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

from hmm_exporter import __version__
from hmm_exporter.bpf.link import Program
from hmm_exporter.bpf.maps import MapSet, Row, Thread
from hmm_exporter.bpf.plan import ABSENT, ATTACHED, DISABLED, Outcome
from hmm_exporter.catalog import tables
from hmm_exporter.catalog.probes import PROBES
from hmm_exporter.catalog.tables import Kind, Table
from hmm_exporter.catalog.values import Loss
from hmm_exporter.kernel.devices import DeviceInfo
from hmm_exporter.kernel.features import Kernel
from hmm_exporter.metrics.labels import Owner

Rows = Mapping[Table, Sequence[Row]]


def build_and_kernel(kernel: Kernel, bcc: str) -> Iterator[Family]:
    """Facts that do not change while it runs."""
    build = GaugeMetricFamily(
        "hmm_exporter_build_info",
        "1; the exporter's version, its Python's, and the bcc that compiled the programs.",
        labels=("version", "python", "bcc"),
    )
    build.add_metric((__version__, platform.python_version(), bcc), 1)
    yield build
    info = GaugeMetricFamily(
        "hmm_exporter_kernel_info",
        "1; the kernel that is watched: release, whether it has BTF, lockdown, whether CONFIG_DEVICE_PRIVATE is on.",
        labels=("release", "btf", "lockdown", "device_private"),
    )
    info.add_metric((kernel.release, _yes(not kernel.btf_problem), kernel.lockdown, _yes(kernel.device_private)), 1)
    yield info


def probes(outcomes: Iterable[Outcome]) -> Iterator[Family]:
    """What became of each probe."""
    attached = GaugeMetricFamily(
        "hmm_exporter_probe_attached",
        "Whether the probe is attached, for probes that are enabled and that this kernel has.",
        labels=("probe",),
    )
    info = GaugeMetricFamily(
        "hmm_exporter_probe_info",
        "1; how each probe is attached, or the state it is in; hmm-exporter --check says why.",
        labels=("probe", "function", "kind", "state"),
    )
    for outcome in outcomes:
        if outcome.state not in (ABSENT, DISABLED):
            attached.add_metric((outcome.probe.name,), int(outcome.state == ATTACHED))
        info.add_metric((outcome.probe.name, outcome.function, outcome.kind, outcome.state), 1)
    yield attached
    yield info


@dataclass(frozen=True)
class Runs:
    """What the kernel counts for one program; runs and seconds only while its BPF statistics are on."""

    runs: int
    nanoseconds: int
    recursion_misses: int
    id: int = 0
    """The kernel's number of the program, by which two fds of one can be told."""


def program_runs(fd: int) -> Runs:
    """From /proc/self/fdinfo, which needs no privilege."""
    numbers = {}
    for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("run_cnt", "run_time_ns", "recursion_misses", "prog_id"):
            numbers[name] = int(value)
    # recursion_misses came with 5.12.
    names = ("run_cnt", "run_time_ns", "recursion_misses", "prog_id")
    return Runs(*(numbers.get(name, 0) for name in names))


def statistics_are_on() -> bool:
    """Whether the kernel counts and times all runs, not only those of the governor's seconds.

    It does, too, while any process asks for it; that leaves no trace.
    """
    try:
        return Path("/proc/sys/kernel/bpf_stats_enabled").read_text().strip() == "1"
    except OSError:  # before 5.1
        return False


class ProbeRuns:
    """Runs and misses of each probe's programs."""

    def __init__(self, programs: Sequence[Program]) -> None:
        """``programs``: those that are loaded, attached or not; there may be others later."""
        self._programs = programs
        self._lost_returns: dict[str, int] = {}
        self._left_out: dict[str, dict[int, int]] = {}

    def families(self, rows: Rows, threads: Sequence[Thread], rows_after: Sequence[Row]) -> Iterator[Family]:
        """``rows_after``: PROBE_CALL read once more, after the threads."""
        runs: dict[str, list[Runs]] = {}
        for program in self._programs:
            runs.setdefault(program.probe, []).append(program_runs(program.fd))
        if statistics_are_on():
            yield from _run_families(runs)
        missed = CounterMetricFamily(
            "hmm_exporter_probe_missed",
            "Events that a probe did not see, or not to the end: skipped while the same program was preempted on that"
            " CPU (fentry), or any other BPF program (kprobe), lost return probes (kprobe), no room for the thread.",
            labels=("probe",),
        )
        for probe, each in runs.items():
            number = next(at for at, candidate in enumerate(PROBES) if candidate.name == probe)
            entered, _, untracked, _ = rows[tables.PROBE_CALL][number].words
            returned = rows_after[number].words[1]
            inside = sum(thread.inside >> number & 1 for thread in threads)
            # Entries were read first and returns last, so this is never more than the truth, and
            # exact when nothing moves: its maximum over time is what is known to be lost.
            lost = max(self._lost_returns.get(probe, 0), entered - inside - returned)
            self._lost_returns[probe] = lost
            missed.add_metric((probe,), lost + untracked + self._skipped(probe, each))
        yield missed

    def _skipped(self, probe: str, runs: Sequence[Runs]) -> int:
        """Runs that the kernel left out. Of a return probe they are among the lost ones already."""
        its = [program for program in self._programs if program.probe == probe]
        left_out = self._left_out.setdefault(probe, {})
        for program, run in zip(its, runs):
            if not program.kind.endswith("retprobe") or len(its) == 1:
                left_out[run.id] = run.recursion_misses
        # Also of programs that others have replaced.
        return sum(left_out.values())


def _run_families(runs: Mapping[str, Sequence[Runs]]) -> Iterator[Family]:
    count = CounterMetricFamily(
        "hmm_exporter_probe_runs",
        "Runs of the probe's programs that the kernel has timed; where kernel.bpf_stats_enabled is 1.",
        labels=("probe",),
    )
    seconds = CounterMetricFamily(
        "hmm_exporter_probe_run_seconds",
        "Time in those runs of the probe's programs; where kernel.bpf_stats_enabled is 1.",
        labels=("probe",),
    )
    for probe, each in runs.items():
        count.add_metric((probe,), sum(run.runs for run in each))
        seconds.add_metric((probe,), sum(run.nanoseconds for run in each) / 1e9)
    yield count
    yield seconds


def maps(map_set: MapSet, rows: Rows, threads: Sequence[Thread], arrivals: int) -> Iterator[Family]:
    """How full the hashes are, and what found no room. Arrays are always full by nature."""
    entries = GaugeMetricFamily("hmm_exporter_map_entries", "Rows in a BPF hash map.", labels=("map",))
    capacity = GaugeMetricFamily("hmm_exporter_map_capacity", "Rows that a BPF hash map has room for.", labels=("map",))
    for table in tables.ROW_TABLES:
        if table.kind is Kind.HASH:
            entries.add_metric((table.name,), len(rows[table]))
            capacity.add_metric((table.name,), map_set.capacity[table])
    entries.add_metric(("thread",), len(threads))
    capacity.add_metric(("thread",), map_set.threads)
    entries.add_metric(("arrival",), arrivals)
    capacity.add_metric(("arrival",), map_set.arrivals)
    yield entries
    yield capacity
    overflow = CounterMetricFamily(
        "hmm_exporter_label_overflow_events",
        "Events whose label set found no row of its own and that were booked as other; of stack: EBUSY returns,"
        " and new owners, whose kernel stack could not be kept; of arrival: regions on a device that are not followed.",
        labels=("map",),
    )
    for table, row in zip(tables.ROW_TABLES, rows[tables.OVERFLOW]):
        if table.kind is Kind.HASH and table not in (tables.OWNER, tables.DRIVER):
            overflow.add_metric((table.name,), row.words[0])
    overflow.add_metric(("stack",), rows[tables.LOSS][Loss.stack].words[0])
    overflow.add_metric(("arrival",), rows[tables.LOSS][Loss.arrival_full].words[0])
    yield overflow
    yield CounterMetricFamily(
        "hmm_exporter_residency_misses",
        "CPU faults that brought back pages of a region whose arrival is not known: before the start, too long ago"
        " (an hour, or less while the map fills up), in a fork's parent, or when there was no room for it.",
        value=rows[tables.LOSS][Loss.arrival_unknown].words[0],
    )


def migrations(in_flight: int, abandoned: int, balanced: bool) -> Iterator[Family]:
    """The state of the migrations' books."""
    yield GaugeMetricFamily(
        "hmm_exporter_migrations_in_flight",
        "Migrations between migrate_vma_setup's entry and migrate_vma_finalize's return.",
        value=in_flight,
    )
    yield CounterMetricFamily(
        "hmm_exporter_migrations_abandoned",
        "Migrations that were not finalized before their thread's next one or for ten minutes, or not tracked from"
        " beginning to end.",
        value=abandoned,
    )
    yield GaugeMetricFamily(
        "hmm_exporter_books_balanced",
        "1 if started = failed + empty + completed + in flight + abandoned, and requested = moved + zero-filled +"
        " the sum of unmoved.",
        value=int(balanced),
    )


def owners(named: Iterable[Owner]) -> Iterator[Family]:
    info = GaugeMetricFamily(
        "hmm_pgmap_owner_info",
        "1; the driver of a pgmap_owner, by its symbol's module or the module that first migrated for it.",
        labels=("pgmap_owner", "driver"),
    )
    # Two owners may have got one name (unknown); a label set is exposed once.
    for name, driver in sorted({(owner.name, owner.driver) for owner in named}):
        info.add_metric((name, driver), 1)
    yield info


def devices(there: Iterable[DeviceInfo]) -> Iterator[Family]:
    info = GaugeMetricFamily(
        "hmm_device_info",
        "1; a device with pages of its own, by its physical range: its driver, and its address on the PCI bus as"
        " NVML spells it, if the range tells (nvidia-uvm-hmm-0 is a range, not a GPU).",
        labels=("device", "driver", "pci_bus_id"),
    )
    for device in there:
        info.add_metric(device, 1)
    yield info


def scrape(series: int, limit: int, collect_seconds: float, ready_seconds: float) -> Iterator[Family]:
    for name, help, value in (
        ("hmm_exporter_series", "Series of HMM metrics in this exposition.", series),
        (
            "hmm_exporter_series_limit",
            "Series beyond which new label sets are booked as other: limits.series, less what other may yet take.",
            limit,
        ),
        ("hmm_exporter_collect_duration_seconds", "Time it took to read the maps and make metrics.", collect_seconds),
        ("hmm_exporter_ready_duration_seconds", "Time from start until all probes were attached.", ready_seconds),
    ):
        yield GaugeMetricFamily(name, help, value=value)


def _yes(condition: bool) -> str:
    return "yes" if condition else "no"
