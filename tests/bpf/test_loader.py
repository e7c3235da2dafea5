# SPDX-License-Identifier: Apache-2.0
"""What of its surroundings must not matter to the loader child: where its heap lies, what its shell was told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hmm_exporter.bpf.compiler import CompiledMap, compile_source
from hmm_exporter.config import Config
from hmm_exporter.errors import StartError

PYTHON = Config().loader.python
SOURCE = """
#include <uapi/linux/ptrace.h>
BPF_HASH(pairs_map, u32, u64, 1);
int first(struct pt_regs *ctx) { return PT_REGS_PARM1(ctx); }
"""

# Stands for a Python that has bcc, and tells what that would find.
TELLING = """\
#!{python}
import runpy, subprocess, sys, types

def tell(text):
    words = ["grep", "-h", "CapPrm", "/proc/self/status"]
    raise Exception(open("/proc/self/status").read().partition("CapPrm:")[2].split()[0] + " executes "
                    + subprocess.check_output(words, text=True).split()[1])

sys.modules["bcc"] = types.ModuleType("bcc")
sys.modules["bcc"].BPF, sys.modules["bcc"].lib = tell, None
runpy.run_path(sys.argv[2], run_name="__main__")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has more to give up than what it is lent")
def test_started_as_root_it_makes_maps_and_reads_files_and_can_no_more(tmp_path: Path) -> None:
    python = tmp_path / "python3"
    python.write_text(TELLING.format(python=PYTHON))
    python.chmod(0o755)
    bpf_and_dac_read_search = f"{1 << 39 | 1 << 2:016x}"
    with pytest.raises(StartError, match=f"{bpf_and_dac_read_search} executes {bpf_and_dac_read_search}"):
        compile_source(SOURCE, str(python), 60)


def test_it_finds_programs_and_maps_where_the_heap_lies_above_4_gib(tmp_path: Path) -> None:
    # Run by the dynamic linker, any Python has its heap behind the linker's own, as one that is PIE has by itself.
    linker = next(path for folder in ("/lib64", "/lib") for path in Path(folder).glob("ld-linux-*.so.*"))
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\nexec {linker} {PYTHON} "$@"\n')
    python.chmod(0o755)
    compiled = compile_source(SOURCE, str(python), 60)
    assert list(compiled.programs) == ["first"]
    assert list(compiled.maps) == ["pairs_map"]
    layout = compiled.maps["pairs_map"]
    assert layout == CompiledMap(layout.fd, key_bytes=4, value_bytes=8)


def test_it_compiles_for_this_machine_whatever_arch_its_shell_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARCH", raising=False)
    plain = compile_source(SOURCE, PYTHON, 60).programs
    # Both are architectures that bcc knows; only one can be this machine's.
    for arch in ("arm64", "x86"):
        monkeypatch.setenv("ARCH", arch)
        assert compile_source(SOURCE, PYTHON, 60).programs == plain
