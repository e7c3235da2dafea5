# SPDX-License-Identifier: Apache-2.0
"""What the kernel knows by address or number, by name: owners, drivers, callers, comms, errors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmm_exporter.catalog.values import OTHER_COMM, OTHER_ERRNO, OTHER_POINTER, OTHER_STACK
from hmm_exporter.kernel.symbols import Symbol, Symbols
from hmm_exporter.metrics.labels import Names, Owner, comm, error, fault, order, pid
from tests.unit.metrics.exposed import names_with

# Addresses of exposed.KALLSYMS, and some on the heap.
HEAP = [0xFFFF888104A30000 + 0x1000 * number for number in range(40)]
AMDGPU, AMDGPU_RESTORE = 0xFFFFFFFFC0100040, 0xFFFFFFFFC0101040
XE, TO_DEVMEM, TO_RAM = 0xFFFFFFFFC0200010, 0xFFFFFFFFC0300010, 0xFFFFFFFFC0300910
NOBODY = 0xFFFF888000000000
SETUP, FAULT, SWAP, RANGE_FAULT = 0xFFFFFFFF81220123, 0xFFFFFFFF81230123, 0xFFFFFFFF81240123, 0xFFFFFFFF81210123
BPF, TRAMPOLINE = 0xFFFFFFFFC0700010, 0xFFFFFFFFC0701010
G_UVM_GLOBAL, DMIRROR_DEVICES = 0xFFFFFFFFC0480000, 0xFFFFFFFFC0510000


def owner_of(names: Names, address: int, stack: int = 1) -> Owner:
    names.learn({address: stack}, [], [])
    return names.owner(address)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"python3\0\0\0\0\0\0\0\0\0", "python3"),
        (b"abcdefghijklmno\0", "abcdefghijklmno"),
        (b"a\0b\0\0\0\0\0\0\0\0\0\0\0\0\0", "a"),
        ("café".encode().ljust(16, b"\0"), "café"),
        (b"caf\xe9".ljust(16, b"\0"), "caf\\xe9"),
        (b"\xff\xfe".ljust(16, b"\0"), "\\xff\\xfe"),
        # A UTF-8 character that TASK_COMM_LEN cut in two.
        (b"abcdefghijklm\xe2\x82\0", "abcdefghijklm\\xe2\\x82"),
        (b'a"b\nc\\d'.ljust(16, b"\0"), 'a"b\nc\\d'),
        (b"kworker\0\0\0\0\0\0\0\0\0", "kworker"),
        (bytes(16), "unknown"),
        (OTHER_COMM, "other"),
    ],
)
def test_a_comm_is_text_to_its_first_zero_and_bytes_that_are_no_text_are_written_out(raw: bytes, text: str) -> None:
    assert comm(raw) == text


@given(st.binary(min_size=16, max_size=16))
def test_every_comm_is_a_text_that_can_be_exposed(raw: bytes) -> None:
    text = comm(raw)
    assert text
    assert text.encode()
    assert "\0" not in text


def test_a_process_id_stands_behind_the_name_and_is_no_part_of_it() -> None:
    raw = b"train.py".ljust(16, b"\0") + (4417).to_bytes(8, "little")
    assert (comm(raw), pid(raw)) == ("train.py", "4417")
    unterminated = b"x" * 16 + (120).to_bytes(8, "little")
    assert (comm(unterminated), pid(unterminated)) == ("x" * 16, "120")
    assert pid(b"train.py".ljust(24, b"\0")) == "0"
    assert pid(OTHER_COMM) == "other"


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (1, "EPERM"),
        (4, "EINTR"),
        (11, "EAGAIN"),
        (12, "ENOMEM"),
        (14, "EFAULT"),
        (16, "EBUSY"),
        (22, "EINVAL"),
        (35, "EDEADLK"),
        (75, "EOVERFLOW"),
        (95, "EOPNOTSUPP"),
        (512, "512"),
        (524, "ENOTSUPP"),
        (4095, "4095"),
        (OTHER_ERRNO, "other"),
    ],
)
def test_an_error_has_the_name_that_the_kernels_sources_use_or_its_number(number: int, name: str) -> None:
    assert error(number) == name


@pytest.mark.parametrize(
    ("bits", "name"),
    [
        (0x1, "VM_FAULT_OOM"),
        (0x2, "VM_FAULT_SIGBUS"),
        (0x40, "VM_FAULT_SIGSEGV"),
        (0x3, "VM_FAULT_OOM|VM_FAULT_SIGBUS"),
        (0x4000, "16384"),
        (OTHER_ERRNO, "other"),
    ],
)
def test_a_fault_has_the_names_of_its_bits_or_its_number(bits: int, name: str) -> None:
    assert fault(bits) == name


def test_an_order_is_its_digit_and_the_last_one_is_all_above() -> None:
    assert [order(digit) for digit in (0, 9, 10, 11)] == ["0", "9", "10", "other"]


@pytest.mark.parametrize(
    ("address", "owner"),
    [
        (G_UVM_GLOBAL, Owner("nvidia_uvm", "nvidia_uvm")),
        (DMIRROR_DEVICES, Owner("test_hmm-0", "test_hmm")),
        (0xFFFFFFFF82E00000, Owner("vmlinux-kvmppc_uvmem_pgmap", "vmlinux")),
        (0xFFFFFFFFC0600000, Owner("out_of_tree-somebodys_pgmap", "out_of_tree")),
        (0, Owner("none", "none")),
        (OTHER_POINTER, Owner("other", "other")),
    ],
)
def test_a_static_owner_is_named_after_its_module_and_symbol(tmp_path: Path, address: int, owner: Owner) -> None:
    # Whoever called: the symbol says more.
    assert owner_of(names_with(tmp_path, stacks={1: (SETUP, AMDGPU)}), address) == owner


def test_elements_of_a_static_array_are_numbered_from_its_first(tmp_path: Path) -> None:
    names = names_with(tmp_path)
    elements = [DMIRROR_DEVICES + 0x5C0 * number for number in (2, 0, 1)]
    assert [owner_of(names, address).name for address in elements] == ["test_hmm-1", "test_hmm-0", "test_hmm-2"]
    assert [names.owner(address).name for address in elements] == ["test_hmm-1", "test_hmm-0", "test_hmm-2"]


def test_owners_on_the_heap_are_numbered_by_the_driver_that_first_migrated_for_them(tmp_path: Path) -> None:
    names = names_with(tmp_path, stacks={1: (SETUP, AMDGPU), 2: (SETUP, TO_DEVMEM, XE), 3: (SETUP, AMDGPU_RESTORE)})
    found = [owner_of(names, address, stack) for address, stack in zip(HEAP, (1, 2, 3, 2))]
    assert found == [
        Owner("amdgpu-1", "amdgpu"),
        Owner("xe-1", "xe"),
        Owner("amdgpu-2", "amdgpu"),
        Owner("xe-2", "xe"),
    ]


def test_several_owners_that_appear_at_once_get_different_numbers(tmp_path: Path) -> None:
    names = names_with(tmp_path, stacks={1: (SETUP, AMDGPU)})
    names.learn(dict.fromkeys(HEAP[:5], 1), [], [])
    assert [names.owner(address).name for address in HEAP[:5]] == [f"amdgpu-{number}" for number in range(1, 6)]


@pytest.mark.parametrize(
    ("users", "owner"),
    [
        (("xe",), Owner("xe-1", "xe")),
        (("xe", "nouveau"), Owner("drm_gpusvm_helper-1", "drm_gpusvm_helper")),
        ((), Owner("drm_gpusvm_helper-1", "drm_gpusvm_helper")),
    ],
)
def test_a_helper_alone_on_the_stack_stands_for_its_only_user(
    tmp_path: Path, users: tuple[str, ...], owner: Owner
) -> None:
    names = names_with(tmp_path, stacks={1: (BPF, SETUP, TO_RAM, SWAP, FAULT)}, users={"drm_gpusvm_helper": users})
    assert owner_of(names, HEAP[0]) == owner


def test_an_owner_is_not_named_after_the_driver_that_took_the_fault_on_its_memory(tmp_path: Path) -> None:
    stack = (BPF, SETUP, TO_RAM, SWAP, FAULT, RANGE_FAULT, AMDGPU)
    names = names_with(tmp_path, stacks={1: stack}, users={"drm_gpusvm_helper": ("xe",)})
    assert owner_of(names, HEAP[0]) == Owner("xe-1", "xe")


@pytest.mark.parametrize("stack", [(), (SETUP, SWAP, FAULT), (BPF, TRAMPOLINE), (NOBODY,)])
def test_an_owner_without_a_module_on_its_stack_is_unknown_and_numbered(tmp_path: Path, stack: tuple[int, ...]) -> None:
    names = names_with(tmp_path, stacks={1: stack})
    assert [owner_of(names, address) for address in HEAP[:2]] == [
        Owner("unknown-1", "unknown"),
        Owner("unknown-2", "unknown"),
    ]


def test_without_addresses_in_kallsyms_everybody_is_unknown(tmp_path: Path) -> None:
    names = names_with(tmp_path, kallsyms="0000000000000000 T _stext\n", stacks={1: (SETUP, AMDGPU)})
    names.learn({G_UVM_GLOBAL: 1, HEAP[0]: 1}, [0xFFFFFFFFC0110000], [1])
    assert [names.owner(address).name for address in (G_UVM_GLOBAL, HEAP[0])] == ["unknown-1", "unknown-2"]
    assert (names.driver(0xFFFFFFFFC0110000), names.caller(1)) == ("unknown", "unknown")
    assert (names.owner(0).name, names.driver(0)) == ("none", "unknown")


def test_a_name_stays_whatever_its_stack_becomes(tmp_path: Path) -> None:
    stacks = {1: (SETUP, AMDGPU)}
    names = names_with(tmp_path, stacks=stacks)
    first = owner_of(names, HEAP[0])
    stacks[1] = (SETUP, XE)
    assert owner_of(names, HEAP[0]) == first == Owner("amdgpu-1", "amdgpu")


def test_an_owner_that_comes_back_is_somebody_new_and_no_number_is_given_twice(tmp_path: Path) -> None:
    names = names_with(tmp_path, stacks={1: (SETUP, AMDGPU)})
    names.learn({HEAP[0]: 1, HEAP[1]: 1}, [], [])
    names.forget([HEAP[0], HEAP[1]], [])
    assert names.owner(HEAP[0]) == Owner("unknown", "unknown")
    assert [owner_of(names, address).name for address in (HEAP[1], HEAP[0])] == ["amdgpu-3", "amdgpu-4"]


def test_a_static_owner_that_comes_back_has_its_old_name(tmp_path: Path) -> None:
    names = names_with(tmp_path)
    before = [owner_of(names, address).name for address in (G_UVM_GLOBAL, DMIRROR_DEVICES)]
    names.forget([G_UVM_GLOBAL, DMIRROR_DEVICES], [])
    assert [owner_of(names, address).name for address in (G_UVM_GLOBAL, DMIRROR_DEVICES)] == before


def test_forgetting_somebody_unknown_is_no_error(tmp_path: Path) -> None:
    names = names_with(tmp_path)
    names.forget([HEAP[0]], [HEAP[1]])
    assert names.owners() == []


def test_every_named_owner_is_listed_but_none_and_other(tmp_path: Path) -> None:
    names = names_with(tmp_path, stacks={1: (SETUP, AMDGPU)})
    names.learn({0: 0, OTHER_POINTER: 0, HEAP[0]: 1, G_UVM_GLOBAL: 1}, [], [])
    assert list(names.owners()) == [Owner("amdgpu-1", "amdgpu"), Owner("nvidia_uvm", "nvidia_uvm")]


@given(st.lists(st.tuples(st.sampled_from(HEAP), st.booleans()), max_size=60))
def test_no_two_owners_on_the_heap_ever_share_a_name(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[int, bool]]
) -> None:
    names = names_with(tmp_path_factory.getbasetemp(), stacks={1: (SETUP, AMDGPU)})
    known: dict[int, str] = {}
    used: set[str] = set()
    for address, gone in events:
        if gone:
            names.forget([address], [])
            known.pop(address, None)
            continue
        name = owner_of(names, address).name
        if address in known:
            assert name == known[address]
        else:
            assert name not in used
        known[address] = name
        used.add(name)


@pytest.mark.parametrize(
    ("ops", "driver"),
    [
        (0xFFFFFFFFC0110000, "amdgpu"),
        (0xFFFFFFFFC0210000, "xe"),
        (0xFFFFFFFFC0310000, "drm_gpusvm_helper"),
        (0xFFFFFFFF82E10000, "vmlinux"),
        (HEAP[0], "unknown"),
        (0, "unknown"),
        (OTHER_POINTER, "other"),
    ],
)
def test_a_driver_is_the_module_of_its_notifiers_operations(tmp_path: Path, ops: int, driver: str) -> None:
    names = names_with(tmp_path)
    names.learn({}, [ops], [])
    assert names.driver(ops) == driver


def test_what_was_not_learnt_is_unknown(tmp_path: Path) -> None:
    names = names_with(tmp_path)
    assert (names.owner(HEAP[0]).name, names.driver(HEAP[0]), names.caller(7)) == ("unknown", "unknown", "unknown")


@pytest.mark.parametrize(
    ("frames", "caller"),
    [
        ((BPF, TRAMPOLINE, RANGE_FAULT, AMDGPU_RESTORE, FAULT), "svm_range_restore_pages"),
        ((RANGE_FAULT, XE), "xe_svm_handle_pagefault"),
        ((0xFFFFFFFF81210810, AMDGPU), "svm_migrate_vma_to_vram"),
        ((RANGE_FAULT, NOBODY, FAULT), "handle_mm_fault"),
        ((BPF, RANGE_FAULT), "unknown"),
        ((), "unknown"),
    ],
)
def test_a_caller_is_the_first_function_behind_hmms_and_the_probes_own(
    tmp_path: Path, frames: tuple[int, ...], caller: str
) -> None:
    names = names_with(tmp_path, stacks={5: frames})
    names.learn({}, [], [5])
    assert names.caller(5) == caller
    assert names.caller(OTHER_STACK) == "other"


def many_functions(count: int) -> str:
    return "".join(f"{0xFFFFFFFF81000000 + 0x100 * at:016x} t caller_{at}\n" for at in range(count))


def stacks_of(count: int) -> Mapping[int, tuple[int, ...]]:
    """Stack number n was taken in caller_n."""
    return {at: (0xFFFFFFFF81000000 + 0x100 * at + 8,) for at in range(count)}


def test_the_first_twenty_callers_have_names_and_later_ones_are_other(tmp_path: Path) -> None:
    names = names_with(tmp_path, many_functions(25), stacks_of(25), callers=20)
    for stack in range(25):
        names.learn({}, [], [stack])
    assert [names.caller(stack) for stack in range(25)] == [f"caller_{at}" for at in range(20)] + ["other"] * 5


def test_another_stack_of_a_named_caller_keeps_its_name_behind_the_limit(tmp_path: Path) -> None:
    stacks = dict(stacks_of(4)) | {10: (0xFFFFFFFF81000010,), 11: (0xFFFFFFFF81000210,)}
    names = names_with(tmp_path, many_functions(4), stacks, callers=2)
    names.learn({}, [], [0, 1, 2, 10, 11])
    assert [names.caller(stack) for stack in (0, 1, 2, 10, 11)] == [
        "caller_0",
        "caller_1",
        "other",
        "caller_0",
        "other",
    ]


@given(st.lists(st.lists(st.integers(0, 30), max_size=8), max_size=10), st.integers(1, 6))
def test_callers_never_exceed_the_limit_and_keep_what_they_were_called(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]], limit: int
) -> None:
    names = names_with(tmp_path_factory.getbasetemp(), many_functions(30), stacks_of(30), callers=limit)
    known: dict[int, str] = {}
    for batch in batches:
        names.learn({}, [], batch)
        known |= {stack: names.caller(stack) for stack in batch if stack not in known}
        assert {stack: names.caller(stack) for stack in known} == known
    assert len(set(known.values()) - {"other"}) <= limit


class Counted(Symbols):
    """Counts how often the file is read."""

    questions = 0

    def resolve(self, addresses: Iterable[int]) -> Mapping[int, Symbol]:
        self.questions += 1
        return super().resolve(addresses)


def test_kallsyms_is_read_once_for_all_that_is_new_and_not_when_nothing_is(tmp_path: Path) -> None:
    # The file is some 10 MB, and a scrape must not wait for it each time.
    path = tmp_path / "kallsyms"
    path.write_text("ffffffffc0100000 t f\t[amdgpu]\nffffffffc0110000 r ops\t[amdgpu]\n")
    symbols = Counted(path)
    names = Names(symbols, lambda stack: (AMDGPU,), lambda module: (), 20)
    for _ in range(3):
        names.learn({HEAP[0]: 1, HEAP[1]: 2, 0: 0}, [0xFFFFFFFFC0110000, 0], [3, 4, OTHER_STACK])
    assert symbols.questions == 1
    assert (names.owner(HEAP[1]).name, names.driver(0xFFFFFFFFC0110000), names.caller(4)) == ("amdgpu-2", "amdgpu", "f")
