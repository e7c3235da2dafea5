# SPDX-License-Identifier: Apache-2.0
"""Addresses to names, by /proc/kallsyms.

The symbol tables below are written, not captured: the symbols and their modules are those of the
drivers' sources (amdgpu, drm_gpusvm_helper, xe, nouveau, nvidia-uvm 595.45.04, lib/test_hmm.c), the
addresses are made up, and the order is /proc/kallsyms' own: vmlinux sorted, then each module's
symbols as they lie in its file, then bpf's. The last tests read this machine's own file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmm_exporter.kernel.symbols import KALLSYMS, Symbol, Symbols

VMLINUX = """\
0000000000000000 A fixed_percpu_data
0000000000000000 A __per_cpu_start
ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81210e40 T hmm_range_fault
ffffffff81211000 t hmm_vma_walk_pmd
ffffffff812a0010 T migrate_vma_setup
ffffffff812a0800 T migrate_vma_finalize
ffffffff82e01000 D init_task
ffffffff83a00000 B __brk_base
ffffffff83c00000 B _end
"""
AMDGPU = """\
ffffffffc1840000 r amdgpu_hmm_gfx_ops\t[amdgpu]
ffffffffc1840020 r amdgpu_hmm_hsa_ops\t[amdgpu]
ffffffffc17a2000 t svm_range_best_prefetch_location\t[amdgpu]
ffffffffc17a1000 t svm_migrate_vma_to_vram\t[amdgpu]
ffffffffc1841000 r svm_range_mn_ops\t[amdgpu]
ffffffffc17a0000 t init_module\t[amdgpu]
"""
XE = """\
ffffffffc0a10000 r vma_userptr_notifier_ops\t[xe]
ffffffffc0a00000 t xe_svm_alloc_vram\t[xe]
ffffffffc0702000 r drm_gpusvm_notifier_ops\t[drm_gpusvm_helper]
ffffffffc0700000 T drm_pagemap_migrate_to_devmem\t[drm_gpusvm_helper]
ffffffffc0700900 t drm_pagemap_migrate_to_ram\t[drm_gpusvm_helper]
ffffffffc0701000 T drm_gpusvm_get_pages\t[drm_gpusvm_helper]
"""
NOUVEAU = """\
ffffffffc0b50000 r nouveau_svm_mni_ops\t[nouveau]
ffffffffc0b00040 t nouveau_dmem_migrate_chunk\t[nouveau]
ffffffffc0b00000 T nouveau_dmem_migrate_vma\t[nouveau]
"""
NVIDIA_UVM = """\
ffffffffc2f00000 b g_uvm_global\t[nvidia_uvm]
ffffffffc2e80000 r uvm_hmm_notifier_ops\t[nvidia_uvm]
ffffffffc2e81000 r uvm_ats_notifier_ops\t[nvidia_uvm]
ffffffffc2e00000 t uvm_hmm_va_block_migrate_locked\t[nvidia_uvm]
"""
TEST_HMM = """\
ffffffffc0402080 b dmirror_devices\t[test_hmm]
ffffffffc0401100 r dmirror_min_ops\t[test_hmm]
ffffffffc0401140 r dmirror_mrn_ops\t[test_hmm]
ffffffffc0400000 t dmirror_fault\t[test_hmm]
ffffffffc0480000 t bpf_prog_6deef7357e7b4530_enter_migrate_vma_setup\t[bpf]
"""


@contextmanager
def symbols_of(path: Path) -> Iterator[Symbols]:
    symbols = Symbols(path)
    try:
        yield symbols
    finally:
        symbols.close()


def resolve(folder: Path, text: str, *addresses: int) -> Mapping[int, Symbol]:
    path = folder / "kallsyms"
    path.write_text(text)
    with symbols_of(path) as symbols:
        assert symbols.problem == ""
        return symbols.resolve(addresses)


@pytest.mark.parametrize(
    ("machine", "address", "name", "module"),
    [
        (AMDGPU, 0xFFFFFFFFC1840000, "amdgpu_hmm_gfx_ops", "amdgpu"),
        (AMDGPU, 0xFFFFFFFFC1841000, "svm_range_mn_ops", "amdgpu"),
        (AMDGPU, 0xFFFFFFFFC17A1234, "svm_migrate_vma_to_vram", "amdgpu"),
        (XE, 0xFFFFFFFFC0A10000, "vma_userptr_notifier_ops", "xe"),
        (XE, 0xFFFFFFFFC0702000, "drm_gpusvm_notifier_ops", "drm_gpusvm_helper"),
        (XE, 0xFFFFFFFFC0700901, "drm_pagemap_migrate_to_ram", "drm_gpusvm_helper"),
        (NOUVEAU, 0xFFFFFFFFC0B50000, "nouveau_svm_mni_ops", "nouveau"),
        (NOUVEAU, 0xFFFFFFFFC0B0003F, "nouveau_dmem_migrate_vma", "nouveau"),
        (NVIDIA_UVM, 0xFFFFFFFFC2F00000, "g_uvm_global", "nvidia_uvm"),
        (NVIDIA_UVM, 0xFFFFFFFFC2E80000, "uvm_hmm_notifier_ops", "nvidia_uvm"),
        (TEST_HMM, 0xFFFFFFFFC0401140, "dmirror_mrn_ops", "test_hmm"),
        (TEST_HMM, 0xFFFFFFFFC0480010, "bpf_prog_6deef7357e7b4530_enter_migrate_vma_setup", "bpf"),
        (TEST_HMM, 0xFFFFFFFF81210FFF, "hmm_range_fault", ""),
    ],
)
def test_a_drivers_symbols_are_found_whatever_their_order_in_the_file(
    tmp_path: Path, machine: str, address: int, name: str, module: str
) -> None:
    found = resolve(tmp_path, VMLINUX + machine, address)[address]
    assert (found.name, found.module) == (name, module)


def test_the_second_element_of_a_static_array_is_the_arrays_symbol_with_its_offset(tmp_path: Path) -> None:
    second = 0xFFFFFFFFC0402080 + 0x5C0
    assert resolve(tmp_path, VMLINUX + TEST_HMM, second) == {second: Symbol("dmirror_devices", "test_hmm", 0x5C0)}


def test_an_address_is_at_inside_just_before_or_behind_a_symbol(tmp_path: Path) -> None:
    at = 0xFFFFFFFF812A0010
    found = resolve(tmp_path, VMLINUX, at - 1, at, at + 1, at + 0x7EF, at + 0x7F0)
    assert {address: (symbol.name, symbol.offset) for address, symbol in found.items() if symbol.name[:3] == "mig"} == {
        at: ("migrate_vma_setup", 0),
        at + 1: ("migrate_vma_setup", 1),
        at + 0x7EF: ("migrate_vma_setup", 0x7EF),
        at + 0x7F0: ("migrate_vma_finalize", 0),
    }
    assert at - 1 not in found  # 0x8f00f bytes behind hmm_vma_walk_pmd


def test_an_address_64_kib_behind_a_symbol_is_none_of_its(tmp_path: Path) -> None:
    last = 0xFFFFFFFF82E01000
    found = resolve(tmp_path, VMLINUX, last + 0xFFFF, last + 0x10000)
    assert list(found) == [last + 0xFFFF]
    assert found[last + 0xFFFF].name == "init_task"


def test_an_address_in_the_area_of_a_module_that_is_gone_is_none_of_its_neighbours(tmp_path: Path) -> None:
    last, gone = 0xFFFFFFFFC0B50000, 0xFFFFFFFFC0B53000
    found = resolve(tmp_path, VMLINUX + NOUVEAU, last + 0xFFF, gone)
    assert list(found) == [last + 0xFFF]
    between = "ffffffffc0b60000 t later\t[xe]\n"
    assert resolve(tmp_path, VMLINUX + NOUVEAU + between, gone) == {}
    its_own = "ffffffffc0b60000 t later\t[nouveau]\n"
    assert resolve(tmp_path, VMLINUX + NOUVEAU + its_own, gone)[gone].name == "nouveau_svm_mni_ops"


@pytest.mark.parametrize("address", [0, 0x1000, 0xFFFF888104A3C000, 0xFFFFFFFF80FFFFFF, 0xFFFFFFFFFFFFFFFF])
def test_the_heap_and_whatever_lies_before_the_first_symbol_has_no_name(tmp_path: Path, address: int) -> None:
    assert resolve(tmp_path, VMLINUX + AMDGPU, address) == {}


def test_what_lies_behind_the_end_of_the_kernels_image_has_no_name(tmp_path: Path) -> None:
    assert resolve(tmp_path, VMLINUX, 0xFFFFFFFF83C00000, 0xFFFFFFFF83C00100) == {}


def test_the_first_of_several_symbols_at_one_address_gives_the_name(tmp_path: Path) -> None:
    assert resolve(tmp_path, VMLINUX, 0xFFFFFFFF81000000)[0xFFFFFFFF81000000].name == "_stext"


def test_a_key_of_a_lock_names_nothing_but_what_has_its_address_does(tmp_path: Path) -> None:
    # As lib/test_hmm.c of 6.12 lies in memory.
    path = tmp_path / "kallsyms"
    path.write_text(
        "ffffffffc0004580 b __key.4\t[test_hmm]\n"
        "ffffffffc0004580 b __key.5\t[test_hmm]\n"
        "ffffffffc0004580 b dmirror_devices\t[test_hmm]\n"
        "ffffffffc0004a00 b __key\t[test_hmm]\n"
        "ffffffffc0004b00 t __keyring_search_one\t[test_hmm]\n"
    )
    with symbols_of(path) as symbols:
        for offset in (0, 0x240, 0x480):
            its = Symbol("dmirror_devices", "test_hmm", offset)
            assert symbols.resolve([0xFFFFFFFFC0004580 + offset]) == {0xFFFFFFFFC0004580 + offset: its}
        assert symbols.resolve([0xFFFFFFFFC0004B00])[0xFFFFFFFFC0004B00].name == "__keyring_search_one"


def test_a_symbol_without_an_address_names_nothing(tmp_path: Path) -> None:
    assert resolve(tmp_path, VMLINUX, 0, 5) == {}


def test_addresses_are_asked_for_in_any_order_and_as_often_as_one_likes(tmp_path: Path) -> None:
    setup, fault = 0xFFFFFFFF812A0020, 0xFFFFFFFF81210E50
    found = resolve(tmp_path, VMLINUX, setup, fault, setup, setup)
    assert {address: symbol.name for address, symbol in found.items()} == {
        setup: "migrate_vma_setup",
        fault: "hmm_range_fault",
    }


def test_a_module_that_was_loaded_meanwhile_is_found_by_the_next_question(tmp_path: Path) -> None:
    path = tmp_path / "kallsyms"
    path.write_text(VMLINUX)
    with symbols_of(path) as symbols:
        assert symbols.resolve([0xFFFFFFFFC1841000]) == {}
        path.write_text(VMLINUX + AMDGPU)
        assert symbols.resolve([0xFFFFFFFFC1841000])[0xFFFFFFFFC1841000].module == "amdgpu"


def test_a_name_is_found_in_vmlinux_only_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "kallsyms"
    path.write_text(VMLINUX + AMDGPU + "0000000000000000 D hidden\n")
    with symbols_of(path) as symbols:
        assert symbols.address("init_task") == 0xFFFFFFFF82E01000
        assert [symbols.address(name) for name in ("task", "init_tas", "svm_range_mn_ops", "hidden", "")] == [None] * 5


def test_hidden_addresses_are_a_problem_with_its_remedy_and_name_nothing(tmp_path: Path) -> None:
    path = tmp_path / "kallsyms"
    hidden = [f"{0:016x}{line[16:]}\n" for line in (VMLINUX + AMDGPU).splitlines()]
    path.write_text("".join(hidden))
    with symbols_of(path) as symbols:
        assert symbols.problem == (f"{path} shows no addresses: give CAP_SYSLOG, or set kernel.kptr_restrict to 0 or 1")
        assert symbols.resolve([0xFFFFFFFF81210E40, 0]) == {}


def test_an_empty_file_is_a_problem_and_names_nothing(tmp_path: Path) -> None:
    path = tmp_path / "kallsyms"
    path.write_text("")
    with symbols_of(path) as symbols:
        assert "shows no addresses" in symbols.problem
        assert symbols.resolve([1]) == {}


def test_a_missing_file_is_a_problem_and_names_nothing(tmp_path: Path) -> None:
    # CONFIG_KALLSYMS=n
    with symbols_of(tmp_path / "kallsyms") as symbols:
        assert symbols.problem == f"{tmp_path}/kallsyms: No such file or directory"
        assert symbols.resolve([1]) == {}


def test_a_file_that_cannot_be_opened_is_a_problem_and_names_nothing(tmp_path: Path) -> None:
    # A folder in its place: root may open any file.
    with symbols_of(tmp_path) as symbols:
        assert symbols.problem == f"{tmp_path}: Is a directory"
        assert symbols.resolve([1]) == {}


_ADDRESSES = st.one_of(
    st.integers(0, 40),
    st.integers(0xFFFFFFFF81000000, 0xFFFFFFFF81000040),
    st.integers(0xFFFFFFFFC0000000 - 4, 0xFFFFFFFFC0020004),
    st.integers(0, (1 << 64) - 1),
)


def nearest_by_hand(table: Sequence[tuple[int, str, str]], address: int) -> Symbol | None:
    """The documented answer, from a sorted list."""
    below = sorted(
        (-at, number, name, module) for number, (at, name, module) in enumerate(table) if at and at <= address
    )
    above = sorted((at, number, module) for number, (at, _, module) in enumerate(table) if at > address)
    last_of_module = below and below[0][3] and not (above and above[0][2] == below[0][3])
    if not below or address + below[0][0] >= (0x1000 if last_of_module else 0x10000):
        return None
    return Symbol(below[0][2], below[0][3], address + below[0][0])


@given(
    st.lists(st.tuples(_ADDRESSES, st.sampled_from("abcdef"), st.sampled_from(("", "amdgpu", "xe"))), max_size=30),
    st.lists(_ADDRESSES, max_size=15),
)
def test_a_name_is_that_of_the_nearest_symbol_at_or_below_in_any_table(
    tmp_path_factory: pytest.TempPathFactory, table: list[tuple[int, str, str]], addresses: list[int]
) -> None:
    path = tmp_path_factory.getbasetemp() / "random-kallsyms"
    lines = (f"{at:016x} t {name}" + (f"\t[{module}]" if module else "") + "\n" for at, name, module in table)
    path.write_text("".join(lines))
    expected = {address: nearest_by_hand(table, address) for address in addresses}
    with symbols_of(path) as symbols:
        assert symbols.resolve(addresses) == {at: symbol for at, symbol in expected.items() if symbol}


@pytest.fixture(scope="module")
def running() -> Iterator[Symbols]:
    symbols = Symbols()
    if symbols.problem:
        pytest.skip(symbols.problem)
    yield symbols
    symbols.close()


def test_every_hundredth_symbol_of_the_running_kernel_is_found_at_its_own_address(running: Symbols) -> None:
    names: dict[int, set[str]] = {}
    for line in KALLSYMS.read_text().splitlines():
        address, _, name = line.split()[:3]
        # Of a lock: names nothing. Of a BPF program: comes and goes with its process.
        if name.partition(".")[0] == "__key" or name.startswith("bpf_prog_"):
            continue
        names.setdefault(int(address, 16), set()).add(name)
    addresses = [address for address in sorted(names) if address][::100]
    found = running.resolve(addresses)
    wrong = {names[at].pop() for at in addresses if at not in found or found[at].name not in names[at]}
    assert wrong <= {"_end", "__end_of_kernel_reserve"}
    assert {symbol.offset for symbol in found.values()} == {0}


def test_lines_that_are_not_the_kernels_name_nothing_and_harm_nothing(tmp_path: Path) -> None:
    """Found by fuzzing."""
    path = tmp_path / "kallsyms"
    path.write_bytes(b"\n\xff\xfe\nffffffff81000000\nffffffff81000000 T\n+fffffff81000000 T odd\n" + VMLINUX.encode())
    with symbols_of(path) as symbols:
        assert symbols.resolve([0xFFFFFFFF81000000]) == {0xFFFFFFFF81000000: Symbol("_stext", "", 0)}
        assert symbols.address("init_task") == 0xFFFFFFFF82E01000
        assert symbols.address("odd") is None
