# SPDX-License-Identifier: Apache-2.0
"""Physical ranges: what is RAM, and what holds pages of devices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmm_exporter.kernel.iomem import DeviceRegion, Iomem, Regions, Resource, parse, regions
from tests.unit.kernel import machines

GIB = 1 << 30


def devices(text: str, page_size: int = 4096) -> list[tuple[int, int, str]]:
    """First and last byte of each device's region, and its name."""
    found = regions(parse(text), page_size).devices
    return [(each.first_pfn * page_size, (each.last_pfn + 1) * page_size - 1, each.name) for each in found]


def test_a_line_is_a_range_with_its_name_and_its_depth() -> None:
    assert parse(machines.AMDGPU)[3:5] == [
        Resource(0xA0000, 0xBFFFF, "PCI Bus 0000:00", 1),
        Resource(0xF0000, 0xFFFFF, "System ROM", 1),
    ]
    assert parse("fec00000-fec003ff : a : b-c : d\n") == [Resource(0xFEC00000, 0xFEC003FF, "a : b-c : d", 0)]
    assert parse("          0-f : \n") == [Resource(0, 15, "", 5)]


def test_hidden_addresses_are_no_ranges() -> None:
    hidden = "00000000-00000000 : Reserved\n00000000-00000000 : System RAM\n  00000000-00000000 : Kernel code\n"
    assert parse(hidden) == []
    assert regions(parse(hidden), 4096) == Regions(0, ())


@given(st.text())
def test_any_text_is_read_without_an_error(text: str) -> None:
    regions(parse(text), 4096)


_ranges = st.builds(
    Resource,
    st.integers(0, 1 << 52),
    st.integers(1, 1 << 52),
    st.from_regex(r"[\w.:() -]{0,31}", fullmatch=True),
    st.integers(0, 5),
)


@given(st.lists(_ranges))
def test_what_the_kernel_would_print_is_read_back(resources: list[Resource]) -> None:
    text = "".join(f"{'  ' * each.depth}{each.start:08x}-{each.end:08x} : {each.name}\n" for each in resources)
    assert parse(text) == resources


def test_the_private_ranges_of_amdgpu_are_devices_and_its_bars_are_not() -> None:
    assert devices(machines.AMDGPU) == [
        (0x3FE000000000, 0x3FEFFFFFFFFF, "0000:c5:00.0"),
        (0x3FF000000000, 0x3FFFFFFFFFFF, "0000:c1:00.0"),
    ]


def test_each_tile_of_xe_is_a_region_of_one_name() -> None:
    assert devices(machines.XE) == [
        (0x7FF800000000, 0x7FFBFFFFFFFF, "0000:03:00.0"),
        (0x7FFC00000000, 0x7FFFFFFFFFFF, "0000:03:00.0"),
    ]


@pytest.mark.parametrize(
    ("machine", "name", "count"),
    [
        (machines.NOUVEAU, "nouveau_dmem", 2),
        (machines.NVIDIA_UVM, "nvidia-uvm-hmm", 2),
        (machines.TEST_HMM, "hmm_dmirror", 2),
        (machines.COHERENT, "Soft Reserved", 1),
    ],
)
def test_regions_of_other_drivers_are_known_by_their_names(machine: str, name: str, count: int) -> None:
    assert [each[2] for each in devices(machine)] == [name] * count


def test_memory_left_to_drivers_is_a_devices_unless_it_was_made_ram() -> None:
    assert devices(machines.COHERENT) == [(0x1080000000, 0x307FFFFFFF, "Soft Reserved")]


@pytest.mark.parametrize(
    ("machine", "end"),
    [
        (machines.AMDGPU, 0x807E300000),
        (machines.XE, 0x1080000000),
        (machines.NVIDIA_UVM, 0xFA0000000),
        (machines.COHERENT, 0x5080000000),  # "System RAM (kmem)", in the tree below another name
    ],
)
@pytest.mark.parametrize("page_size", [4096, 65536])
def test_ram_ends_behind_its_highest_page_wherever_in_the_tree(machine: str, end: int, page_size: int) -> None:
    assert regions(parse(machine), page_size).ram_end == end // page_size


def test_pages_of_64_kib_are_counted_as_such() -> None:
    found = regions(parse(machines.TEST_HMM), 65536)
    assert found.devices[0] == DeviceRegion(0xFCE000, 0xFCEFFF, "hmm_dmirror")


def test_a_region_without_a_whole_page_is_none() -> None:
    assert devices("1000-17ff : hmm_dmirror\n2800-47ff : hmm_dmirror\n") == [(0x3000, 0x3FFF, "hmm_dmirror")]


def test_where_the_kernel_tells_it_the_descriptor_counts_and_not_the_name() -> None:
    private = Resource(255 * GIB, 256 * GIB - 1, "amdgpu_vram", 0, True)
    not_private = [
        Resource(4 * GIB, 5 * GIB - 1, "0000:c1:00.0", 0, False),
        Resource(5 * GIB, 6 * GIB - 1, "hmm_dmirror", 0, False),
        Resource(7 * GIB, 8 * GIB - 1, "0000:c1:00.0", 1, False),
    ]
    assert [each.name for each in regions([*not_private, private], 4096).devices] == ["amdgpu_vram"]


@pytest.mark.parametrize("machine", [machines.AMDGPU, machines.XE, machines.NOUVEAU, machines.NVIDIA_UVM])
def test_the_text_tells_the_same_as_the_descriptors(machine: str) -> None:
    ends = {each[1] for each in devices(machine)}
    told = [replace(each, device_private=each.end in ends and not each.depth) for each in parse(machine)]
    assert regions(told, 4096) == regions(parse(machine), 4096)


def test_a_file_is_read_as_it_is_at_that_moment(tmp_path: Path) -> None:
    path = tmp_path / "iomem"
    path.write_text(machines.XE)
    iomem = Iomem(path)
    assert (iomem.problem, iomem.read()) == ("", parse(machines.XE))
    path.write_text(machines.NOUVEAU)
    assert iomem.read() == parse(machines.NOUVEAU)
    iomem.close()
    assert iomem.read() == []


def test_a_file_that_is_not_there_or_hides_its_addresses_has_no_ranges_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "iomem"
    absent = Iomem(path)
    assert (absent.problem, absent.read()) == (f"{path}: No such file or directory", [])
    path.write_text("00000000-00000000 : System RAM\n")
    hidden = Iomem(path)
    assert (hidden.problem, hidden.read()) == (f"{path} shows no addresses: give CAP_SYS_ADMIN", [])


def test_an_address_of_more_than_64_bits_is_none() -> None:
    """Found by fuzzing: the programs' table has no room for such a number."""
    assert parse("0-10000000000000000 : System RAM\n0-ffff : System RAM\n") == parse("0-ffff : System RAM\n")
