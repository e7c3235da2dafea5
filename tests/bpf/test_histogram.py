# SPDX-License-Identifier: Apache-2.0
"""The slot of a histogram at every bound, one below and one above, by the compiled program itself.

The functions of ``program/histogram.c`` run in the kernel, as a raw tracepoint program that the
kernel is asked to run once with the value as its argument (BPF_PROG_TEST_RUN).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction

import pytest

from hmm_exporter.bpf import source, syscall
from hmm_exporter.bpf.compiler import compile_source
from hmm_exporter.catalog.values import HISTOGRAM_SLOTS, Size

HOUR_NS = 3600 * 10**9
SECONDS_BOUNDS = [Fraction(2) ** exponent for exponent in range(-20, 5)]
BYTES_BOUNDS = [2**exponent for exponent in range(12, 37)]

Slot = Callable[[int], int]

_TEXT = f"""
#define BUILD_FENTRY 1
#define HISTOGRAM_SLOTS {HISTOGRAM_SLOTS}
#define BYTES_SHIFT {Size.bytes.shift}
#define SECONDS_SHIFT {Size.seconds.shift}
{(source.PROGRAMS / "glue.c").read_text()}
{(source.PROGRAMS / "histogram.c").read_text()}
int bytes_slot(u64 *ctx) {{ return slot_of(ctx[0], BYTES_SHIFT); }}
int seconds_slot(u64 *ctx) {{ return slot_of(time_units(ctx[0]), SECONDS_SHIFT); }}
int units_low(u64 *ctx) {{ return (u32)time_units(ctx[0]); }}
int units_high(u64 *ctx) {{ return (u32)(time_units(ctx[0]) >> 32); }}
"""


@pytest.fixture(scope="module")
def programs() -> dict[str, Slot]:
    compiled = compile_source(_TEXT, "/usr/bin/python3", 60)
    fds = {
        name: syscall.prog_load(syscall.PROG_RAW_TRACEPOINT, code, name)[0] for name, code in compiled.programs.items()
    }

    def runner(fd: int) -> Slot:
        return lambda value: syscall.prog_test_run(fd, struct.pack("<Q", value))

    return {name: runner(fd) for name, fd in fds.items()}


def around(value: int) -> list[int]:
    return [value - 1, value, value + 1]


@pytest.mark.parametrize("bound", BYTES_BOUNDS)
def test_a_size_is_in_the_bucket_of_the_smallest_bound_that_is_not_below_it(
    programs: dict[str, Slot], bound: int
) -> None:
    for size in around(bound):
        assert programs["bytes_slot"](size) == sum(size > each for each in BYTES_BOUNDS), size


@pytest.mark.parametrize("size", [0, 1, 2, 4095, 1 << 37, 1 << 63, (1 << 64) - 1])
def test_sizes_beyond_all_bounds_are_in_the_first_and_the_last_slot(programs: dict[str, Slot], size: int) -> None:
    assert programs["bytes_slot"](size) == (0 if size <= 4096 else HISTOGRAM_SLOTS - 1)


def nanoseconds_around(bound: Fraction) -> list[int]:
    """The last whole nanosecond not above the bound, and its neighbours."""
    return around(int(bound * 10**9))


@pytest.mark.parametrize("bound", SECONDS_BOUNDS)
def test_a_time_is_in_the_bucket_of_the_smallest_bound_that_is_not_below_it(
    programs: dict[str, Slot], bound: Fraction
) -> None:
    for ns in nanoseconds_around(bound):
        seconds = Fraction(ns, 10**9)
        assert programs["seconds_slot"](ns) == sum(seconds > each for each in SECONDS_BOUNDS), ns


@pytest.mark.parametrize(
    "ns", [0, 1, 999, 17 * 10**9, 18 * 10**9, HOUR_NS - 1, HOUR_NS, 3 * HOUR_NS, 24 * HOUR_NS, 365 * 24 * HOUR_NS]
)
def test_times_up_to_a_year_are_in_units_of_a_power_of_two_of_a_second_rounded_up(
    programs: dict[str, Slot], ns: int
) -> None:
    units = programs["units_low"](ns) | programs["units_high"](ns) << 32
    assert units == -(-ns * 2**30 // 10**9)
    seconds = Fraction(ns, 10**9)
    assert programs["seconds_slot"](ns) == sum(seconds > each for each in SECONDS_BOUNDS)
