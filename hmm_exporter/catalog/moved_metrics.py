# SPDX-License-Identifier: Apache-2.0
"""The metrics of what migrations and device ranges moved, what not and why, and of thrash: node tier."""

from __future__ import annotations

from hmm_exporter.catalog import tables
from hmm_exporter.catalog.metric import Scale, Source, Zeros, counter, histogram
from hmm_exporter.catalog.migration_metrics import CLASS_OWNER, COMPLETED, PHASES, SETUP, N
from hmm_exporter.catalog.values import DeviceFunction, Direction, Unmoved

_PAGES = ("pages",)
_DIRECTION = ("pages", "devices")
_WITH_DIRECTION = {"direction": "", "trigger": "trigger", "pgmap_owner": "owner", "device": "device"}
# Without probing migrate_device_unmap nobody can tell busy from not_selected.
_UNMOVED_PROBES = {Unmoved.busy: ("migrate_vma_setup", "migrate_device_unmap")}


def _by_direction(column: str) -> tuple[Source, ...]:
    return tuple(
        Source(tables.MIGRATION, column, PHASES, labels={"direction": way.name}, element=way, options=_DIRECTION)
        for way in Direction
    )


MOVED = (
    counter(
        "hmm_migration_collected_bytes_total",
        "Pages that migrate_vma_setup isolated and unmapped, huge folios by their size, holes apart.",
        N,
        Source(tables.MIGRATION, "collected_bytes", SETUP, options=_PAGES),
        zeros=Zeros.with_device,
    ),
    counter(
        "hmm_migration_moved_bytes_total",
        "Copied pages, after migrate_vma_pages: source and destination valid and still marked to migrate."
        " direction is by the pages themselves.",
        _WITH_DIRECTION,
        *_by_direction("moved_bytes"),
        zeros=Zeros.other,
    ),
    counter(
        "hmm_migration_moved_huge_bytes_total",
        "The part of hmm_migration_moved_bytes_total in huge folios (6.19 and newer).",
        {"direction": "", "pgmap_owner": "owner", "device": "device"},
        *_by_direction("moved_huge_bytes"),
        zeros=Zeros.never,
    ),
    counter(
        "hmm_migration_zero_filled_bytes_total",
        "Pages that had no source (never touched, or the zero page) and were made at the destination.",
        N,
        Source(tables.MIGRATION, "zero_filled_bytes", PHASES, options=_PAGES),
        zeros=Zeros.never,
    ),
    counter(
        "hmm_migration_unmoved_bytes_total",
        "Pages asked for that did not move: not_selected (a hole in a file, already there, another owner's, locked),"
        " busy (refused by migrate_device_unmap: pinned, or locked; where that is not watched, not_selected),"
        " no_destination (the device is full, the driver declined, or never called migrate_vma_pages), commit_failed"
        " (migrate_vma_pages refused), not_read (behind the first 262,144 pages of one migration).",
        N | {"reason": ""},
        *(
            Source(
                tables.MIGRATION,
                f"{reason.name}_bytes",
                _UNMOVED_PROBES.get(reason, SETUP if reason is Unmoved.not_selected else PHASES),
                labels={"reason": reason.name},
                options=_PAGES,
            )
            for reason in Unmoved
        ),
        zeros=Zeros.never,
    ),
    counter(
        "hmm_migrations_aborted_total",
        "Migrations whose migrate_vma_pages moved and filled nothing.",
        N,
        Source(tables.MIGRATION, "aborted", PHASES, options=_PAGES),
        zeros=Zeros.other,
    ),
    counter(
        "hmm_migrations_partial_total",
        "Migrations of which something did not move for busy (where migrate_device_unmap is watched), no_destination or"
        " commit_failed.",
        N,
        Source(tables.MIGRATION, "partial", PHASES, options=_PAGES),
        zeros=Zeros.other,
    ),
    counter(
        "hmm_migrations_huge_total",
        "Migrations that moved a huge folio at least (6.19 and newer).",
        N,
        Source(tables.MIGRATION, "huge", PHASES, options=_PAGES),
        zeros=Zeros.never,
    ),
    histogram(
        "hmm_migration_moved_size_bytes",
        "Bytes copied by one migration, of those that copied any.",
        CLASS_OWNER,
        Source(tables.MIGRATION_HISTOGRAM, "moved_size", PHASES, sum="moved_bytes", options=_PAGES),
    ),
    histogram(
        "hmm_device_residency_seconds",
        "From the arrival of a process's 2 MiB region (512 MiB where pages have 64 KiB) on a device to the first CPU"
        " fault that brings it back, if the arrival is still remembered: for an hour, less while very many arrive.",
        {"device": "device"},
        Source(tables.DEVICE, "residency", COMPLETED, sum="residency_ns", options=_DIRECTION),
        scale=Scale.nanoseconds,
    ),
    counter(
        "hmm_migration_returned_bytes_total",
        "Bytes that a CPU fault brought back from a device within thrash_window (10 s) of their region's arrival.",
        {"pgmap_owner": "owner", "device": "device"},
        Source(tables.MIGRATION, "returned_bytes", PHASES, options=_DIRECTION),
        zeros=Zeros.other,
    ),
)

DEVICE_RANGES = (
    counter(
        "hmm_device_range_migrations_total",
        "Calls of migrate_device_range and migrate_device_pfns: eviction in xe and nvidia-uvm (which calls it once"
        " a page), teardown elsewhere. xe tries up to three times for one eviction.",
        {"function": "function", "device": "device"},
        *(
            Source(tables.DEVICE_RANGE, "calls", (member.name,), where={"function": member})
            for member in DeviceFunction
        ),
        zeros=Zeros.other,
    ),
    histogram(
        "hmm_device_range_size_bytes",
        "Size of the array given to migrate_device_range or migrate_device_pfns, resident or not, in pages' bytes.",
        {"function": "function"},
        *(
            Source(tables.DEVICE_RANGE, "size", (member.name,), where={"function": member}, sum="bytes")
            for member in DeviceFunction
        ),
    ),
    counter(
        "hmm_device_range_moved_bytes_total",
        "Pages that migrate_device_pages moved away from the device: evicted, or saved when it was shut down. Calls of"
        " which not all could be read (262,144 entries are) are in hmm_exporter_probe_missed_total.",
        {"device": "device"},
        Source(tables.DEVICE, "range_moved_bytes", ("migrate_device_pages",), options=_DIRECTION),
    ),
)
