# SPDX-License-Identifier: Apache-2.0
"""Rows of the tables as Prometheus gets them, byte for byte."""

from __future__ import annotations

import itertools
from pathlib import Path

from hmm_exporter.bpf.maps import KeyValues
from hmm_exporter.catalog import tables
from hmm_exporter.catalog.values import (
    DEVICE_REGIONS,
    DEVICE_UNKNOWN,
    OTHER_COMM,
    DeviceFunction,
    Event,
    Failure,
    Intent,
    RangeFunction,
)
from tests.unit.metrics.exposed import (
    DEVICES,
    OPS,
    Rows,
    collector,
    comm,
    names_with,
    openmetrics,
    row,
    rows_of,
    text,
)

HUGE_FAULTS = """\
# HELP hmm_process_huge_faults_total Faults handled by do_huge_pmd_device_private, by the process that owns the memory.
# TYPE hmm_process_huge_faults_total counter
hmm_process_huge_faults_total{comm="other"} 1.23456789e+08
hmm_process_huge_faults_total{comm="say \\"hi\\"\\nand\\\\go"} 3.0
hmm_process_huge_faults_total{comm="caf\\\\xe9"} 1.0
# HELP hmm_huge_faults_total Calls of do_huge_pmd_device_private (6.19 and newer) that did not return VM_FAULT_RETRY: \
faults on a huge page on the device, also those of hmm_range_fault and those that found its lock taken and come again.
# TYPE hmm_huge_faults_total counter
hmm_huge_faults_total 4.0
# HELP hmm_huge_fault_retries_total Calls of do_huge_pmd_device_private that returned VM_FAULT_RETRY: the first half \
of nearly every huge fault.
# TYPE hmm_huge_fault_retries_total counter
hmm_huge_fault_retries_total 2.0
# HELP hmm_huge_fault_failures_total Calls of do_huge_pmd_device_private that returned an error, by VM_FAULT code.
# TYPE hmm_huge_fault_failures_total counter
hmm_huge_fault_failures_total{fault="VM_FAULT_SIGBUS"} 1.0
hmm_huge_fault_failures_total{fault="VM_FAULT_OOM"} 0.0
"""


def huge_faults() -> Rows:
    rows = rows_of(
        (tables.PROCESS, row(tables.PROCESS, (comm('say "hi"\nand\\go'),), huge_faults=3)),
        (tables.PROCESS, row(tables.PROCESS, (b"caf\xe9".ljust(24, b"\0"),), huge_faults=1, range_faults=7)),
        (tables.PROCESS, row(tables.PROCESS, (comm("idle"),), range_faults=7)),
        (tables.PROCESS, row(tables.PROCESS, (OTHER_COMM,), huge_faults=123456789)),
        (tables.FAILURE, row(tables.FAILURE, (0, 2, Failure.huge_fault, 0, 0), calls=1)),
        (tables.FAILURE, row(tables.FAILURE, (0, 22, Failure.range_fault, 0, 0), calls=5)),
    )
    rows[tables.EVENT] = [row(tables.EVENT, (event,), calls=0) for event in Event]
    rows[tables.EVENT][Event.huge_fault] = row(tables.EVENT, (Event.huge_fault,), calls=4)
    rows[tables.EVENT][Event.huge_fault_retry] = row(tables.EVENT, (Event.huge_fault_retry,), calls=2)
    return rows


def test_counters_stand_in_the_text_format_byte_for_byte(tmp_path: Path) -> None:
    made = collector(tmp_path, frozenset({"do_huge_pmd_device_private"}))
    assert text(made.families(huge_faults())) == HUGE_FAULTS
    assert made.series == 7


def test_counters_stand_in_openmetrics_byte_for_byte(tmp_path: Path) -> None:
    made = collector(tmp_path, frozenset({"do_huge_pmd_device_private"}))
    # There, a family is named without _total, and the end is marked.
    expected = HUGE_FAULTS
    for name in ("hmm_process_huge_faults", "hmm_huge_faults", "hmm_huge_fault_retries", "hmm_huge_fault_failures"):
        for comment in ("HELP", "TYPE"):
            expected = expected.replace(f"# {comment} {name}_total", f"# {comment} {name}")
    assert openmetrics(made.families(huge_faults())) == expected + "# EOF\n"


DEVICE_RANGES = """\
# HELP hmm_device_range_migrations_total Calls of migrate_device_range and migrate_device_pfns: eviction in xe and \
nvidia-uvm (which calls it once a page), teardown elsewhere. xe tries up to three times for one eviction.
# TYPE hmm_device_range_migrations_total counter
hmm_device_range_migrations_total{device="other",function="migrate_device_range"} 4.0
hmm_device_range_migrations_total{device="0000:c1:00.0",function="migrate_device_range"} 3.0
# HELP hmm_device_range_size_bytes Size of the array given to migrate_device_range or migrate_device_pfns, resident or \
not, in pages' bytes.
# TYPE hmm_device_range_size_bytes histogram
hmm_device_range_size_bytes_bucket{function="migrate_device_range",le="4096.0"} 2.0
hmm_device_range_size_bytes_bucket{function="migrate_device_range",le="8192.0"} 2.0
hmm_device_range_size_bytes_bucket{function="migrate_device_range",le="16384.0"} 5.0
hmm_device_range_size_bytes_bucket{function="migrate_device_range",le="32768.0"} 5.0
hmm_device_range_size_bytes_bucket{function="migrate_device_range",le="65536.0"} 5.0
hmm_device_range_size_bytes_bucket{function="migrate_device_range",le="131072.0"} 5.0
hmm_device_range_size_bytes_bucket{function="migrate_device_range",le="262144.0"} 5.0
hmm_device_range_size_bytes_bucket{function="migrate_device_range",le="524288.0"} 5.0
hmm_device_range_size_bytes_bucket{function="migrate_device_range",le="1048576.0"} 5.0
hmm_device_range_size_bytes_bucket{function="migrate_device_range",le="2097152.0"} 5.0
hmm_device_range_size_bytes_bucket{function="migrate_device_range",le="4194304.0"} 5.0
hmm_device_range_size_bytes_bucket{function="migrate_device_range",le="8388608.0"} 5.0
hmm_device_range_size_bytes_bucket{function="migrate_device_range",le="16777216.0"} 5.0
hmm_device_range_size_bytes_bucket{function="migrate_device_range",le="33554432.0"} 5.0
hmm_device_range_size_bytes_bucket{function="migrate_device_range",le="67108864.0"} 5.0
hmm_device_range_size_bytes_bucket{function="migrate_device_range",le="134217728.0"} 5.0
hmm_device_range_size_bytes_bucket{function="migrate_device_range",le="268435456.0"} 5.0
hmm_device_range_size_bytes_bucket{function="migrate_device_range",le="536870912.0"} 5.0
hmm_device_range_size_bytes_bucket{function="migrate_device_range",le="1073741824.0"} 5.0
hmm_device_range_size_bytes_bucket{function="migrate_device_range",le="2147483648.0"} 5.0
hmm_device_range_size_bytes_bucket{function="migrate_device_range",le="4294967296.0"} 5.0
hmm_device_range_size_bytes_bucket{function="migrate_device_range",le="8589934592.0"} 5.0
hmm_device_range_size_bytes_bucket{function="migrate_device_range",le="17179869184.0"} 5.0
hmm_device_range_size_bytes_bucket{function="migrate_device_range",le="34359738368.0"} 5.0
hmm_device_range_size_bytes_bucket{function="migrate_device_range",le="68719476736.0"} 6.0
hmm_device_range_size_bytes_bucket{function="migrate_device_range",le="+Inf"} 7.0
hmm_device_range_size_bytes_count{function="migrate_device_range"} 7.0
hmm_device_range_size_bytes_sum{function="migrate_device_range"} 1.23456789e+09
"""


def device_ranges() -> Rows:
    """3 of the one device that there is, 4 of one that is not known; the other function is not watched."""
    counted: dict[KeyValues, dict[str, int | list[int]]] = {
        (DeviceFunction.migrate_device_range, 0): {"calls": 3, "bytes": 1234500000, "size": [2] + [0] * 23 + [1]},
        (DeviceFunction.migrate_device_range, DEVICE_UNKNOWN): {"calls": 4, "bytes": 67890, "size": REST},
        (DeviceFunction.migrate_device_pfns, 0): {"calls": 1},
    }
    keys = itertools.product(DeviceFunction, range(DEVICE_REGIONS + 2))
    return rows_of(*((tables.DEVICE_RANGE, row(tables.DEVICE_RANGE, key, **counted.get(key, {}))) for key in keys))


REST = [0, 0, 3] + [0] * 22 + [1]


def test_a_histogram_of_sizes_stands_in_the_text_format_byte_for_byte(tmp_path: Path) -> None:
    made = collector(tmp_path, frozenset({"migrate_device_range"}), names=names_with(tmp_path, devices=DEVICES[:1]))
    assert text(made.families(device_ranges())) == DEVICE_RANGES
    assert made.series == 2 + 28


def test_a_histogram_of_sizes_stands_in_openmetrics_byte_for_byte(tmp_path: Path) -> None:
    made = collector(tmp_path, frozenset({"migrate_device_range"}), names=names_with(tmp_path, devices=DEVICES[:1]))
    expected = DEVICE_RANGES.replace("# HELP hmm_device_range_migrations_total", "# HELP hmm_device_range_migrations")
    expected = expected.replace("# TYPE hmm_device_range_migrations_total", "# TYPE hmm_device_range_migrations")
    assert openmetrics(made.families(device_ranges())) == expected + "# EOF\n"


DURATION = """\
# HELP hmm_range_fault_duration_seconds From entry to return, faults and whole migrations inside included.
# TYPE hmm_range_fault_duration_seconds histogram
hmm_range_fault_duration_seconds_bucket{driver="amdgpu",function="hmm_range_fault",le="9.5367431640625e-07"} 1.0
hmm_range_fault_duration_seconds_bucket{driver="amdgpu",function="hmm_range_fault",le="1.9073486328125e-06"} 1.0
hmm_range_fault_duration_seconds_bucket{driver="amdgpu",function="hmm_range_fault",le="3.814697265625e-06"} 1.0
hmm_range_fault_duration_seconds_bucket{driver="amdgpu",function="hmm_range_fault",le="7.62939453125e-06"} 1.0
hmm_range_fault_duration_seconds_bucket{driver="amdgpu",function="hmm_range_fault",le="1.52587890625e-05"} 1.0
hmm_range_fault_duration_seconds_bucket{driver="amdgpu",function="hmm_range_fault",le="3.0517578125e-05"} 1.0
hmm_range_fault_duration_seconds_bucket{driver="amdgpu",function="hmm_range_fault",le="6.103515625e-05"} 1.0
hmm_range_fault_duration_seconds_bucket{driver="amdgpu",function="hmm_range_fault",le="0.0001220703125"} 1.0
hmm_range_fault_duration_seconds_bucket{driver="amdgpu",function="hmm_range_fault",le="0.000244140625"} 1.0
hmm_range_fault_duration_seconds_bucket{driver="amdgpu",function="hmm_range_fault",le="0.00048828125"} 1.0
hmm_range_fault_duration_seconds_bucket{driver="amdgpu",function="hmm_range_fault",le="0.0009765625"} 1.0
hmm_range_fault_duration_seconds_bucket{driver="amdgpu",function="hmm_range_fault",le="0.001953125"} 3.0
hmm_range_fault_duration_seconds_bucket{driver="amdgpu",function="hmm_range_fault",le="0.00390625"} 3.0
hmm_range_fault_duration_seconds_bucket{driver="amdgpu",function="hmm_range_fault",le="0.0078125"} 3.0
hmm_range_fault_duration_seconds_bucket{driver="amdgpu",function="hmm_range_fault",le="0.015625"} 3.0
hmm_range_fault_duration_seconds_bucket{driver="amdgpu",function="hmm_range_fault",le="0.03125"} 3.0
hmm_range_fault_duration_seconds_bucket{driver="amdgpu",function="hmm_range_fault",le="0.0625"} 3.0
hmm_range_fault_duration_seconds_bucket{driver="amdgpu",function="hmm_range_fault",le="0.125"} 3.0
hmm_range_fault_duration_seconds_bucket{driver="amdgpu",function="hmm_range_fault",le="0.25"} 3.0
hmm_range_fault_duration_seconds_bucket{driver="amdgpu",function="hmm_range_fault",le="0.5"} 3.0
hmm_range_fault_duration_seconds_bucket{driver="amdgpu",function="hmm_range_fault",le="1.0"} 3.0
hmm_range_fault_duration_seconds_bucket{driver="amdgpu",function="hmm_range_fault",le="2.0"} 3.0
hmm_range_fault_duration_seconds_bucket{driver="amdgpu",function="hmm_range_fault",le="4.0"} 3.0
hmm_range_fault_duration_seconds_bucket{driver="amdgpu",function="hmm_range_fault",le="8.0"} 3.0
hmm_range_fault_duration_seconds_bucket{driver="amdgpu",function="hmm_range_fault",le="16.0"} 3.0
hmm_range_fault_duration_seconds_bucket{driver="amdgpu",function="hmm_range_fault",le="+Inf"} 3.0
hmm_range_fault_duration_seconds_count{driver="amdgpu",function="hmm_range_fault"} 3.0
hmm_range_fault_duration_seconds_sum{driver="amdgpu",function="hmm_range_fault"} 0.003000001
"""


def test_a_histogram_of_times_has_seconds_for_bounds_and_an_exact_sum(tmp_path: Path) -> None:
    names = names_with(tmp_path)
    names.learn({}, [OPS[0]], [])
    made = collector(tmp_path, frozenset({"hmm_range_fault"}), names=names)
    # Two intents of one driver: the histogram does not tell them apart.
    reads = (OPS[0], RangeFunction.hmm_range_fault, Intent.read)
    writes = (OPS[0], RangeFunction.hmm_range_fault, Intent.write)
    rows = rows_of(
        (tables.RANGE_FAULT, row(tables.RANGE_FAULT, reads, calls=1, duration_ns=1, duration=[1])),
        (tables.RANGE_FAULT, row(tables.RANGE_FAULT, writes, calls=2, duration_ns=3_000_000, duration=[0] * 11 + [2])),
    )
    families = [each for each in made.families(rows) if each.name == "hmm_range_fault_duration_seconds"]
    assert text(families) == DURATION
