# SPDX-License-Identifier: Apache-2.0
"""The verifier takes every program of the kernel's build, whatever the number of CPUs and the options.

They are only loaded: this machine need not have kprobes, or HMM. What its BTF lacks gets the simulator's offset.
"""

from __future__ import annotations

import dataclasses
import os
import struct
from pathlib import Path

import pytest

from hmm_exporter.bpf import load, syscall
from hmm_exporter.bpf.code import CALLBACK, Code, link
from hmm_exporter.bpf.compiler import Compiled, compile_source
from hmm_exporter.bpf.maps import MapSet
from hmm_exporter.bpf.plan import choose
from hmm_exporter.bpf.source import WALK_BLOCK, Plan, text
from hmm_exporter.catalog.probes import GROUPS, PROBES
from hmm_exporter.config import Config, Limits, Probes
from hmm_exporter.kernel.simulated import simulated_kernel
from tests.bench import programs
from tests.process import SIMULATOR

EVERYTHING = Config(probes=Probes(groups={group.name: True for group in GROUPS}))


def load_programs(plan: Plan, python: str) -> int:
    """Load every program of the kprobe build, and let go of it. How many there were; raises what the verifier says."""
    compiled = compile_source(text(plan, "kprobe"), python, 60)
    maps = MapSet(EVERYTHING.limits, EVERYTHING.maps, plan.shards, compiled.maps)
    code = link(compiled, maps.fds)
    loaded = 0
    try:
        for probe in PROBES:
            kind = syscall.PROG_RAW_TRACEPOINT if probe.tracepoint else syscall.PROG_KPROBE
            for name in probe.programs:
                os.close(load.load(kind, code.pop(name), probe.name))
                loaded += 1
    finally:
        maps.close()
    assert code == {}
    return loaded


@pytest.mark.parametrize("shards", [1, 8])
@pytest.mark.parametrize("options", ["plain", "filters and histograms"])
def test_every_program_of_the_kprobe_build_is_accepted(shards: int, options: str) -> None:
    plan, left_out = choose(simulated_kernel(Path(SIMULATOR)), EVERYTHING)
    assert left_out == []
    plan = dataclasses.replace(plan, shards=shards)
    if options != "plain":
        plan = dataclasses.replace(
            plan, migration_phases=True, tgids=tuple(range(1, 17)), comms=tuple(b"comm-%d" % n for n in range(16))
        )
    assert load_programs(plan, EVERYTHING.loader.python) == sum(len(probe.programs) for probe in PROBES)


def test_the_maps_of_a_node_with_256_cpus_stay_below_32_mib() -> None:
    plan, _ = choose(simulated_kernel(Path(SIMULATOR)), EVERYTHING)
    plan = dataclasses.replace(plan, shards=8)
    compiled = compile_source(text(plan, "kprobe"), EVERYTHING.loader.python, 60)
    maps = MapSet(Limits(), EVERYTHING.maps, 8, compiled.maps)
    try:
        assert maps.memory_bytes() < 32 << 20
    finally:
        maps.close()


def test_the_kernel_takes_the_types_of_functions_and_a_program_with_its_callback_by_them() -> None:
    """Two instructions that load the callback's address, a call of bpf_loop, and the callback behind them."""

    def instruction(opcode: int, registers: int, immediate: int) -> bytes:
        return struct.pack("<BBhi", opcode, registers, 0, immediate)

    marker = struct.unpack("<ii", struct.pack("<Q", WALK_BLOCK))
    caller = b"".join(
        [
            instruction(0xB7, 1, 3),  # r1 = 3 times
            instruction(0x18, 2, marker[0]) + instruction(0, 0, marker[1]),  # r2 = the callback
            instruction(0xB7, 3, 0),  # r3 = no context
            instruction(0xB7, 4, 0),  # r4 = no flags
            instruction(0x85, 0, 181),  # bpf_loop
            instruction(0x95, 0, 0),
        ]
    )
    callback = instruction(0xB7, 0, 0) + instruction(0x95, 0, 0)
    (code,) = link(Compiled({"enter_x": caller, CALLBACK: callback}, {}, ""), {}).values()
    program = load.load(syscall.PROG_RAW_TRACEPOINT, code, "loops")
    try:
        assert syscall.prog_test_run(program, bytes(16)) == 3
    finally:
        os.close(program)
    wrong = Code(code.instructions, code.callback_at + 1)
    with pytest.raises(load.NotAttached):
        os.close(load.load(syscall.PROG_RAW_TRACEPOINT, wrong, "loops"))


def test_the_kept_list_of_instructions_has_every_program() -> None:
    _, instructions = programs.kept()
    assert set(instructions) == {name for probe in PROBES for name in probe.programs}, (
        "python3 -m tests.bench.programs --keep"
    )
