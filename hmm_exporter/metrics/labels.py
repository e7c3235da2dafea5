# SPDX-License-Identifier: Apache-2.0
"""Label values for what the kernel knows by address or number. No address ever leaves this module.

A name, once given, stays with its address until the row is removed, so that no event moves
between series. Which rows there are, and when they go, is decided elsewhere.
"""

from __future__ import annotations

import errno
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from hmm_exporter.catalog import values
from hmm_exporter.catalog.values import CONSTANTS
from hmm_exporter.kernel.symbols import Symbol, Symbols
from hmm_exporter.workload.workloads import UNKNOWN_WORKLOAD, Workload

OTHER = "other"
NONE = "none"
UNKNOWN = values.UNKNOWN

# Static owners with a name of their own; of an array the index is appended.
_STATIC_OWNERS = {
    ("nvidia_uvm", "g_uvm_global"): "nvidia_uvm",  # one for all GPUs (uvm_hmm.c:2765, 595.45.04)
    ("test_hmm", "dmirror_devices"): "test_hmm-",  # lib/test_hmm.c:127
}
# Modules that call migrate_vma_setup for others: the driver is one step further out.
_HELPER_MODULES = frozenset({"drm_gpusvm_helper", "drm_pagemap", "bpf"})
# Frames of the probe itself and of the function it is on.
_OWN_FRAMES = (
    "bpf_",
    "hmm_range_fault",
    "arch_rethook_",
    "kretprobe_",
    "__kretprobe_",
    "rethook_",
    "ftrace_",
    "stack_trace_",
)

# errno.errorcode knows one name a number, not always the one that the kernel's sources use; 524 is
# the kernel's own (include/linux/errno.h).
_ERRORS = dict(errno.errorcode) | {35: "EDEADLK", 95: "EOPNOTSUPP", 524: "ENOTSUPP"}
_COMM_BYTES = 16  # TASK_COMM_LEN, include/linux/sched.h
_FAULTS = {value: name for name, value in CONSTANTS.items() if name.startswith("VM_FAULT_")}


@dataclass(frozen=True)
class Owner:
    """A pgmap owner's name, and the module of its driver."""

    name: str
    driver: str


class Names:
    """Learns addresses as they appear and remembers their names."""

    def __init__(
        self,
        symbols: Symbols,
        stack: Callable[[int], tuple[int, ...]],
        module_users: Callable[[str], tuple[str, ...]],
        callers: int,
        device: Callable[[int], str] = lambda number: OTHER,
        workload: Callable[[int], Workload] = lambda number: UNKNOWN_WORKLOAD,
    ) -> None:
        """``stack`` gives the return addresses of a stack id, ``module_users`` the modules that use
        one; ``callers`` limits distinct callers; ``device`` names a device's number, empty if there is none;
        ``workload`` gives a cgroup's names."""
        self._symbols = symbols
        self._stack = stack
        self._module_users = module_users
        self._most_callers = callers
        self._device = device
        self._workload = workload
        self._owners = {0: Owner(NONE, NONE), values.OTHER_POINTER: Owner(OTHER, OTHER)}
        self._drivers = {0: UNKNOWN, values.OTHER_POINTER: OTHER}
        self._callers = {values.OTHER_STACK: OTHER}
        self._given: Counter[str] = Counter()

    def limit(self, callers: int) -> None:
        """So many distinct callers from now on. Stacks that have a name, or are `other`, stay what they are."""
        self._most_callers = callers

    def learn(self, owners: Mapping[int, int], drivers: Iterable[int], stacks: Iterable[int]) -> None:
        """Name what is new: owners with the stack of their first migration, notifier ops, stacks.

        All new addresses are looked up together, because each look-up reads the whole of kallsyms.
        """
        new_owners = {owner: self._stack(stack) for owner, stack in owners.items() if owner not in self._owners}
        new_drivers = [ops for ops in drivers if ops not in self._drivers]
        new_stacks = {stack: self._stack(stack) for stack in stacks if stack not in self._callers}
        if not (new_owners or new_drivers or new_stacks):
            return
        addresses = [*new_owners, *new_drivers]
        for frames in (*new_owners.values(), *new_stacks.values()):
            addresses += frames
        found = self._symbols.resolve(addresses)
        for ops in new_drivers:
            self._drivers[ops] = found[ops].module or "vmlinux" if ops in found else UNKNOWN
        for owner, frames in new_owners.items():
            self._owners[owner] = self._owner(found.get(owner), [found[at] for at in frames if at in found])
        for stack, frames in new_stacks.items():
            self._callers[stack] = self._caller([found[at] for at in frames if at in found])

    def forget(self, owners: Iterable[int], drivers: Iterable[int]) -> None:
        """Their rows are gone; should an address come back, it is somebody new."""
        for owner in owners:
            self._owners.pop(owner, None)
        for ops in drivers:
            self._drivers.pop(ops, None)

    def owner(self, address: int) -> Owner:
        return self._owners.get(address, Owner(UNKNOWN, UNKNOWN))

    def driver(self, ops: int) -> str:
        return self._drivers.get(ops, UNKNOWN)

    def device(self, number: int) -> str:
        """Empty for a number that no device has."""
        if number == values.DEVICE_NONE:
            return NONE
        return self._device(number) if number < values.DEVICE_REGIONS else OTHER

    def workload(self, label: str, raw: bytes) -> str:
        """What that label says of the cgroup behind a command name."""
        if raw == values.OTHER_COMM:
            return OTHER
        name: str = getattr(self._workload(cgroup(raw)), label)
        return name

    def caller(self, stack: int) -> str:
        return self._callers.get(stack, UNKNOWN)

    def owners(self) -> Iterable[Owner]:
        """Every owner that has been named, without `none` and `other`."""
        return [owner for owner in self._owners.values() if owner.name not in (NONE, OTHER)]

    def _owner(self, symbol: Symbol | None, frames: list[Symbol]) -> Owner:
        driver = self._driver_of(frames)
        if symbol is None:
            return Owner(self._numbered(f"{driver}-"), driver)
        module = symbol.module or "vmlinux"
        name = _STATIC_OWNERS.get((module, symbol.name))
        if name is None:
            return Owner(f"{module}-{symbol.name}", module)
        if not name.endswith("-"):
            return Owner(name, module)
        # The size of an element is not known here: the first one is 0, the others count as they come.
        return Owner(f"{name}0" if symbol.offset == 0 else self._numbered(name), module)

    def _numbered(self, stem: str) -> str:
        """The next number from 1 in order of appearance; a number is never given again."""
        self._given[stem] += 1
        return f"{stem}{self._given[stem]}"

    def _driver_of(self, frames: list[Symbol]) -> str:
        """The innermost module that is no helper, as far as modules call each other: beyond the kernel's
        own frames is whoever took the fault, perhaps another driver. Where only a helper is on the
        stack (drm_pagemap_migrate_to_ram), whoever uses it, if that is one module."""
        from_driver = itertools.dropwhile(lambda frame: frame.module in ("", "bpf"), frames)
        modules = [frame.module for frame in itertools.takewhile(lambda frame: frame.module, from_driver)]
        for module in modules:
            if module not in _HELPER_MODULES:
                return module
        helper = modules[0] if modules else UNKNOWN
        users = self._module_users(helper)
        return users[0] if len(users) == 1 else helper

    def _caller(self, frames: list[Symbol]) -> str:
        name = next((frame.name for frame in without_own(frames)), UNKNOWN)
        if name in self._callers.values() or len(set(self._callers.values()) - {OTHER}) < self._most_callers:
            return name
        return OTHER


def without_own(frames: Iterable[Symbol]) -> Iterable[Symbol]:
    """A stack from its first frame on that is neither the probe nor the function it is on."""
    return itertools.dropwhile(lambda frame: frame.name.startswith(_OWN_FRAMES), frames)


def comm(raw: bytes) -> str:
    """A command name. Bytes that are not UTF-8 are written as ``\\xff``."""
    if raw == values.OTHER_COMM:
        return OTHER
    return raw[:_COMM_BYTES].partition(b"\0")[0].decode(errors="backslashreplace") or UNKNOWN


def pid(raw: bytes) -> str:
    """The process id behind a command name; 0 where processes are not told apart by it."""
    return OTHER if raw == values.OTHER_COMM else str(int.from_bytes(raw[_COMM_BYTES:], "little"))


def cgroup(raw: bytes) -> int:
    """The number of the cgroup behind a command name; 0 where processes are not told apart by it."""
    return 0 if raw == values.OTHER_COMM else int.from_bytes(raw[_COMM_BYTES:], "little")


def error(number: int) -> str:
    """``EBUSY``, or the number where it has no symbol."""
    return OTHER if number == values.OTHER_ERRNO else _ERRORS.get(number, str(number))


def fault(bits: int) -> str:
    """``VM_FAULT_SIGBUS``, or several of them joined by ``|``."""
    if bits == values.OTHER_ERRNO:
        return OTHER
    return "|".join(name for value, name in _FAULTS.items() if bits & value) or str(bits)


def order(digit: int) -> str:
    return OTHER if digit == values.PTE_ORDERS - 1 else str(digit)
