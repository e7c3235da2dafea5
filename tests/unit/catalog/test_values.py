# SPDX-License-Identifier: Apache-2.0
"""Numbers that the programs and the daemon share, and constants of the kernel's."""

from __future__ import annotations

from enum import IntEnum

import pytest

from hmm_exporter.catalog import values
from hmm_exporter.catalog.values import CONSTANTS, HISTOGRAM_SLOTS, Size

# The programs hold these numbers in their keys and branches.
NUMBERS: dict[type[IntEnum], dict[str, int]] = {
    values.Class: {"prefetch": 0, "fault_back": 1, "evict": 2, "unclassified": 3},
    values.Trigger: {"cpu_fault": 0, "nested": 1, "kthread": 2, "syscall": 3},
    values.Intent: {"snapshot": 0, "read": 1, "write": 2, "per_page": 3},
    values.DeviceFunction: {"migrate_device_range": 0, "migrate_device_pfns": 1},
    values.RangeFunction: {"hmm_range_fault": 0, "hmm_range_fault_unlocked_timeout": 1},
    values.Invalidation: {"migrate": 0, "exclusive": 1},
    values.Entry: {"set": 0, "removed": 1},
    values.Context: {"other": 0, "hmm": 1},
    values.Event: {
        "device_exclusive": 0,
        "device_exclusive_restore": 1,
        "huge_fault": 2,
        "huge_fault_retry": 3,
        "dma_map": 4,
        "dma_map_failure": 5,
        "dma_unmap": 6,
        "dma_unmap_miss": 7,
    },
    values.Failure: {
        "migration": 0,
        "range_fault": 1,
        "range_fault_unlocked": 2,
        "device_exclusive": 3,
        "interval_notifier_insert": 4,
        "huge_fault": 5,
    },
    values.Loss: {"migration_abandoned": 0, "stack": 1, "arrival_full": 2, "arrival_unknown": 3},
    # Source on a device, times two, plus destination on one.
    values.Direction: {"host_to_host": 0, "host_to_device": 1, "device_to_host": 2, "device_to_device": 3},
    values.Unmoved: {"not_selected": 0, "busy": 1, "no_destination": 2, "commit_failed": 3, "not_read": 4},
}


@pytest.mark.parametrize("enumeration", NUMBERS, ids=lambda enumeration: enumeration.__name__)
def test_a_name_keeps_its_number(enumeration: type[IntEnum]) -> None:
    assert {member.name: member.value for member in enumeration} == NUMBERS[enumeration]


def test_what_stands_for_others_can_be_no_kernel_address_errno_stack_or_comm() -> None:
    assert values.OTHER_POINTER == (1 << 64) - 1  # not aligned, and above every mapping
    assert values.OTHER_ERRNO == 0xFFFF  # MAX_ERRNO is 4095
    assert values.OTHER_STACK == 0xFFFF_FFFF  # maps.stacks allows 4096 of them, in 16 slots each
    assert len(values.OTHER_COMM) == 24  # 16 of a name, 8 of a process id
    assert b"\0" not in values.OTHER_COMM  # every comm ends in one
    assert values.OTHER_DEVICE > values.DEVICE_UNKNOWN > values.DEVICE_NONE >= values.DEVICE_REGIONS


def test_sizes_have_bounds_from_4_kib_to_64_gib_and_times_from_a_microsecond_to_16_s() -> None:
    assert Size.bytes.bounds == tuple(float(2**exponent) for exponent in range(12, 37))
    assert Size.seconds.bounds == tuple(2.0**exponent for exponent in range(-20, 5))
    assert len(Size.bytes.bounds) == len(Size.seconds.bounds) == HISTOGRAM_SLOTS - 1


def test_the_first_slot_ends_at_the_first_bound_in_the_unit_that_the_programs_count() -> None:
    assert 2**Size.bytes.shift == Size.bytes.bounds[0]
    assert 2**Size.seconds.shift == Size.seconds.bounds[0] * 2**30


def test_migration_entries_have_an_order_for_every_folio_and_one_for_all_above() -> None:
    # MAX_PAGE_ORDER is 10: 0 to 10, and `other`.
    assert values.PTE_ORDERS == 12


def test_macros_that_btf_does_not_know_have_the_kernels_values() -> None:
    assert CONSTANTS == {
        "PF_KTHREAD": 0x00200000,
        "VM_FAULT_OOM": 0x1,
        "VM_FAULT_SIGBUS": 0x2,
        "VM_FAULT_HWPOISON": 0x10,
        "VM_FAULT_HWPOISON_LARGE": 0x20,
        "VM_FAULT_SIGSEGV": 0x40,
        "VM_FAULT_RETRY": 0x400,
        "VM_FAULT_FALLBACK": 0x800,
        "EBUSY": 16,
    }
