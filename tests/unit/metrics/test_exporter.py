# SPDX-License-Identifier: Apache-2.0
"""The exporter's metrics about itself, byte for byte from given facts."""

from __future__ import annotations

import os
import platform
from dataclasses import replace
from pathlib import Path

import pytest

from hmm_exporter import __version__
from hmm_exporter.bpf.link import Program
from hmm_exporter.bpf.maps import MapSet, Row, Thread
from hmm_exporter.bpf.plan import ABSENT, ATTACHED, DENIED, DISABLED, ERROR, Outcome
from hmm_exporter.catalog import tables
from hmm_exporter.catalog.probes import PROBES
from hmm_exporter.catalog.tables import Table
from hmm_exporter.catalog.values import Loss
from hmm_exporter.kernel.devices import DeviceInfo
from hmm_exporter.metrics import exporter
from hmm_exporter.metrics.exporter import ProbeRuns, Runs, program_runs
from hmm_exporter.metrics.labels import Owner
from tests.unit.bpf import kernels
from tests.unit.bpf.in_memory import Bpf, map_set
from tests.unit.metrics.exposed import openmetrics, text

BY_NAME = {probe.name: probe for probe in PROBES}
NUMBER = {probe.name: number for number, probe in enumerate(PROBES)}


def rows_of(maps: MapSet) -> dict[Table, list[Row]]:
    return {table: maps.read(table) for table in tables.TABLES}


def test_the_build_and_the_kernel_are_named() -> None:
    kernel = replace(kernels.kernel(), lockdown="integrity")
    expected = f"""\
# HELP hmm_exporter_build_info 1; the exporter's version, its Python's, and the bcc that compiled the programs.
# TYPE hmm_exporter_build_info gauge
hmm_exporter_build_info{{bcc="0.26.0",python="{platform.python_version()}",version="{__version__}"}} 1.0
# HELP hmm_exporter_kernel_info 1; the kernel that is watched: release, whether it has BTF, lockdown, whether \
CONFIG_DEVICE_PRIVATE is on.
# TYPE hmm_exporter_kernel_info gauge
hmm_exporter_kernel_info{{btf="yes",device_private="yes",lockdown="integrity",release="7.3.4"}} 1.0
"""
    assert text(exporter.build_and_kernel(kernel, "0.26.0")) == expected


def test_a_kernel_without_btf_says_so_even_when_btf_is_let_go_of() -> None:
    without = kernels.kernel(btf_problem="no BTF (...)")
    assert 'btf="no"' in text(exporter.build_and_kernel(without, ""))
    # The daemon drops the BTF once it knows all that it wanted.
    assert 'btf="yes"' in text(exporter.build_and_kernel(replace(kernels.kernel(), btf=None), ""))


PROBES_TEXT = """\
# HELP hmm_exporter_probe_attached Whether the probe is attached, for probes that are enabled and that this kernel has.
# TYPE hmm_exporter_probe_attached gauge
hmm_exporter_probe_attached{probe="migrate_vma_setup"} 1.0
hmm_exporter_probe_attached{probe="hmm_range_fault"} 0.0
hmm_exporter_probe_attached{probe="make_device_exclusive"} 0.0
# HELP hmm_exporter_probe_info 1; how each probe is attached, or the state it is in; hmm-exporter --check says why.
# TYPE hmm_exporter_probe_info gauge
hmm_exporter_probe_info{function="migrate_vma_setup",kind="fentry",probe="migrate_vma_setup",state="attached"} 1.0
hmm_exporter_probe_info{function="hmm_range_fault",kind="none",probe="hmm_range_fault",state="denied"} 1.0
hmm_exporter_probe_info{function="make_device_exclusive_range",kind="none",probe="make_device_exclusive",\
state="error"} 1.0
hmm_exporter_probe_info{function="migrate_device_pfns",kind="none",probe="migrate_device_pfns",state="absent"} 1.0
hmm_exporter_probe_info{function="set_migration_pte",kind="none",probe="set_migration_pte",state="disabled"} 1.0
"""


def test_a_probe_that_should_be_attached_is_0_or_1_and_one_that_should_not_is_only_info() -> None:
    outcomes = [
        Outcome(BY_NAME["migrate_vma_setup"], "migrate_vma_setup", ATTACHED, "fentry"),
        Outcome(BY_NAME["hmm_range_fault"], "hmm_range_fault", DENIED, reason="not permitted"),
        Outcome(BY_NAME["make_device_exclusive"], "make_device_exclusive_range", ERROR, reason="the verifier refuses"),
        Outcome(BY_NAME["migrate_device_pfns"], "migrate_device_pfns", ABSENT, reason="not in this kernel"),
        Outcome(BY_NAME["set_migration_pte"], "set_migration_pte", DISABLED, reason="probes.groups.per_page is false"),
    ]
    assert text(exporter.probes(outcomes)) == PROBES_TEXT


def test_the_state_of_the_migrations_is_told() -> None:
    assert (
        text(exporter.migrations(3, 2, balanced=True))
        == """\
# HELP hmm_exporter_migrations_in_flight Migrations between migrate_vma_setup's entry and migrate_vma_finalize's return.
# TYPE hmm_exporter_migrations_in_flight gauge
hmm_exporter_migrations_in_flight 3.0
# HELP hmm_exporter_migrations_abandoned_total Migrations that were not finalized before their thread's next one or \
for ten minutes, or not tracked from beginning to end.
# TYPE hmm_exporter_migrations_abandoned_total counter
hmm_exporter_migrations_abandoned_total 2.0
# HELP hmm_exporter_books_balanced 1 if started = failed + empty + completed + in flight + abandoned, and requested = \
moved + zero-filled + the sum of unmoved.
# TYPE hmm_exporter_books_balanced gauge
hmm_exporter_books_balanced 1.0
"""
    )
    assert "hmm_exporter_books_balanced 0.0" in text(exporter.migrations(0, 0, balanced=False))


def test_owners_are_told_once_a_name_and_in_order() -> None:
    named = [Owner("xe-1", "xe"), Owner("unknown-1", "unknown"), Owner("amdgpu-1", "amdgpu"), Owner("xe-1", "xe")]
    assert text(exporter.owners(named)).splitlines()[2:] == [
        'hmm_pgmap_owner_info{driver="amdgpu",pgmap_owner="amdgpu-1"} 1.0',
        'hmm_pgmap_owner_info{driver="unknown",pgmap_owner="unknown-1"} 1.0',
        'hmm_pgmap_owner_info{driver="xe",pgmap_owner="xe-1"} 1.0',
    ]
    assert text(exporter.owners([])).splitlines()[1] == "# TYPE hmm_pgmap_owner_info gauge"


DEVICES = """\
# HELP hmm_device_info 1; a device with pages of its own, by its physical range: its driver, and its address on the \
PCI bus as NVML spells it, if the range tells (nvidia-uvm-hmm-0 is a range, not a GPU).
# TYPE hmm_device_info gauge
hmm_device_info{device="0000:c1:00.0",driver="amdgpu",pci_bus_id="00000000:C1:00.0"} 1.0
hmm_device_info{device="hmm_dmirror-0",driver="test_hmm",pci_bus_id=""} 1.0
"""


def test_devices_are_told_with_what_other_exporters_call_them() -> None:
    there = [
        DeviceInfo("0000:c1:00.0", "amdgpu", "00000000:C1:00.0"),
        DeviceInfo("hmm_dmirror-0", "test_hmm", ""),
    ]
    assert text(exporter.devices(there)) == DEVICES
    assert openmetrics(exporter.devices(there)) == DEVICES + "# EOF\n"
    assert text(exporter.devices([])).splitlines()[1:] == ["# TYPE hmm_device_info gauge"]


SCRAPE = """\
# HELP hmm_exporter_series Series of HMM metrics in this exposition.
# TYPE hmm_exporter_series gauge
hmm_exporter_series 1500.0
# HELP hmm_exporter_series_limit Series beyond which new label sets are booked as other: limits.series, less what \
other may yet take.
# TYPE hmm_exporter_series_limit gauge
hmm_exporter_series_limit 10000.0
# HELP hmm_exporter_collect_duration_seconds Time it took to read the maps and make metrics.
# TYPE hmm_exporter_collect_duration_seconds gauge
hmm_exporter_collect_duration_seconds 0.025
# HELP hmm_exporter_ready_duration_seconds Time from start until all probes were attached.
# TYPE hmm_exporter_ready_duration_seconds gauge
hmm_exporter_ready_duration_seconds 3.5
"""


def test_a_scrape_says_how_large_and_how_slow_it_was() -> None:
    assert text(exporter.scrape(1500, 10000, 0.025, 3.5)) == SCRAPE
    assert openmetrics(exporter.scrape(1500, 10000, 0.025, 3.5)) == SCRAPE + "# EOF\n"


MAPS = """\
# HELP hmm_exporter_map_entries Rows in a BPF hash map.
# TYPE hmm_exporter_map_entries gauge
hmm_exporter_map_entries{map="owner"} 3.0
hmm_exporter_map_entries{map="driver"} 2.0
hmm_exporter_map_entries{map="migration"} 16.0
hmm_exporter_map_entries{map="migration_histogram"} 4.0
hmm_exporter_map_entries{map="range_fault"} 8.0
hmm_exporter_map_entries{map="range_attempt"} 1.0
hmm_exporter_map_entries{map="ebusy"} 2.0
hmm_exporter_map_entries{map="interval_notifier"} 1.0
hmm_exporter_map_entries{map="failure"} 96.0
hmm_exporter_map_entries{map="process"} 1.0
hmm_exporter_map_entries{map="process_migration"} 4.0
hmm_exporter_map_entries{map="process_failure"} 24.0
hmm_exporter_map_entries{map="thread"} 2.0
hmm_exporter_map_entries{map="arrival"} 13.0
# HELP hmm_exporter_map_capacity Rows that a BPF hash map has room for.
# TYPE hmm_exporter_map_capacity gauge
hmm_exporter_map_capacity{map="owner"} 18.0
hmm_exporter_map_capacity{map="driver"} 18.0
hmm_exporter_map_capacity{map="migration"} 1152.0
hmm_exporter_map_capacity{map="migration_histogram"} 72.0
hmm_exporter_map_capacity{map="range_fault"} 144.0
hmm_exporter_map_capacity{map="range_attempt"} 18.0
hmm_exporter_map_capacity{map="ebusy"} 1026.0
hmm_exporter_map_capacity{map="interval_notifier"} 18.0
hmm_exporter_map_capacity{map="failure"} 1120.0
hmm_exporter_map_capacity{map="process"} 65.0
hmm_exporter_map_capacity{map="process_migration"} 4680.0
hmm_exporter_map_capacity{map="process_failure"} 1064.0
hmm_exporter_map_capacity{map="thread"} 8192.0
hmm_exporter_map_capacity{map="arrival"} 65536.0
# HELP hmm_exporter_label_overflow_events_total Events whose label set found no row of its own and that were booked as \
other; of stack: EBUSY returns, and new owners, whose kernel stack could not be kept; of arrival: regions on a device \
that are not followed.
# TYPE hmm_exporter_label_overflow_events_total counter
hmm_exporter_label_overflow_events_total{map="migration"} 11.0
hmm_exporter_label_overflow_events_total{map="migration_histogram"} 0.0
hmm_exporter_label_overflow_events_total{map="range_fault"} 0.0
hmm_exporter_label_overflow_events_total{map="range_attempt"} 0.0
hmm_exporter_label_overflow_events_total{map="ebusy"} 0.0
hmm_exporter_label_overflow_events_total{map="interval_notifier"} 0.0
hmm_exporter_label_overflow_events_total{map="failure"} 0.0
hmm_exporter_label_overflow_events_total{map="process"} 0.0
hmm_exporter_label_overflow_events_total{map="process_migration"} 0.0
hmm_exporter_label_overflow_events_total{map="process_failure"} 5.0
hmm_exporter_label_overflow_events_total{map="stack"} 7.0
hmm_exporter_label_overflow_events_total{map="arrival"} 3.0
# HELP hmm_exporter_residency_misses_total CPU faults that brought back pages of a region whose arrival is not known: \
before the start, too long ago (an hour, or less while the map fills up), in a fork's parent, or when there was no \
room for it.
# TYPE hmm_exporter_residency_misses_total counter
hmm_exporter_residency_misses_total 2.0
"""


def test_maps_say_how_full_they_are_and_what_found_no_room() -> None:
    with map_set() as (bpf, maps):
        bpf.book(tables.OWNER, (0xFFFF888104A30000,), stack=1)
        bpf.enter(1, 1, 1)
        bpf.enter(2, 1, 1)
        bpf.book(tables.OVERFLOW, (tables.ROW_TABLES.index(tables.MIGRATION),), events=11)
        bpf.book(tables.OVERFLOW, (tables.ROW_TABLES.index(tables.PROCESS_FAILURE),), events=5)
        bpf.book(tables.LOSS, (Loss.stack,), events=7)
        bpf.book(tables.LOSS, (Loss.arrival_full,), events=3)
        bpf.book(tables.LOSS, (Loss.arrival_unknown,), events=2)
        bpf.book(tables.LOSS, (Loss.migration_abandoned,), events=100)
        assert text(exporter.maps(maps, rows_of(maps), maps.read_threads(), arrivals=13)) == MAPS


# The form of /proc/self/fdinfo of a BPF program (kernel/bpf/syscall.c, bpf_prog_show_fdinfo), with
# the statistics of kernel.bpf_stats_enabled=1; the first lines are every file's.
FDINFO = """\
pos:\t0
flags:\t02000000
mnt_id:\t15
ino:\t2059
prog_type:\t26
prog_jited:\t1
prog_tag:\t6deef7357e7b4530
memlock:\t4096
prog_id:\t42
run_time_ns:\t123456
run_cnt:\t789
recursion_misses:\t3
verified_insns:\t120
"""


@pytest.mark.parametrize(
    ("fdinfo", "runs"),
    [
        (FDINFO, Runs(789, 123456, 3, 42)),
        (FDINFO.replace("recursion_misses", "something_new"), Runs(789, 123456, 0, 42)),
        ("pos:\t0\nflags:\t02000000\n", Runs(0, 0, 0)),
    ],
    ids=["6.1", "5.11", "no-program"],
)
def test_a_programs_runs_are_read_from_its_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fdinfo: str, runs: Runs
) -> None:
    (tmp_path / "7").write_text(fdinfo)
    monkeypatch.setattr(exporter, "Path", lambda path: tmp_path / Path(path).name)
    assert program_runs(7) == runs


def test_a_descriptor_of_something_else_has_run_nothing() -> None:
    fd = os.open(os.devnull, os.O_RDONLY)
    try:
        assert program_runs(fd) == Runs(0, 0, 0)
    finally:
        os.close(fd)


PROBE = "migrate_vma_setup"


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[int, Runs]:
    """What the kernel says of programs, by descriptor, with its statistics on."""
    runs: dict[int, Runs] = {}
    monkeypatch.setattr(exporter, "statistics_are_on", lambda: True)
    monkeypatch.setattr(exporter, "program_runs", lambda fd: runs.get(fd, Runs(0, 0, 0)))
    return runs


PROGRAMS = [
    Program(PROBE, "leave_migrate_vma_setup", "kretprobe", 11, PROBE),
    Program(PROBE, "enter_migrate_vma_setup", "kprobe", 12, PROBE),
    Program("hmm_range_fault", "enter_hmm_range_fault", "fentry", 13, "hmm_range_fault"),
]


def families(runs: ProbeRuns, maps: MapSet, threads: list[Thread]) -> str:
    rows = rows_of(maps)
    return text(runs.families(rows, threads, rows[tables.PROBE_CALL]))


def missed(runs: ProbeRuns, maps: MapSet, threads: list[Thread]) -> dict[str, float]:
    lines = families(runs, maps, threads).splitlines()
    values = (line.split() for line in lines if line.startswith("hmm_exporter_probe_missed_total{"))
    return {name.split('"')[1]: float(value) for name, value in values}


RUNS = """\
# HELP hmm_exporter_probe_runs_total Runs of the probe's programs that the kernel has timed; where \
kernel.bpf_stats_enabled is 1.
# TYPE hmm_exporter_probe_runs_total counter
hmm_exporter_probe_runs_total{probe="migrate_vma_setup"} 30.0
hmm_exporter_probe_runs_total{probe="hmm_range_fault"} 0.0
# HELP hmm_exporter_probe_run_seconds_total Time in those runs of the probe's programs; where \
kernel.bpf_stats_enabled is 1.
# TYPE hmm_exporter_probe_run_seconds_total counter
hmm_exporter_probe_run_seconds_total{probe="migrate_vma_setup"} 1.5e-06
hmm_exporter_probe_run_seconds_total{probe="hmm_range_fault"} 0.0
# HELP hmm_exporter_probe_missed_total Events that a probe did not see, or not to the end: skipped while the \
same program was preempted on that CPU (fentry), or any other BPF program (kprobe), lost return probes (kprobe), no \
room for the thread.
# TYPE hmm_exporter_probe_missed_total counter
hmm_exporter_probe_missed_total{probe="migrate_vma_setup"} 2.0
hmm_exporter_probe_missed_total{probe="hmm_range_fault"} 4.0
"""


def test_runs_and_misses_of_a_probe_are_those_of_all_its_programs_but_a_return_probes_misses(
    counted: dict[int, Runs],
) -> None:
    counted |= {11: Runs(10, 1000, 1), 12: Runs(20, 500, 2), 13: Runs(0, 0, 4)}
    with map_set() as (_, maps):
        assert families(ProbeRuns(PROGRAMS), maps, []) == RUNS


def test_where_bpf_statistics_are_off_there_are_no_run_metrics(
    counted: dict[int, Runs], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though some runs were timed: for a second in sixty, for the governor."""
    monkeypatch.setattr(exporter, "statistics_are_on", lambda: False)
    counted |= {12: Runs(50, 5000, 1)}
    with map_set() as (_, maps):
        made = families(ProbeRuns(PROGRAMS), maps, [])
    assert "probe_run" not in made
    assert 'hmm_exporter_probe_missed_total{probe="migrate_vma_setup"} 1.0' in made


def test_a_return_probe_that_was_skipped_is_missed_once(counted: dict[int, Runs]) -> None:
    """It is among the entries without a return already; on its own, it has no entries."""
    counted |= {11: Runs(0, 0, 5), 14: Runs(0, 0, 5)}
    alone = Program("hmm_dma_map_pfn", "leave_hmm_dma_map_pfn", "kretprobe", 14, "hmm_dma_map_pfn")
    with map_set() as (bpf, maps):
        book_calls(bpf, entered=5)
        found = missed(ProbeRuns([*PROGRAMS, alone]), maps, [])
    assert found == {PROBE: 5, "hmm_range_fault": 0, "hmm_dma_map_pfn": 5}


def book_calls(bpf: Bpf, **calls: int) -> None:
    bpf.book(tables.PROBE_CALL, (NUMBER[PROBE],), **calls)


@pytest.mark.usefixtures("counted")
def test_entries_without_a_return_are_missed_unless_the_thread_is_still_inside() -> None:
    inside = Thread(b"", 1 << NUMBER[PROBE] | 1 << 63, 0)
    elsewhere = Thread(b"", 1 << NUMBER["hmm_range_fault"], 0)
    with map_set() as (bpf, maps):
        runs = ProbeRuns(PROGRAMS)
        book_calls(bpf, entered=10, returned=7)
        assert missed(runs, maps, [inside, inside, inside, elsewhere])[PROBE] == 0
        assert missed(runs, maps, [inside, inside, elsewhere])[PROBE] == 1


@pytest.mark.usefixtures("counted")
def test_what_was_missed_once_stays_counted_though_calls_overtake_it() -> None:
    with map_set() as (bpf, maps):
        runs = ProbeRuns(PROGRAMS)
        book_calls(bpf, entered=10, returned=7)
        assert missed(runs, maps, [])[PROBE] == 3
        # Returns are read last: while calls come in, fewer seem to be missing than are.
        book_calls(bpf, returned=2)
        assert missed(runs, maps, [])[PROBE] == 3
        book_calls(bpf, entered=6)
        assert missed(runs, maps, [])[PROBE] == 7


@pytest.mark.usefixtures("counted")
def test_more_returns_than_entries_are_nothing_missed() -> None:
    with map_set() as (bpf, maps):
        book_calls(bpf, entered=5, returned=6)
        assert missed(ProbeRuns(PROGRAMS), maps, [])[PROBE] == 0


@pytest.mark.usefixtures("counted")
def test_calls_of_threads_that_found_no_room_are_missed() -> None:
    with map_set() as (bpf, maps):
        book_calls(bpf, untracked=9)
        assert missed(ProbeRuns(PROGRAMS), maps, []) == {PROBE: 9, "hmm_range_fault": 0}
