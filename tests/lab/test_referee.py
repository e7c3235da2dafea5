# SPDX-License-Identifier: Apache-2.0
"""The bpftrace script watches the same work in the same machine: each of its maps is what referee.py says of it.

Equal where it is right; where it is wrong, it is wrong by what our own metrics say.
"""

from __future__ import annotations

import errno
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import pytest

from tests.exposition import Samples
from tests.lab import guest, hmm_snoop, prediction
from tests.lab.conftest import ATTEMPTS, GuestExporter
from tests.lab.hmm_snoop import UNPREEMPTED, HmmSnoop, by_key, counted, figure
from tests.lab.prediction import CLASSES, PAGE
from tests.lab.referee import ROWS
from tests.lab.referee_row import Figure, Key, Row, Shows, Verdict

# One kind of probe is enough here: test_figures.py shows that both count the same.
pytestmark = pytest.mark.parametrize("exporter", ["fentry"], indirect=True, scope="session")

CLASS_NAMES = {
    "cpu->dev (prefetch) ": "prefetch",
    "dev->cpu (fault-back) ": "fault_back",
    "dev->cpu (driver evict)": "evict",
}
# What hmm-tests leaves out: another process that works on the memory of its owner, and a refusal.
DEEDS = (
    "name=owner warm=64 process=worker migrate process=worker back migrate-1 process=worker read"
    " mixed=8 process=worker migrate"
)
# Migrations that have nothing to do with HMM.
COMPACTION = "echo 1 > /proc/sys/vm/compact_memory"
REPORT = (
    f"cd /opt/hmm-exporter; exec {UNPREEMPTED} python3 -m hmm_exporter report --json"
    " --config.file /tmp/hmm-exporter.yaml -- sh -c 'echo attached; exec sleep infinity'"
)
HUGE = 512


@dataclass(frozen=True)
class Seen:
    """What the script, the exporter and the report saw of the same work."""

    huge_pages: str
    script: dict[str, Any]
    ours: Samples
    report: Samples
    stacks: Counter[tuple[str, ...]]

    def value(self, name: str) -> int:
        return figure(self.script.get(name, 0))

    def by_class(self, name: str) -> Counter[str]:
        return Counter({CLASS_NAMES[key]: count for key, count in by_key(self.script.get(name)).items()})

    def processes(self, name: str) -> Counter[tuple[str, str]]:
        """By (pid, comm)."""
        rows = by_key(self.script.get(name)).items()
        return Counter({cast(tuple[str, str], tuple(key.split(",", 1))): count for key, count in rows})

    def codes(self, name: str) -> Counter[str]:
        """By the errno's name, "" for 0."""
        rows = by_key(self.script.get(name)).items()
        return Counter({errno.errorcode.get(-int(code), ""): count for code, count in rows})

    def pages(self, name: str, **labels: str) -> int:
        return int(self.ours.sum(f"hmm_migration_{name}", **labels)) // PAGE

    def huge_entries(self, its_class: str) -> int:
        """How many huge pages and huge holes were an entry of cpages: what the script took for partial, but empty."""
        empty = self.ours.sum("hmm_migrations_empty_total", **{"class": its_class})
        return self.by_class("mig_partial")[its_class] - int(empty)


@pytest.fixture(scope="module", params=["always", "never"])
def seen(request: pytest.FixtureRequest, exporter: GuestExporter, mirror: str) -> Seen:
    script = hmm_snoop.find()
    if script is None:
        pytest.skip("no hmm-snoop.bt: name it in HMM_SNOOP to compare with it")
    machine = exporter.machine
    guest.transparent_hugepages(machine, request.param)
    machine.run(f"chrt --all-tasks --fifo --pid 1 {exporter.process.pid}")
    for _ in range(ATTEMPTS):
        guest.reload_test_hmm(machine)
        report = machine.start(REPORT)
        report.wait_for_output("attached", timeout=300)
        with HmmSnoop(machine, script) as snoop:
            before = exporter.scrape()
            for test in dict.fromkeys(each.test for each in prediction.read()):
                guest.hmm_test(machine, test)
            machine.run(f"{mirror} {DEEDS}")
            machine.run(COMPACTION)
            snoop.wait_for_summary()
            ours = exporter.scrape().since(before)
            missed = [snoop.missed(), *ours.nonzero("hmm_exporter_probe_missed_total").values()]
            maps = snoop.stop()
        document = json.loads(report.stop("INT").stdout.splitlines()[-1])
        if not any(missed):
            break
        print(f"measured again: the script missed {missed[0]} events, the exporter {sum(missed[1:])}")
    machine.run(f"chrt --all-tasks --other --pid 0 {exporter.process.pid}")
    return Seen(request.param, maps, ours, samples(document), stacks(document))


def samples(document: dict[str, Any]) -> Samples:
    """A report's figures, under the names that an exposition has for them."""
    values = {
        (name, frozenset(each["labels"].items())): each["value"]
        for name, series in document["metrics"].items()
        for each in series
    }
    for name, series in document["histograms"].items():
        values |= {(f"{name}_count", frozenset(each["labels"].items())): each["count"] for each in series}
    return Samples(values)


def stacks(document: dict[str, Any]) -> Counter[tuple[str, ...]]:
    found: Counter[tuple[str, ...]] = Counter()
    for stack in document["ebusy_stacks"]:
        found[tuple(f"{frame['symbol']}+{frame['offset']}" for frame in stack["frames"])] += stack["calls"]
    return found


def added(figures: Sequence[Figure], of: Samples, **labels: str) -> int:
    return int(sum(of.sum(each.sample, **each.labels, **labels) for each in figures))


def by_label(figures: Sequence[Figure], of: Samples, label: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for each in figures:
        for its, value in of.nonzero(each.sample).items():
            if each.labels.items() <= its:
                found[dict(its)[label]] += int(value)
    return found


# The maps that stay empty in the lab, for which nothing is compared: no driver of it does such a thing.
EMPTY = {"hmm_dma_map", "hmm_dma_unmap", "bulk_teardown_pfns", "hrf_eagain"}
# And these, where no huge page moves whole.
OF_HUGE_PAGES = {"cpu_fault_thp", "cpu_fault_thp_by_proc", "mig_compound"}
# To 6.14 the tests that make pages exclusive fail on huge pages before any is taken back (predictions-6.12.txt).
OF_SMALL_PAGES = {"dev_exclusive_restore", "dev_exclusive_restore_by_proc"}


def test_every_other_map_has_counted(seen: Seen) -> None:
    empty = {row.script for row in ROWS if not counted(seen.script.get(row.script, 0))}
    if prediction.MOVES_HUGE_PAGES:
        assert empty == EMPTY
    else:
        assert empty == EMPTY | OF_HUGE_PAGES | (OF_SMALL_PAGES if seen.huge_pages == "always" else set())


def named(*keys: Key) -> pytest.MarkDecorator:
    rows = [row for row in ROWS if row.key in keys and not row.own_test]
    return pytest.mark.parametrize("row", rows, ids=lambda row: row.script)


@named(Key.none)
def test_a_figure_is_what_the_table_says(seen: Seen, row: Row) -> None:
    assert seen.value(row.script) == added(row.scripts_figures, seen.ours)


@named(Key.class_)
def test_a_figure_by_class_is_what_the_table_says(seen: Seen, row: Row) -> None:
    assert +seen.by_class(row.script) == by_label(row.scripts_figures, seen.ours, "class")


@named(Key.order)
def test_a_figure_by_order_is_what_the_table_says(seen: Seen, row: Row) -> None:
    orders = Counter({str(bucket["min"]): bucket["count"] for bucket in seen.script.get(row.script, [])})
    assert +orders == by_label(row.scripts_figures, seen.ours, "order")


@named(Key.owner)
def test_a_figure_by_owner_is_the_same_under_a_name(seen: Seen, row: Row) -> None:
    named = by_label(row.ours, seen.ours, "pgmap_owner")
    assert sorted(by_key(seen.script.get(row.script)).values()) == sorted(named.values())
    assert all(owner.startswith("test_hmm-") for owner in named)


@pytest.mark.parametrize(
    "row",
    [
        row
        for row in ROWS
        if row.verdict is Verdict.corrected and row.key in (Key.none, Key.class_, Key.order) and not row.own_test
    ],
    ids=lambda row: row.script,
)
def test_a_correction_shows_where_the_table_says(seen: Seen, row: Row) -> None:
    shows = row.shows is Shows.everywhere or (row.shows is Shows.since_7 and prediction.MOVES_HUGE_PAGES)
    assert (added(row.ours, seen.ours) != added(row.scripts_figures, seen.ours)) == shows


@named(Key.process)
def test_a_process_is_what_the_table_says(seen: Seen, row: Row) -> None:
    shown = seen.processes(row.script)
    ours: Counter[tuple[str, str]] = Counter()
    for each in row.ours:
        for its, value in seen.report.nonzero(each.sample).items():
            if each.labels.items() <= its:
                ours[dict(its)["pid"], dict(its)["comm"]] += row.times * int(value)
    assert {who: shown[who] for who in shown if who[1] == "hmm-tests"}.items() <= ours.items()
    # Of the owner's memory, the worker's share is booked to the worker.
    assert "worker" not in {comm for _, comm in ours}
    worker, owner = (sum(count for (_, comm), count in shown.items() if comm == name) for name in ("worker", "owner"))
    right = sum(count for (_, comm), count in ours.items() if comm == "owner")
    assert worker + owner <= right
    if len(shown) < row.limit:
        assert shown.total() == ours.total()
    else:
        assert len(shown) == row.limit


def test_the_script_books_to_a_worker_what_is_done_to_the_owners_memory(seen: Seen) -> None:
    tables = [row.script for row in ROWS if row.script.endswith("_by_proc")]
    misled = {name for name in tables if "worker" in {comm for _, comm in seen.processes(name)}}
    assert misled >= {"mig_cpu2dev_by_proc", "mig_dev2cpu_flt_by_proc", "mig_dev2cpu_drv_by_proc"}
    assert misled >= {"hrf_ebusy_by_proc", "mmu_notify_migrate_by_proc"}
    assert {row.verdict for row in ROWS if row.script in misled} == {Verdict.corrected}


@pytest.mark.parametrize(
    ("name", "errors", "calls"),
    [
        ("mig_setup_ret", Figure("hmm_migration_failures_total"), Figure("hmm_migrations_started_total")),
        (
            "hrf_ret",
            Figure("hmm_range_fault_failures_total", {"function": "hmm_range_fault"}),
            Figure("hmm_range_faults_total", {"function": "hmm_range_fault"}),
        ),
    ],
)
def test_errors_are_the_same_by_errno_and_zero_is_the_rest(
    seen: Seen, name: str, errors: Figure, calls: Figure
) -> None:
    returned = seen.codes(name)
    ours = by_label([errors], seen.ours, "errno")
    assert ours.total() > 0
    assert returned == ours + Counter({"": added([calls], seen.ours) - ours.total()})


def test_range_faults_of_the_other_function_are_ours_alone(seen: Seen) -> None:
    unknown = "hmm_range_fault_unlocked_timeout"
    assert (seen.ours.sum("hmm_range_faults_total", function=unknown) > 0) == (unknown not in prediction.ABSENT)


def test_stacks_are_the_same_frame_by_frame(seen: Seen) -> None:
    shown: Counter[tuple[str, ...]] = Counter()
    for key, count in by_key(seen.script["hrf_ebusy_stacks"]).items():
        frames, _, _ = key.rpartition(",")
        shown[tuple(frames.replace("\\n", "\n").split())] += count
    assert shown == seen.stacks
    assert shown.total() == seen.ours.sum("hmm_range_fault_ebusy_callers_total")


@pytest.mark.parametrize(
    ("name", "phase"), [("mig_pages_phase_us", "driver_prepare"), ("mig_finalize_phase_us", "driver_complete")]
)
def test_phases_are_those_of_migrations_that_collected_nothing_too(seen: Seen, name: str, phase: str) -> None:
    ours = by_label([Figure("hmm_migration_phase_duration_seconds_count", {"phase": phase})], seen.report, "class")
    assert ours == by_label([Figure("hmm_migrations_completed_total")], seen.ours, "class")
    assert +seen.by_class(name) == ours + by_label([Figure("hmm_migrations_empty_total")], seen.ours, "class")


@pytest.mark.parametrize("its_class", CLASSES)
def test_a_huge_page_that_moves_is_511_unmigratable_pages_to_the_script(seen: Seen, its_class: str) -> None:
    not_collected = sum(
        seen.pages("unmoved_bytes_total", reason=reason, **{"class": its_class}) for reason in ("not_selected", "busy")
    )
    huge = seen.huge_entries(its_class)
    unmigratable = seen.by_class("mig_unmigratable_pages")[its_class]
    assert unmigratable == not_collected + (HUGE - 1) * huge
    # A huge hole, and a huge page that is split to be moved, were an entry, too.
    assert huge >= seen.ours.sum("hmm_migrations_huge_total", **{"class": its_class})
    if not prediction.MOVES_HUGE_PAGES:
        assert huge == 0


def test_huge_pages_that_moved_are_neither_partial_nor_unmoved(seen: Seen) -> None:
    whole = seen.ours.sum("hmm_migrations_huge_total")
    assert (whole > 0) == prediction.MOVES_HUGE_PAGES
    tests = [of for of in prediction.read() if of.huge_pages == seen.huge_pages]
    partial = sum(of.number(f"{its_class}.partial") for of in tests for its_class in CLASSES)
    assert seen.ours.sum("hmm_migrations_partial_total") == partial
    assert seen.by_class("mig_partial").total() >= whole + seen.ours.sum("hmm_migrations_empty_total")


@pytest.mark.parametrize("its_class", CLASSES)
def test_what_the_script_collected_is_what_setup_did_with_huge_pages_as_one(seen: Seen, its_class: str) -> None:
    of_class = {"class": its_class}
    requested = seen.pages("requested_bytes_total", **of_class)
    unmigratable = seen.by_class("mig_unmigratable_pages")[its_class]
    entries = seen.by_class("mig_setup_pages_collected_total")[its_class]
    assert entries == requested - unmigratable
    # Nothing updates cpages: what was refused later, or had no destination, is in it.
    assert seen.by_class("mig_finalize_cpages")[its_class] == entries
    moved = seen.pages("moved_size_bytes_sum", **of_class)
    filled = seen.pages("zero_filled_bytes_total", **of_class)
    lost = sum(
        seen.pages("unmoved_bytes_total", reason=reason, **of_class) for reason in ("no_destination", "commit_failed")
    )
    assert moved + filled + lost == entries + (HUGE - 1) * seen.huge_entries(its_class)
    if not lost:
        assert seen.pages("collected_bytes_total", **of_class) == moved


def test_what_the_script_calls_moved_was_not_where_a_hole_was_filled(seen: Seen) -> None:
    assert seen.pages("zero_filled_bytes_total", **{"class": "prefetch"}) > 0
    moved = seen.pages("moved_bytes_total", direction="host_to_device")
    assert seen.by_class("mig_finalize_cpages")["prefetch"] != moved
    assert moved == seen.pages("moved_size_bytes_sum", **{"class": "prefetch"})


@pytest.mark.parametrize(
    ("name", "its_class", "started"),
    [
        ("mig_cpu2dev_cpages_by_proc", "prefetch", "mig_cpu2dev_by_proc"),
        ("mig_dev2cpu_flt_cpages_by_proc", "fault_back", "mig_dev2cpu_flt_by_proc"),
        ("mig_dev2cpu_drv_cpages_by_proc", "evict", "mig_dev2cpu_drv_by_proc"),
    ],
)
def test_moved_pages_of_processes_are_wrong_as_those_of_classes_and_booked_as_migrations(
    seen: Seen, name: str, its_class: str, started: str
) -> None:
    shown = seen.processes(name)
    assert shown.total() == seen.by_class("mig_finalize_cpages")[its_class]
    refused = seen.ours.sum("hmm_migration_failures_total", **{"class": its_class})
    assert len(set(seen.processes(started)) - set(shown)) == refused
    direction = "host_to_device" if its_class == "prefetch" else "device_to_host"
    ours = by_label([Figure("hmm_process_moved_bytes_total", {"direction": direction})], seen.ours, "comm")
    assert set(ours) == {"hmm-tests", "owner"}
    assert ours.total() == seen.ours.sum("hmm_migration_moved_bytes_total", direction=direction)


@pytest.mark.parametrize("its_class", CLASSES)
def test_callers_that_allow_huge_pages_are_compound_to_the_script(seen: Seen, its_class: str) -> None:
    compound = seen.by_class("mig_compound")[its_class]
    of_class = {"class": its_class}
    whole = seen.ours.sum("hmm_migrations_huge_total", **of_class)
    if not prediction.MOVES_HUGE_PAGES:
        assert compound == whole == 0
    elif its_class == "fault_back":  # The driver allows it where the fault is on a huge page.
        assert compound == whole > 0
    else:
        refused = seen.ours.sum("hmm_migration_failures_total", **of_class)
        assert compound == seen.ours.sum("hmm_migrations_started_total", **of_class) - refused > whole


def test_sizes_of_device_ranges_are_not_what_moved(seen: Seen) -> None:
    assert seen.ours.sum("hmm_device_range_size_bytes_sum") == (
        seen.value("bulk_teardown_range") * prediction.CHUNK_PAGES * PAGE
    )
    assert 0 < seen.ours.sum("hmm_device_range_moved_bytes_total") < seen.ours.sum("hmm_device_range_size_bytes_sum")


def test_device_ranges_by_process_are_who_closed_the_device(seen: Seen) -> None:
    shown = seen.processes("bulk_teardown_by_proc")
    assert {comm for _, comm in shown} <= {"hmm-tests", "owner"}
    assert len(shown) == 10
    assert 0 < shown.total() < seen.ours.sum("hmm_device_range_migrations_total")


def test_the_table_has_every_map_that_the_script_gave(seen: Seen) -> None:
    assert set(seen.script) <= {row.script for row in ROWS}
