# SPDX-License-Identifier: Apache-2.0
"""What test_hmm itself counted is what the exporter says that moved, and it is booked to whose memory it is."""

from __future__ import annotations

from typing import cast

import pytest

from tests.exposition import Samples
from tests.lab import guest, prediction
from tests.lab.conftest import GuestExporter
from tests.lab.prediction import PAGE

# One page, parts of huge pages and whole ones, one and several calls of migrate_vma_setup.
SIZES = (1, 7, 64, 512, 1000, 1536)
ENOENT, EINVAL = -2, -22


class Deeds:
    """Deeds done in the guest, and what both counted meanwhile."""

    def __init__(self, exporter: GuestExporter, huge_pages: guest.HugePages, deeds: str) -> None:
        guest.transparent_hugepages(exporter.machine, huge_pages)
        said, after, self.since = exporter.measured(
            deeds, lambda: exporter.machine.run(f"/run/mirror {deeds}").stdout.splitlines()
        )
        self.answers = [(deed, int(count)) for deed, count in map(str.split, said)]
        assert after.get("hmm_exporter_books_balanced") == 1
        assert sum(self.pages(name) for name in ("moved", "zero_filled", "unmoved")) == self.pages("requested")

    def driver(self, deed: str) -> int:
        """The sum of what the driver answered to all deeds of this name."""
        return sum(count for name, count in self.answers if name == deed)

    def pages(self, name: str, **labels: str) -> int:
        return int(self.since.sum(f"hmm_migration_{name}_bytes_total", **labels)) // PAGE

    def comms(self) -> set[str]:
        """Whoever any metric of the process tier speaks of, but for the removes: at exit, when the memory has no owner
        any more, the process's last thread makes them.
        """
        return {
            dict(labels)["comm"]
            for (name, labels), value in self.since.values.items()
            if name.startswith("hmm_process_") and not name.endswith("_notifier_removes_total") and value
        }


@pytest.fixture(params=["never", "always"])
def huge_pages(request: pytest.FixtureRequest) -> guest.HugePages:
    return cast(guest.HugePages, request.param)


def test_moved_bytes_are_the_drivers_own_count(
    exporter: GuestExporter, mirror: str, huge_pages: guest.HugePages
) -> None:
    done = Deeds(exporter, huge_pages, " ".join(f"warm={pages} migrate back resident" for pages in SIZES))
    assert [count for deed, count in done.answers if deed == "migrate"] == list(SIZES)
    assert done.driver("resident") == 0
    assert done.pages("moved", direction="host_to_device") == done.driver("migrate")
    assert done.pages("moved", direction="device_to_host") == done.driver("migrate")
    if huge_pages == "never":  # On its way back the driver counts a huge page as one.
        assert done.driver("back") == done.driver("migrate")
    # The whole ones among SIZES: 1 in 512, 1 in 1000, 3 in 1536.
    huge = 5 * 512 if huge_pages == "always" and prediction.MOVES_HUGE_PAGES else 0
    assert done.pages("moved_huge", direction="host_to_device") == huge
    assert done.pages("moved_huge", direction="device_to_host") == huge


def test_pages_never_touched_are_the_drivers_too_and_zero_filled(
    exporter: GuestExporter, mirror: str, huge_pages: guest.HugePages
) -> None:
    done = Deeds(exporter, huge_pages, "cold=1000 migrate resident cold=512 touch=3 migrate")
    assert done.answers == [("migrate", 1000), ("resident", 1000), ("migrate", 512)]
    assert done.pages("zero_filled") == 1512
    assert done.pages("moved") == 0


def test_a_page_the_driver_could_not_allocate_for_has_no_destination(exporter: GuestExporter, mirror: str) -> None:
    done = Deeds(exporter, "never", "warm=64 fail migrate resident")
    if not prediction.MOVES_HUGE_PAGES:
        assert done.answers == [("fail", EINVAL), ("migrate", 64), ("resident", 64)]  # 6.x cannot be told to
        return
    assert done.answers == [("fail", 0), ("migrate", ENOENT), ("resident", 63)]
    assert done.pages("moved") == 63
    assert done.pages("unmoved", reason="no_destination") == done.pages("unmoved") == 1
    assert done.since.sum("hmm_migrations_partial_total") == 1


def test_pinned_pages_are_busy(exporter: GuestExporter, mirror: str) -> None:
    done = Deeds(exporter, "never", "warm=64 pin=3 migrate resident")
    assert done.answers == [("migrate", ENOENT), ("resident", 61)]
    assert done.pages("moved") == 61
    assert done.pages("unmoved", reason="busy") == done.pages("unmoved") == 3
    assert done.since.sum("hmm_migrations_partial_total") == 1


def test_pages_of_another_device_are_not_selected(exporter: GuestExporter, mirror: str) -> None:
    done = Deeds(exporter, "never", "warm=64 migrate-1 migrate back resident")
    assert done.answers == [("migrate-1", 64), ("migrate", ENOENT), ("back", 0), ("resident", 0)]
    assert done.pages("unmoved", reason="not_selected") == done.pages("unmoved") == 128
    assert done.since.sum("hmm_migrations_empty_total") == 2


def test_migrations_are_booked_to_whose_memory_it_is_not_to_the_process_that_asks(
    exporter: GuestExporter, mirror: str
) -> None:
    done = Deeds(exporter, "never", "name=owner warm=64 process=worker migrate process=worker back")
    assert done.answers == [("migrate", 64), ("back", 64)]
    assert done.pages("moved", trigger="syscall") == done.pages("moved") == 128
    assert process_pages(done.since, "moved", comm="owner", direction="host_to_device") == 64
    assert process_pages(done.since, "moved", comm="owner", direction="device_to_host") == 64
    assert "worker" not in done.comms()


def test_a_device_that_another_process_lets_read_makes_nested_migrations_of_the_owners_memory(
    exporter: GuestExporter, mirror: str
) -> None:
    done = Deeds(exporter, "never", "name=owner warm=8 migrate-1 process=worker read")
    assert done.answers == [("migrate-1", 8), ("read", 8)]
    assert done.pages("moved", direction="device_to_host", trigger="nested") == 8
    assert process_pages(done.since, "moved", comm="owner", direction="device_to_host") == 8
    assert done.since.sum("hmm_process_range_faults_total", comm="owner") > 0
    assert done.since.sum("hmm_range_fault_ebusy_total", reason="own_fault") > 0
    assert done.since.sum("hmm_range_fault_ebusy_total", reason="raced") == 0
    assert "worker" not in done.comms()


def test_a_process_that_reads_another_ones_memory_does_not_wait_in_its_name(
    exporter: GuestExporter, mirror: str
) -> None:
    done = Deeds(exporter, "never", "name=owner warm=8 migrate process=worker peek=8")
    assert done.pages("moved", direction="device_to_host", trigger="syscall") == 8
    assert done.since.sum("hmm_migrations_started_total", **{"class": "fault_back", "trigger": "syscall"}) == 8
    assert process_pages(done.since, "moved", comm="owner", direction="device_to_host") == 8
    assert done.since.sum("hmm_process_fault_stall_seconds_total") == 0
    assert done.pages("returned") == 0
    assert "worker" not in done.comms()


def test_a_threads_faults_are_its_processs(exporter: GuestExporter, mirror: str) -> None:
    done = Deeds(exporter, "never", "name=owner warm=64 thread=worker migrate thread=worker touch=8")
    assert done.answers == [("migrate", 64)]
    assert done.pages("moved", direction="device_to_host", trigger="cpu_fault") == 8
    assert process_pages(done.since, "moved", comm="owner", direction="host_to_device") == 64
    assert process_pages(done.since, "returned", comm="owner") == done.pages("returned") == 8
    assert done.since.sum("hmm_process_fault_stall_seconds_total", comm="owner") > 0
    assert "worker" not in done.comms()


def process_pages(since: Samples, name: str, **labels: str) -> int:
    return int(since.sum(f"hmm_process_{name}_bytes_total", **labels)) // PAGE
