# SPDX-License-Identifier: Apache-2.0
"""The programs for arm64: where they look for arguments and results, and what they count, also with pages of 64 KiB.

bcc 0.26 is told to compile for arm64; newer ones that were built for x86-64 give clang an option that arm64 has not.
"""

from __future__ import annotations

import ctypes
import dataclasses
import itertools
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from hmm_exporter.bpf import load, syscall
from hmm_exporter.bpf.code import link
from hmm_exporter.bpf.compiler import Compiled, compile_source
from hmm_exporter.bpf.maps import MapSet
from hmm_exporter.bpf.plan import choose
from hmm_exporter.bpf.source import Plan, text
from hmm_exporter.catalog import tables
from hmm_exporter.catalog.probes import PROBES
from hmm_exporter.catalog.tables import Table
from hmm_exporter.catalog.values import Direction, Size
from hmm_exporter.kernel.simulated import simulated_kernel
from tests.bcc.instructions import context_loads
from tests.bcc.roots import RELEASES, ensure_root
from tests.bpf.test_verifier import EVERYTHING
from tests.process import SIMULATOR

# Offsets in struct pt_regs of the registers that the calling convention gives to a function's first six parameters, and
# of the one for its result: arch/x86/include/asm/ptrace.h, arch/arm64/include/uapi/asm/ptrace.h (struct user_pt_regs).
PARAMETERS = {"x86": (112, 104, 96, 88, 72, 64), "arm64": (0, 8, 16, 24, 32, 40)}
RESULT = {"x86": 80, "arm64": 0}

# From the functions' declarations: which parameters the programs need.
NEEDED = {
    "enter_migrate_vma_setup": {1},
    "enter_migrate_vma_pages": {1},
    "enter_migrate_device_pfns": {1, 2},
    "enter_migrate_device_range": {2, 3},
    "enter_hmm_range_fault": {1},
    "enter_mmu_interval_notifier_insert": {2, 5},
    "enter_do_huge_pmd_device_private": {1},
}
PROGRAMS = {name for probe in PROBES for name in probe.programs}
TRACEPOINTS = {name for probe in PROBES if probe.tracepoint for name in probe.programs}


# include/linux/migrate.h:135, 7.3
VALID, MIGRATE, COMPOUND = 1 << 0, 1 << 1, 1 << 4
HOST_FRAME, DEVICE_FRAME = 0x8_0000, 0xF00_0000


@pytest.fixture(scope="module")
def plan() -> Plan:
    chosen, left_out = choose(simulated_kernel(Path(SIMULATOR)), EVERYTHING)
    assert left_out == []
    return chosen


@pytest.fixture(scope="module")
def pythons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = ensure_root(RELEASES[0])
    return {arch: root.python(tmp_path_factory.mktemp(arch), arch) for arch in PARAMETERS}


def loads(plan: Plan, build: str, python: str) -> dict[str, set[int]]:
    """What each program loads from its context."""
    programs = compile_source(text(plan, build), python, 60).programs
    return {name: context_loads(programs[name]) for name in PROGRAMS}


def meaning(program: str, offsets: set[int], arch: str) -> set[int | str]:
    """What a program reads of its function: the numbers of parameters, or the result."""
    known: dict[int, int | str] = {offset: number for number, offset in enumerate(PARAMETERS[arch], start=1)}
    if program.startswith("leave_"):
        known = {RESULT[arch]: "result"}
    return {known[offset] for offset in offsets}


@pytest.mark.parametrize("build", ["kprobe", "uprobe"])
def test_programs_read_the_same_parameters_and_results_at_each_architectures_offsets(
    plan: Plan, pythons: dict[str, str], build: str
) -> None:
    # A raw tracepoint's context has its arguments one after the other, whatever the architecture.
    raw = TRACEPOINTS if build == "kprobe" else set()
    read = {}
    for arch, python in pythons.items():
        loaded = loads(plan, build, python)
        assert all(loaded[name] <= {16} for name in raw)
        read[arch] = {name: meaning(name, loaded[name], arch) for name in PROGRAMS - raw}
    assert read["arm64"] == read["x86"]
    acting = {6} if build == "uprobe" else set()  # the simulator's functions are told the acting task
    found = {name: read["arm64"][name] - acting for name in NEEDED}
    assert found == NEEDED
    assert {"result"} in read["arm64"].values()


def test_fentry_programs_read_the_same_words_on_both_architectures(plan: Plan, pythons: dict[str, str]) -> None:
    parameters = {target.probe: target.parameters for target in plan.targets}
    read = {arch: loads(plan, "fentry", python) for arch, python in pythons.items()}
    assert read["arm64"] == read["x86"]
    for name, needed in NEEDED.items():
        assert read["arm64"][name] == {8 * (number - 1) for number in needed}, name
    assert read["arm64"]["leave_hmm_range_fault"] == {8 * parameters["hmm_range_fault"]}


class Machine:
    """An arm64 as far as the programs see it: registers, a process's memory and pages of some size.

    The programs of the simulator's build read user memory, and arm64's first registers are at the start of pt_regs: so
    this machine's kernel can run them as raw tracepoint programs (BPF_PROG_TEST_RUN) with a context of our own.
    """

    def __init__(self, plan: Plan, compiled: Compiled) -> None:
        self.plan = plan
        self.maps = MapSet(EVERYTHING.limits, EVERYTHING.maps, plan.shards, compiled.maps)
        self._code = link(compiled, self.maps.fds)
        self._kept: list[ctypes.Array[ctypes.c_char]] = []

    def call(self, program: str, *registers: int) -> None:
        fd = load.load(syscall.PROG_RAW_TRACEPOINT, self._code[program], program)
        try:
            # 12 words: MAX_BPF_FUNC_ARGS, the most that a raw tracepoint has.
            syscall.prog_test_run(fd, struct.pack("<12Q", *registers, *[0] * (12 - len(registers))))
        finally:
            os.close(fd)

    def record(self, name: str, **fields: int) -> int:
        """The address of a kernel's struct in which these fields are set."""
        memory = bytearray(self.plan.sizes[name])
        for field, value in fields.items():
            struct.pack_into("<Q", memory, self.plan.offsets[f"{name}.{field}"], value)
        return self.memory(bytes(memory))

    def memory(self, content: bytes) -> int:
        """The address of memory that has this content and is there: programs take no page faults."""
        self._kept.append(ctypes.create_string_buffer(content, len(content)))
        return ctypes.addressof(self._kept[-1])

    def values(self, table: Table) -> dict[str, tuple[int, ...]]:
        """The sum of all rows, by the names of their values."""
        words = map(sum, zip(*(row.words for row in self.maps.read(table))))
        return {value.name: tuple(itertools.islice(words, value.words)) for value in table.values}


@pytest.fixture(scope="module", params=[4096, 65536], ids=["4 KiB", "64 KiB"])
def page_size(request: pytest.FixtureRequest) -> int:
    size: int = request.param
    return size


@pytest.fixture(scope="module")
def compiled(plan: Plan, pythons: dict[str, str], page_size: int) -> Compiled:
    return compile_source(text(dataclasses.replace(plan, page_size=page_size), "uprobe"), pythons["arm64"], 60)


@pytest.fixture
def arm64(plan: Plan, compiled: Compiled, page_size: int) -> Iterator[Machine]:
    made = Machine(dataclasses.replace(plan, page_size=page_size), compiled)
    yield made
    made.maps.close()


def bucket(size: int) -> tuple[int, ...]:
    """One observation in a histogram of sizes."""
    slot = sum(size > bound for bound in Size.bytes.bounds)
    return tuple(int(number == slot) for number in range(len(Size.bytes.bounds) + 1))


def migrate(
    arm64: Machine, start: int, end: int, result: int = 0, entries: tuple[int, int] = (0, 0)
) -> dict[str, tuple[int, ...]]:
    """What is booked of a prefetch that runs to its end, in all rows.

    ``result`` is migrate_vma_setup's; ``entries`` are the first of src and dst, in which all others are 0.
    """
    task = arm64.record("task_struct", comm=int.from_bytes(b"python3", "little"))
    vma = arm64.record("vm_area_struct", vm_mm=arm64.record("mm_struct", owner=task))
    system = arm64.plan.enumerators["MIGRATE_VMA_SELECT_SYSTEM"]
    pages = end // arm64.plan.page_size - start // arm64.plan.page_size
    src, dst = (arm64.memory(struct.pack("<Q", entry) + bytes(8 * pages)) for entry in entries)
    request = {"vma": vma, "start": start, "end": end, "flags": system, "cpages": 1, "npages": pages}
    args = arm64.record("migrate_vma", src=src, dst=dst, **request)
    arm64.call("enter_migrate_vma_setup", args, 0, 0, 0, 0, task)
    arm64.call("leave_migrate_vma_setup", result)
    for function in ("migrate_vma_pages", "migrate_vma_finalize"):
        arm64.call(f"enter_{function}", args)
        arm64.call(f"leave_{function}")
    return arm64.values(tables.MIGRATION)


def test_a_range_is_as_large_as_its_whole_pages(arm64: Machine, page_size: int) -> None:
    start, end = 0xFFFF_8000_3000, 0xFFFF_8012_5FFF
    expected = end // page_size * page_size - start // page_size * page_size
    assert expected == {4096: 0x12_2000, 65536: 0x12_0000}[page_size]
    row = migrate(arm64, start, end)
    assert (row["started"], row["completed"], row["requested_bytes"]) == ((1,), (1,), (expected,))


def test_a_huge_page_is_as_large_as_a_page_of_the_tables_above(arm64: Machine, page_size: int) -> None:
    # PMD_SIZE, arch/arm64/include/asm/pgtable-hwdef.h: a table is a page of 8-byte entries.
    huge = {4096: 2 << 20, 65536: 512 << 20}[page_size]
    arm64.maps.write_devices(DEVICE_FRAME, [])
    entries = (HOST_FRAME << 6 | COMPOUND | MIGRATE | VALID, DEVICE_FRAME << 6 | COMPOUND | VALID)
    row = migrate(arm64, huge, 2 * huge, entries=entries)
    moved = tuple(huge * (direction == Direction.host_to_device) for direction in Direction)
    assert (row["requested_bytes"], row["collected_bytes"]) == ((huge,), (huge,))
    assert (row["moved_bytes"], row["moved_huge_bytes"], row["huge"]) == (moved, moved, (1,))


def test_a_range_within_one_page_is_empty(arm64: Machine) -> None:
    assert migrate(arm64, 0x1_0000, 0x1_0FFF)["requested_bytes"] == (0,)


def test_the_upper_half_of_an_ints_register_is_nobodys(arm64: Machine) -> None:
    # The procedure call standard leaves bits 32 to 63 of x0 open where a function returns an int.
    assert migrate(arm64, 0x1_0000, 0x2_0000, 0xDEAD_BEEF_0000_0000)["requested_bytes"] == (0x1_0000,)


@pytest.mark.parametrize("pages", [1, 3, 512, 8192])
def test_pages_of_an_eviction_are_counted_in_their_size(arm64: Machine, page_size: int, pages: int) -> None:
    arm64.call("enter_migrate_device_range", 0, 0, pages)
    row = arm64.values(tables.DEVICE_RANGE)
    assert row == {"calls": (1,), "bytes": (pages * page_size,), "size": bucket(pages * page_size)}
