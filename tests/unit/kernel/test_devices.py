# SPDX-License-Identifier: Apache-2.0
"""Names and indices of devices, while regions come and go."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmm_exporter.kernel.devices import Devices
from hmm_exporter.kernel.iomem import PCI_ADDRESS, DeviceRegion, parse, regions
from tests.unit.kernel import machines

NOWHERE = Path("/nonexistent")


def region(place: int, name: str) -> DeviceRegion:
    """One of 32,768 page frames; the place is its position in the address space."""
    return DeviceRegion(place << 15, (place << 15) + 0x7FFF, name)


def names(devices: Devices) -> list[tuple[int, str]]:
    """Place and device of each range."""
    return [(first >> 15, devices.name(index)) for first, _, index in devices.table()]


def of_machine(text: str, pci_devices: Path = NOWHERE) -> Devices:
    devices = Devices(pci_devices=pci_devices)
    devices.update(regions(parse(text), 4096).devices)
    return devices


def test_a_pci_address_is_a_name_as_it_is() -> None:
    devices = of_machine(machines.AMDGPU)
    assert devices.table() == [(0x3FE000000, 0x3FEFFFFFF, 1), (0x3FF000000, 0x3FFFFFFFF, 0)]
    assert [devices.name(index) for index in (0, 1)] == ["0000:c1:00.0", "0000:c5:00.0"]


def test_regions_of_one_pci_address_are_one_device_and_one_range_where_they_touch() -> None:
    devices = of_machine(machines.XE)
    assert devices.table() == [(0x7FF800000, 0x7FFFFFFFF, 0)]
    assert devices.name(0) == "0000:03:00.0"
    devices.update([region(1, "0000:03:00.0"), region(3, "0000:03:00.0")])
    assert names(devices) == [(1, "0000:03:00.0"), (3, "0000:03:00.0")]


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (machines.TEST_HMM, ["hmm_dmirror-1", "hmm_dmirror-0"]),
        (machines.NVIDIA_UVM, ["nvidia-uvm-hmm-1", "nvidia-uvm-hmm-0"]),
        (machines.COHERENT, ["Soft Reserved-0"]),
        (machines.NOUVEAU, ["nouveau_dmem-0"]),
    ],
)
def test_other_names_are_numbered_from_the_highest_address(machine: str, expected: list[str]) -> None:
    devices = of_machine(machine)
    assert [devices.name(index) for _, _, index in devices.table()] == expected


def test_a_region_keeps_its_number_when_one_comes_below_it_or_goes() -> None:
    devices = Devices()
    devices.update([region(7, "hmm_dmirror"), region(9, "hmm_dmirror")])
    devices.update([region(5, "hmm_dmirror"), region(7, "hmm_dmirror"), region(9, "hmm_dmirror")])
    assert names(devices) == [(5, "hmm_dmirror-2"), (7, "hmm_dmirror-1"), (9, "hmm_dmirror-0")]
    devices.update([region(9, "hmm_dmirror")])
    assert names(devices) == [(9, "hmm_dmirror-0")]
    at_once = Devices()
    at_once.update([region(5, "hmm_dmirror"), region(7, "hmm_dmirror"), region(9, "hmm_dmirror")])
    assert names(at_once) == [(5, "hmm_dmirror-2"), (7, "hmm_dmirror-1"), (9, "hmm_dmirror-0")]


def test_a_number_that_is_free_again_goes_to_the_next_region() -> None:
    devices = Devices()
    devices.update([region(7, "hmm_dmirror"), region(9, "hmm_dmirror")])
    devices.update([region(9, "hmm_dmirror")])
    devices.update([region(3, "hmm_dmirror"), region(4, "hmm_dmirror"), region(9, "hmm_dmirror")])
    assert names(devices) == [(3, "hmm_dmirror-2"), (4, "hmm_dmirror-1"), (9, "hmm_dmirror-0")]


def test_a_driver_that_is_loaded_again_finds_its_devices_names_and_indices() -> None:
    devices = Devices()
    devices.update([region(7, "0000:c1:00.0"), region(8, "hmm_dmirror"), region(9, "hmm_dmirror")])
    before = [index for _, _, index in devices.table()]
    devices.update([])
    assert devices.table() == []
    assert [devices.name(index) for index in before] == ["0000:c1:00.0", "hmm_dmirror-1", "hmm_dmirror-0"]
    devices.update([region(2, "0000:c1:00.0"), region(3, "hmm_dmirror"), region(6, "hmm_dmirror")])
    assert [index for _, _, index in devices.table()] == before


def test_a_driver_that_was_loaded_again_between_two_looks_is_no_different() -> None:
    devices = Devices()
    devices.update([region(7, "0000:c1:00.0"), region(8, "hmm_dmirror")])
    devices.update([region(1, "0000:c1:00.0"), region(2, "hmm_dmirror")])
    assert names(devices) == [(1, "0000:c1:00.0"), (2, "hmm_dmirror-0")]
    assert [index for _, _, index in devices.table()] == [1, 0]


def test_an_index_never_becomes_another_devices() -> None:
    devices = Devices()
    devices.update([region(7, "0000:c1:00.0")])
    devices.update([region(7, "0000:c5:00.0")])
    assert devices.table() == [(7 << 15, (8 << 15) - 1, 1)]
    assert (devices.name(0), devices.name(1)) == ("0000:c1:00.0", "0000:c5:00.0")


def test_an_update_says_whether_anything_changed() -> None:
    devices = Devices()
    assert not devices.update([])
    assert devices.update([region(7, "hmm_dmirror")])
    assert not devices.update([region(7, "hmm_dmirror")])
    assert devices.update([])


def test_devices_beyond_the_limit_are_in_no_range_and_change_no_other() -> None:
    devices = Devices(limit=2)
    devices.update([region(place, "hmm_dmirror") for place in range(4)])
    assert names(devices) == [(2, "hmm_dmirror-1"), (3, "hmm_dmirror-0")]
    assert [each.device for each in devices.info()] == ["hmm_dmirror-0", "hmm_dmirror-1"]


def test_chunks_of_nouveau_are_one_device_however_many_there_are() -> None:
    devices = Devices(limit=1)
    devices.update([region(place, "nouveau_dmem") for place in range(100) if place != 50])
    assert devices.table() == [(0, (50 << 15) - 1, 0), (51 << 15, (100 << 15) - 1, 0)]


def test_the_driver_of_a_pci_device_is_the_one_that_sysfs_links_to(tmp_path: Path) -> None:
    for address, driver in (("0000:c1:00.0", "amdgpu"), ("0000:c5:00.0", "amdgpu")):
        (tmp_path / address).mkdir()
        (tmp_path / address / "driver").symlink_to(f"../../../bus/pci/drivers/{driver}")
    devices = of_machine(machines.AMDGPU, tmp_path)
    assert devices.info() == [
        ("0000:c1:00.0", "amdgpu", "00000000:C1:00.0"),
        ("0000:c5:00.0", "amdgpu", "00000000:C5:00.0"),
    ]
    (tmp_path / "0000:c5:00.0" / "driver").unlink()
    assert devices.info()[1] == ("0000:c5:00.0", "", "00000000:C5:00.0")


def test_a_domain_above_16_bits_is_spelled_with_eight_digits(tmp_path: Path) -> None:
    devices = Devices(pci_devices=tmp_path)
    devices.update([region(1, "10000:e1:00.0")])
    assert devices.info() == [("10000:e1:00.0", "", "00010000:E1:00.0")]


@pytest.mark.parametrize(
    ("machine", "info"),
    [
        (machines.NOUVEAU, [("nouveau_dmem-0", "nouveau", "")]),
        (machines.NVIDIA_UVM, [("nvidia-uvm-hmm-0", "nvidia_uvm", ""), ("nvidia-uvm-hmm-1", "nvidia_uvm", "")]),
        (machines.TEST_HMM, [("hmm_dmirror-0", "test_hmm", ""), ("hmm_dmirror-1", "test_hmm", "")]),
        (machines.COHERENT, [("Soft Reserved-0", "", "")]),
    ],
)
def test_the_module_of_another_name_is_known(machine: str, info: list[tuple[str, str, str]]) -> None:
    assert of_machine(machine).info() == info


def test_a_device_that_is_gone_has_no_info() -> None:
    devices = of_machine(machines.TEST_HMM)
    devices.update([])
    assert devices.info() == []


_updates = st.lists(
    st.dictionaries(
        st.integers(0, 9), st.sampled_from(["hmm_dmirror", "nvidia-uvm-hmm", "nouveau_dmem", "0000:c1:00.0"])
    )
)


@given(_updates, st.integers(1, 8))
def test_whatever_comes_and_goes_names_stay_with_regions_and_indices_with_names(
    updates: list[dict[int, str]], limit: int
) -> None:
    devices = Devices(limit, NOWHERE)
    index_names: dict[int, str] = {}
    before: dict[DeviceRegion, str] = {}
    for places in updates:
        present = [region(place, name) for place, name in sorted(places.items())]
        devices.update(present)
        table = devices.table()
        assert all(first <= last for first, last, _ in table)
        assert all(one[1] < next_one[0] for one, next_one in itertools.pairwise(table))
        now: dict[DeviceRegion, str] = {}
        for first, last, index in table:
            assert 0 <= index < limit
            assert index_names.setdefault(index, devices.name(index)) == devices.name(index)
            now |= {each: devices.name(index) for each in present if first <= each.first_pfn <= last}
        assert set(now) == set(present) or len(index_names) == limit
        assert all(now[each] == name for each, name in before.items() if each in now)
        numbered = [name for name in now.values() if not PCI_ADDRESS.fullmatch(name) and "nouveau" not in name]
        assert len(set(numbered)) == len(numbered)
        assert all(name.startswith(each.name) for each, name in now.items())
        before = now
