# SPDX-License-Identifier: Apache-2.0
"""The maps that are no tables: whose page frames are whose, arrivals, and what is read of the tree of ranges."""

from __future__ import annotations

import ctypes
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmm_exporter.bpf import syscall
from hmm_exporter.bpf.arrivals import arrived_since, forget
from hmm_exporter.bpf.maps import MapSet
from hmm_exporter.catalog.values import DEVICE_REGIONS
from hmm_exporter.config import Limits, Maps
from tests.unit.bpf.in_memory import Bpf, c_structs, layouts, map_set

MM, OTHER_MM = 0xFFFF888105A00000, 0xFFFF888105B00000


def devices(bpf: Bpf) -> ctypes.Structure:
    """devices_map's row, as the programs' struct has it."""
    (row,) = bpf.maps["devices_map"].rows.values()
    return c_structs(1)["devices"].from_buffer_copy(row)


def regions(bpf: Bpf) -> list[tuple[int, int, int]]:
    read = devices(bpf)
    return [(each.first, each.last, each.number) for each in read.region[: read.count]]


_frames = st.integers(0, (1 << 52) - 1)
_ranges = st.lists(st.tuples(_frames, _frames, st.integers(0, DEVICE_REGIONS - 1)), max_size=DEVICE_REGIONS)


@given(_frames, _ranges)
def test_the_programs_read_of_devices_what_the_daemon_wrote(ram_end: int, written: list[tuple[int, int, int]]) -> None:
    with map_set() as (bpf, maps):
        maps.write_devices(ram_end, written)
        assert devices(bpf).ram_end == ram_end
        assert regions(bpf) == written


def test_before_anything_is_written_no_frame_is_anybodys() -> None:
    with map_set() as (bpf, _):
        assert (devices(bpf).ram_end, devices(bpf).count) == (0, 0)


def test_devices_that_are_gone_leave_nothing_behind() -> None:
    with map_set() as (bpf, maps):
        maps.write_devices(1 << 20, [(1 << 30, (1 << 30) + 9, 0), (1 << 31, (1 << 31) + 9, 1)])
        maps.write_devices(1 << 20, [(1 << 31, (1 << 31) + 9, 1)])
        assert regions(bpf) == [(1 << 31, (1 << 31) + 9, 1)]
        assert not any((each.first, each.last, each.number) != (0, 0, 0) for each in devices(bpf).region[1:])


def test_more_devices_than_the_programs_have_room_for_are_refused() -> None:
    with map_set() as (_, maps), pytest.raises(struct.error):
        maps.write_devices(1, [(at, at, 0) for at in range(DEVICE_REGIONS + 1)])


def test_arrivals_are_counted_by_their_time() -> None:
    with map_set() as (bpf, maps):
        for region, since in enumerate((0, 999, 1000, 1001, 5000)):
            bpf.arrive(MM, region, since)
        assert arrived_since(maps.fds, [0, 1000, 1001, 6000]) == [5, 3, 2, 0]


def test_an_arrival_is_forgotten_by_its_time_whoever_it_is_of() -> None:
    with map_set() as (bpf, maps):
        bpf.arrive(MM, 7, 999)
        bpf.arrive(OTHER_MM, 7, 1000)
        bpf.arrive(MM, 8, 1001)
        assert forget(maps.fds, before=1000, most=10) == 1
        left = {struct.unpack("<QQ", key) for key in bpf.maps["arrival_map"].rows}
        assert left == {(OTHER_MM, 7), (MM, 8)} == {struct.unpack("<QQ", key) for key in bpf.maps["resident_map"].rows}
        assert forget(maps.fds, before=2000, most=10) == 2


def test_of_thousands_of_arrivals_no_more_are_forgotten_at_a_time_than_is_asked_for() -> None:
    with map_set() as (bpf, maps):
        for region in range(5000):
            bpf.arrive(MM, region, region)
        assert [forget(maps.fds, before=3000, most=2000) for _ in range(3)] == [2000, 1000, 0]
        assert arrived_since(maps.fds, [0, 3000]) == [2000, 2000]


def test_an_arrival_that_goes_by_itself_meanwhile_is_no_error() -> None:
    with map_set() as (bpf, maps):
        bpf.arrive(MM, 7, 5)

        def take(name: str) -> None:
            bpf.maps["resident_map"].rows.clear()

        bpf.before_read = take
        assert forget(maps.fds, before=1000, most=10) == 1
        assert bpf.maps["arrival_map"].rows == {}


@pytest.mark.parametrize("arrivals", [1024, 65536])
def test_both_maps_of_arrivals_have_the_room_that_the_configuration_says(arrivals: int) -> None:
    with map_set(maps=Maps(arrivals=arrivals)) as (bpf, maps):
        entries = {name: bpf.maps[name].entries for name in ("arrival_map", "resident_map")}
        assert entries == {"arrival_map": arrivals, "resident_map": arrivals}
        assert maps.arrivals == arrivals
        assert (bpf.maps["devices_map"].kind, bpf.maps["devices_map"].entries) == (syscall.MAP_ARRAY, 1)


def test_a_program_that_does_not_walk_the_tree_of_ranges_needs_no_map_for_it() -> None:
    without = {name: layout for name, layout in layouts(1).items() if name != "resource_map"}
    before = os.listdir("/proc/self/fd")
    bpf = Bpf()
    with bpf.installed():
        maps = MapSet(Limits(), Maps(), 1, without)
        assert set(maps.fds) == set(without)
        maps.close()
    assert os.listdir("/proc/self/fd") == before
