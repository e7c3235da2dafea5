# SPDX-License-Identifier: Apache-2.0
"""A simulator's program taken for a kernel. The program, its BTF and its symbols are written by the tests."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from hmm_exporter.errors import StartError
from hmm_exporter.kernel.iomem import Resource
from hmm_exporter.kernel.simulated import simulated_kernel
from tests.unit.kernel.btf_encoder import VOID, Encoder

PT_LOAD, PT_NOTE = 1, 4
# (type, offset in the file, address, bytes in the file): two segments with code, and one that is not loaded.
SEGMENTS = ((PT_LOAD, 0, 0x400000, 0x1000), (PT_NOTE, 0x9000, 0x400000, 0x1000), (PT_LOAD, 0x2000, 0x408000, 0x500))
KALLSYMS = """\
0000000000400630 T migrate_vma_setup
0000000000408010 t restore_exclusive_pte
0000000000409000 D dmirror_devices
0000000000408500 T beyond_its_segment
0000000000408020 r amdgpu_hmm_gfx_ops\t[amdgpu]
"""


def elf(segments: tuple[tuple[int, int, int, int], ...] = SEGMENTS) -> bytes:
    """The two headers of a 64-bit program (elf(5)), with a gap between them."""
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 2, 62, 1, 0x400630, 80, 0, 0, 64, 56, len(segments), 64, 0, 0)
    table = b"".join(
        struct.pack("<IIQQQQQQ", kind, 5, at, start, start, size, size, 0x1000) for kind, at, start, size in segments
    )
    return header.ljust(80, b"\0") + table


def btf() -> bytes:
    encoder = Encoder()
    prototype = encoder.prototype(VOID, [])
    for name in ("migrate_vma_setup", "make_device_exclusive"):
        encoder.function(name, prototype)
    return encoder.blob()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "hmm-simulator"
    path.write_bytes(elf())
    (tmp_path / "hmm-simulator.btf").write_bytes(btf())
    (tmp_path / "hmm-simulator.kallsyms").write_text(KALLSYMS)
    return path


def refusal(program: Path) -> str:
    with pytest.raises(StartError) as refused:
        simulated_kernel(program)
    text = str(refused.value)
    assert text.isprintable(), f"not one line: {text!r}"
    assert text.startswith("simulator: ")
    assert text.endswith(": build it with make -C tests/simulator")
    return text


def test_functions_lie_in_the_file_where_their_segment_does(program: Path) -> None:
    simulated = simulated_kernel(program).simulated
    assert simulated
    assert simulated.file_offsets == {"migrate_vma_setup": 0x630, "restore_exclusive_pte": 0x2010}


def test_a_simulated_kernel_has_btf_and_symbols_like_a_real_one(program: Path) -> None:
    kernel = simulated_kernel(program)
    assert kernel.btf
    assert kernel.btf.function("migrate_vma_setup")
    assert (kernel.btf_problem, kernel.device_private, kernel.kprobe) == ("", True, None)
    assert kernel.release == "simulator hmm-simulator"
    assert kernel.symbols.problem == ""
    assert kernel.symbols.resolve([0x408020])[0x408020].module == "amdgpu"
    kernel.symbols.close()


def test_a_simulators_ranges_are_in_a_file_that_may_be_missing(program: Path) -> None:
    kernel = simulated_kernel(program)
    assert (kernel.iomem.read(), kernel.iomem.problem) == ([], f"{program}.iomem: No such file or directory")
    program.with_name("hmm-simulator.iomem").write_text("fce0000000-fcefffffff : hmm_dmirror\n")
    kernel = simulated_kernel(program)
    assert kernel.iomem.read() == [Resource(0xFCE0000000, 0xFCEFFFFFFF, "hmm_dmirror", 0)]
    kernel.iomem.close()


def test_its_pages_are_its_own_and_not_the_machines(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 65536}.__getitem__)
    assert simulated_kernel(program).page_size == 4096


def test_the_path_is_made_absolute_because_uprobes_need_it(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(program.parent)
    simulated = simulated_kernel(Path("hmm-simulator")).simulated
    assert simulated
    assert simulated.path == str(program.resolve())


@pytest.mark.parametrize("missing", ["hmm-simulator", "hmm-simulator.btf", "hmm-simulator.kallsyms"])
def test_a_missing_file_is_named(program: Path, missing: str) -> None:
    program.with_name(missing).unlink()
    text = refusal(program)
    assert str(program.with_name(missing)) in text
    assert "No such file or directory" in text


def test_btf_that_is_none_is_said(program: Path) -> None:
    program.with_name("hmm-simulator.btf").write_bytes(b"")
    assert "hmm-simulator.btf: shorter than a BTF header" in refusal(program)


@pytest.mark.parametrize(
    "content",
    [b"", b"#!/bin/sh\nexit 0\n", bytes(200), elf()[:100], b"\x7fELF\x01" + elf()[5:], b"MZ" + elf()[2:]],
    ids=["empty", "script", "zeros", "cut", "32-bit", "other-format"],
)
def test_a_program_that_is_no_64_bit_elf_is_refused(program: Path, content: bytes) -> None:
    program.write_bytes(content)
    refusal(program)


@pytest.mark.parametrize(
    "content", [b"migrate_vma_setup\n", b"address T migrate_vma_setup\n", b"\xff\xfe\n"], ids=["short", "word", "bytes"]
)
def test_symbols_that_are_none_are_refused(program: Path, content: bytes) -> None:
    program.with_name("hmm-simulator.kallsyms").write_bytes(content)
    refusal(program)
