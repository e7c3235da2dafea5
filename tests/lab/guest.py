# SPDX-License-Identifier: Apache-2.0
"""What a lab machine can be asked that has to do with HMM: huge pages, the test driver, the kernel's hmm-tests.

Belongs here: the workload. Does not belong here: the machine itself (vm.py), and what the exporter should say about the
workload (the tests).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from tests.lab.vm import VirtualMachine

HugePages = Literal["always", "never"]
Ended = Literal["passed", "failed", "skipped"]

OUTPUT_BYTES = 2**16


@dataclass(frozen=True)
class TestOutcome:
    """How one of the kernel's tests ended. A skipped test did not fail, but it did not do its work either."""

    name: str
    ended: Ended
    output: str
    seconds: float

    @property
    def passed(self) -> bool:
        return self.ended == "passed"


def transparent_hugepages(machine: VirtualMachine, mode: HugePages) -> None:
    """Decides whether anonymous memory comes in 2 MiB pages: most figures of HMM depend on it."""
    machine.run(f"echo {mode} > /sys/kernel/mm/transparent_hugepage/enabled")


def reload_test_hmm(machine: VirtualMachine) -> None:
    """A fresh driver: how often closing it calls migrate_device_range depends on what was done since it was loaded."""
    machine.run("rmmod test_hmm && modprobe test_hmm")


def list_hmm_tests(machine: VirtualMachine, benchmarks: bool = False) -> list[str]:
    """The names that `hmm_test` takes, for the devices the driver offers here, in the order of the kernel's file."""
    # A table: each fixture's variants and tests stand in columns of their own, below each other.
    # It goes to stderr, and the exit status says "skipped".
    header, *rows = machine.run("hmm-tests -l", check=False).stderr.splitlines()
    variant_column, test_column = header.index("VARIANT"), header.index("TEST")
    variants: dict[str, list[str]] = {}
    tests: dict[str, list[str]] = {}
    fixture = ""
    for row in rows:
        if row.startswith("---"):
            continue
        fixture = row[:variant_column].strip() or fixture
        variants.setdefault(fixture, []).extend(row[variant_column:test_column].split())
        tests.setdefault(fixture, []).extend(row[test_column:].split())
    return [
        f"{fixture}.{variant}.{test}"
        for fixture, its_variants in variants.items()
        for variant in its_variants
        for test in tests[fixture]
        # Coherent devices need special purpose memory, which this machine has none of: these tests would only skip.
        if not variant.endswith("_device_coherent") and (benchmarks or not test.startswith("benchmark_"))
    ]


def hmm_test(machine: VirtualMachine, name: str, timeout: float = 300.0) -> TestOutcome:
    """Runs one of the kernel's tests, for example `hmm.hmm_device_private.migrate`."""
    # A part of the output, for where a test fails, 6.1's harness tears down and says so without end.
    result = machine.run(f"hmm-tests -r {name} 2>&1 | head -c {OUTPUT_BYTES}", timeout=timeout)
    ended: Ended = "failed"
    if said := re.search(r"^ok 1 (.*# SKIP)?", result.stdout, re.MULTILINE):
        ended = "skipped" if said[1] else "passed"
    return TestOutcome(name, ended, result.stdout, result.seconds)
