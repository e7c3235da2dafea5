# SPDX-License-Identifier: Apache-2.0
"""The values that fields of tables can have, and the constants that BTF does not have.

Names of enumeration members are label values, and numbers are what the programs write: both are
part of an interface. How fields make up tables is in ``catalog.tables``.
"""

from __future__ import annotations

from enum import Enum, IntEnum

# Macros are not in BTF, so their values stand here, with their source.
CONSTANTS = {
    "PF_KTHREAD": 0x00200000,  # include/linux/sched.h, unchanged since 2.6.31
    "VM_FAULT_OOM": 0x000001,  # enum vm_fault_reason, include/linux/mm_types.h
    "VM_FAULT_SIGBUS": 0x000002,
    "VM_FAULT_HWPOISON": 0x000010,
    "VM_FAULT_HWPOISON_LARGE": 0x000020,
    "VM_FAULT_SIGSEGV": 0x000040,
    "VM_FAULT_RETRY": 0x000400,
    "VM_FAULT_FALLBACK": 0x000800,
    "EBUSY": 16,  # include/uapi/asm-generic/errno-base.h
}

PHASES = ("setup", "driver_prepare", "commit", "driver_complete", "finalize")
PTE_ORDERS = 12
"""0 to 10, and one for all above (order 10 is the largest buddy block, MAX_PAGE_ORDER)."""

UNKNOWN = "unknown"
"""A label's value where a name cannot be found."""
POD_LABELS = ("namespace", "pod", "container")
"""What Kubernetes' own metrics call them (metrics/cadvisor)."""
JOB_LABELS = ("slurm_job",)
WORKLOAD_LABELS = POD_LABELS + JOB_LABELS
"""Labels that a process has from its cgroup."""

OTHER_POINTER = 0xFFFF_FFFF_FFFF_FFFF
"""Stands for every owner, or driver, that arrived while no row was free. Not a kernel address."""
OTHER_COMM = b"\xff" * 24
OTHER_ERRNO = 0xFFFF
OTHER_STACK = 0xFFFF_FFFF
OTHER_DEVICE = 0xFF

DEVICE_REGIONS = 64
"""Physical ranges of devices that are told apart: some GPUs have one each, some drivers one a GPU and partition."""
DEVICE_NONE, DEVICE_UNKNOWN = DEVICE_REGIONS, DEVICE_REGIONS + 1
"""No page on a device; a page on one whose range is not known, or found no room."""


class Class(IntEnum):
    """What was asked for at migrate_vma_setup."""

    prefetch = 0
    fault_back = 1
    evict = 2
    unclassified = 3


class Trigger(IntEnum):
    """What the thread was doing that called migrate_vma_setup."""

    cpu_fault = 0
    nested = 1
    kthread = 2
    syscall = 3


class Intent(IntEnum):
    """What hmm_range_fault was asked for."""

    snapshot = 0
    read = 1
    write = 2
    per_page = 3


class DeviceFunction(IntEnum):
    migrate_device_range = 0
    migrate_device_pfns = 1


class RangeFunction(IntEnum):
    hmm_range_fault = 0
    hmm_range_fault_unlocked_timeout = 1


class Invalidation(IntEnum):
    migrate = 0
    exclusive = 1


class Direction(IntEnum):
    """From where to where pages moved: source on a device, times two, plus destination on a device."""

    host_to_host = 0
    host_to_device = 1
    device_to_host = 2
    device_to_device = 3


USUAL_TRIGGER = {
    Class.prefetch.name: Trigger.kthread,
    Class.fault_back.name: Trigger.cpu_fault,
    Class.evict.name: Trigger.kthread,
    Class.unclassified.name: Trigger.syscall,
    Direction.host_to_device.name: Trigger.kthread,
    Direction.device_to_host.name: Trigger.cpu_fault,
    Direction.device_to_device.name: Trigger.kthread,
    Direction.host_to_host.name: Trigger.syscall,
}
"""The overflow rows that are shown before they count: of each class and direction one, for most pairs never occur."""


class Unmoved(IntEnum):
    """Why pages that were asked for did not move."""

    not_selected = 0
    busy = 1
    no_destination = 2
    commit_failed = 3
    not_read = 4


class Entry(IntEnum):
    """A migration entry was set, or removed."""

    set = 0
    removed = 1


class Context(IntEnum):
    other = 0
    hmm = 1


class Event(IntEnum):
    """Events that have no label of their own."""

    device_exclusive = 0
    device_exclusive_restore = 1
    huge_fault = 2
    huge_fault_retry = 3
    dma_map = 4
    dma_map_failure = 5
    dma_unmap = 6
    dma_unmap_miss = 7


class Failure(IntEnum):
    """Functions whose failures are told apart by error."""

    migration = 0
    range_fault = 1
    range_fault_unlocked = 2
    device_exclusive = 3
    interval_notifier_insert = 4
    huge_fault = 5


class Loss(IntEnum):
    """What the programs could not do. None of it is silent: each is part of a metric."""

    migration_abandoned = 0  # not tracked, or never finalized before the thread's next setup
    stack = 1  # no stack could be taken
    arrival_full = 2  # no room for a region that arrived on a device
    arrival_unknown = 3  # a region came back, and nobody knows since when it was there


class Size(Enum):
    """What a histogram counts: the exponents of its first and last finite bound, both inclusive.

    Seconds are kept in units of 2^-30 s, so that every bound is a power of two of a second.
    """

    bytes = (12, 36, 0)
    seconds = (-20, 4, 30)

    @property
    def shift(self) -> int:
        """log2 of the first bound, in the unit that the programs count."""
        return self.value[0] + self.value[2]

    @property
    def bounds(self) -> tuple[float, ...]:
        """Finite upper bounds, in bytes or seconds."""
        return tuple(2.0**exponent for exponent in range(self.value[0], self.value[1] + 1))


HISTOGRAM_SLOTS = 26
"""25 finite buckets and the one that catches what is larger, for bytes and seconds alike."""
