# SPDX-License-Identifier: Apache-2.0
"""No kernel address is in anything that the exporter prints, serves or logs, while a workload runs."""

from __future__ import annotations

import re
import urllib.error
from collections.abc import Iterator

import pytest

from tests.lab.conftest import GuestExporter
from tests.lab.vm import VirtualMachine

#: Where the kernel's half of the address space begins, with five levels of page tables, too.
KERNEL = 0xFF00 << 48
_HEXADECIMAL = re.compile(r"0x[0-9a-f]+|[0-9a-f]{16}", re.IGNORECASE)
_DECIMAL = re.compile(r"\d{19,20}|\d\.\d+e\+1[89]", re.IGNORECASE)
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


def kernel_addresses(text: str) -> list[str]:
    """All that looks like one: in hexadecimal, in decimal, or as a float, which is how samples are written."""
    found = [
        each for each in _HEXADECIMAL.findall(text) if int(each, 16) >= KERNEL or each.lower().startswith("0xffff")
    ]
    return found + [each for each in _DECIMAL.findall(text) if float(each) >= KERNEL]


@pytest.fixture(scope="module")
def working(machine: VirtualMachine, mirror: str) -> Iterator[None]:
    """Migrations, faults, evictions, and hmm_range_fault's EBUSY with its stacks, again and again."""
    process = machine.start(
        f"""while :; do {mirror} warm=64 migrate-1 process=worker read migrate back
        hmm-tests -r hmm.hmm_device_private.migrate_fault; hmm-tests -r hmm.hmm_device_private.exclusive
        sleep 2; done"""
    )
    yield
    machine.kill(process.pid)


def test_the_search_finds_the_kernels_own_addresses(machine: VirtualMachine) -> None:
    symbols = machine.run("grep -E ' [tT] (migrate_vma_setup|hmm_range_fault|dmirror_.*)' /proc/kallsyms").stdout
    addresses = [line.split()[0] for line in symbols.splitlines()]
    assert len(addresses) > 10
    assert kernel_addresses(symbols) == addresses
    for address in addresses:
        number = int(address, 16)
        for written in (f"{number:#x}", f"{number:#X}", str(number), repr(float(number)), f"<{number:x}+0x40>"):
            assert kernel_addresses(f'hmm_x{{owner="{written}"}} 1') == [written.strip("<>").removesuffix("+0x40")]
    assert not kernel_addresses("hmm_bytes_total 1.8446744073e+15 0xfff 123456789012345678 deadbeef")


def test_no_page_and_no_log_has_one(exporter: GuestExporter, working: None) -> None:
    pages = [exporter.get(path) for path in ("/", "/metrics", "/-/ready", "/-/healthy")]
    pages.append(exporter.get("/metrics", accept=OPEN_METRICS))
    assert pages[-1].endswith("# EOF\n")
    with pytest.raises(urllib.error.HTTPError) as refused:
        exporter.get("/nowhere")
    pages.append(refused.value.read().decode())
    log = exporter.process.stdout() + exporter.process.stderr()
    assert "level=debug" in log
    assert "hmm_migrations_started_total{" in pages[1]
    for text in (*pages, log):
        assert text
        assert kernel_addresses(text) == []


@pytest.mark.parametrize("arguments", ["--check", "report --duration 3", "report --duration 3 --json"])
def test_no_command_prints_one(machine: VirtualMachine, working: None, arguments: str) -> None:
    command = f"python3 -m hmm_exporter --log.level debug {arguments}"
    result = machine.run(f"cd /opt/hmm-exporter; {command}", timeout=300)
    # By name there may be functions: those of the stacks that met EBUSY.
    assert ("dmirror_" if "report" in arguments else "migrate_vma_setup") in result.stdout
    assert kernel_addresses(result.stdout + result.stderr) == []
