# SPDX-License-Identifier: Apache-2.0
"""What of its surroundings must not matter to the loader child: where its heap lies."""

from __future__ import annotations

from pathlib import Path

from hmm_exporter.bpf.compiler import CompiledMap, compile_source
from hmm_exporter.config import Config

PYTHON = Config().loader.python
SOURCE = """
#include <uapi/linux/ptrace.h>
BPF_HASH(pairs_map, u32, u64, 1);
int first(struct pt_regs *ctx) { return PT_REGS_PARM1(ctx); }
"""


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
