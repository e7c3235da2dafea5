# SPDX-License-Identifier: Apache-2.0
"""The compiler's instructions, made ready for the kernel: maps' descriptors put in, the callback joined."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmm_exporter.bpf.code import CALLBACK, Code, function_types, functions, link
from hmm_exporter.bpf.compiler import Compiled, CompiledMap
from hmm_exporter.bpf.source import WALK_BLOCK
from tests.unit.bpf.in_memory import layouts


def instruction(opcode: int, destination: int, source: int, offset: int, immediate: int) -> bytes:
    """struct bpf_insn (include/uapi/linux/bpf.h) on a little-endian machine."""
    return struct.pack("<BBhi", opcode, source << 4 | destination, offset, immediate)


MOV, MOV_REGISTER, LD_IMM64, CALL, EXIT = 0xB7, 0xBF, 0x18, 0x85, 0x95
PSEUDO_MAP_FD, PSEUDO_MAP_VALUE, PSEUDO_FUNC = 1, 2, 4
BPF_LOOP = 181
END = instruction(EXIT, 0, 0, 0, 0)
SET = instruction(MOV, 0, 0, 0, 0)
BLOCK = instruction(MOV, 3, 0, 0, 7) + END
"""The callback, as the compiler gives it."""
JOINED = instruction(MOV_REGISTER, 1, 2, 0, 0) + BLOCK
"""bpf_loop gives its context second."""

DAEMONS = {name: 500 + at for at, name in enumerate(layouts(1))}
"""Descriptors of the daemon's maps."""


def load_64(register: int, value: int, source: int = 0) -> bytes:
    """A load of 64 bits: two instructions."""
    low, high = struct.unpack("<ii", struct.pack("<Q", value))
    return instruction(LD_IMM64, register, source, 0, low) + instruction(0, 0, 0, 0, high)


def call_loop(value: int = WALK_BLOCK, source: int = 0) -> bytes:
    return load_64(2, value, source) + instruction(CALL, 0, 0, 0, BPF_LOOP)


def linked(programs: Mapping[str, bytes]) -> dict[str, Code]:
    return link(Compiled(dict(programs), layouts(1), ""), DAEMONS)


def test_map_descriptors_of_the_loader_become_the_daemons_and_nothing_else_changes() -> None:
    loaders = {name: layout.fd for name, layout in layouts(1).items()}

    def program(owner: int, driver: int) -> bytes:
        return b"".join(
            [
                instruction(MOV, 1, 0, 0, loaders["owner_map"]),  # the number, but no map
                instruction(LD_IMM64, 1, PSEUDO_MAP_FD, 0, owner),
                instruction(0, 0, 0, 0, loaders["driver_map"]),  # the second half of the load
                instruction(LD_IMM64, 2, 0, 0, loaders["owner_map"]),  # a plain 64-bit constant
                instruction(0, 0, 0, 0, 0),
                instruction(LD_IMM64, 9, PSEUDO_MAP_FD, 0, driver),
                instruction(0, 0, 0, 0, 0),
                instruction(LD_IMM64, 3, PSEUDO_MAP_VALUE, 0, loaders["owner_map"]),
                instruction(0, 0, 0, 0, 0),
                instruction(CALL, 0, 1, -1, 1),
                END,
            ]
        )

    made = linked({"enter_x": program(loaders["owner_map"], loaders["driver_map"]), "leave_x": END})
    expected = program(DAEMONS["owner_map"], DAEMONS["driver_map"])
    assert made == {"enter_x": Code(expected), "leave_x": Code(END)}


def test_the_callbacks_own_maps_are_the_daemons_too() -> None:
    loaders = layouts(1)["devices_map"].fd
    made = linked({"enter_x": call_loop() + END, CALLBACK: load_64(1, loaders, PSEUDO_MAP_FD) + END})["enter_x"]
    assert load_64(1, DAEMONS["devices_map"], PSEUDO_MAP_FD) in made.instructions


def test_a_map_that_the_daemon_has_not_made_is_not_guessed() -> None:
    with pytest.raises(KeyError):
        linked({"enter_x": load_64(1, 5000, PSEUDO_MAP_FD)})
    with pytest.raises(KeyError):
        link(Compiled({}, dict(layouts(1)) | {"stranger": CompiledMap(7, 4, 4)}, ""), DAEMONS)


def test_the_callback_is_joined_to_who_calls_it_and_is_no_program_itself() -> None:
    made = linked({"enter_x": SET + call_loop() + END, "enter_y": SET + END, CALLBACK: BLOCK})
    assert set(made) == {"enter_x", "enter_y"}
    # Instruction 1 loads the address: from the one behind it, 2, it is 3 to the callback, 5.
    expected = SET + load_64(2, 3, PSEUDO_FUNC) + instruction(CALL, 0, 0, 0, BPF_LOOP) + END
    assert made["enter_x"] == Code(expected + JOINED, callback_at=5)
    assert functions(made["enter_x"]) == ((0, 3), (5, 4))


def test_a_program_that_calls_nothing_stays_as_it_was() -> None:
    made = linked({"enter_y": SET + load_64(1, 5) + END, CALLBACK: BLOCK})
    assert made["enter_y"] == Code(SET + load_64(1, 5) + END)
    assert functions(made["enter_y"]) == ()


@pytest.mark.parametrize(
    "almost",
    [
        call_loop(WALK_BLOCK & 0xFFFF_FFFF),
        call_loop(WALK_BLOCK ^ 1 << 63),
        # The same bits, but with a meaning of their own.
        call_loop(WALK_BLOCK, source=PSEUDO_MAP_VALUE),
    ],
    ids=["lower-half", "another-upper-half", "a-maps-value"],
)
def test_only_the_whole_constant_stands_for_the_callback(almost: bytes) -> None:
    assert linked({"enter_x": almost + END, CALLBACK: BLOCK})["enter_x"] == Code(almost + END)


@given(st.lists(st.sampled_from((SET, load_64(6, 1 << 40), call_loop())), max_size=12))
def test_wherever_it_is_called_from_the_distance_leads_to_the_callbacks_first_instruction(parts: list[bytes]) -> None:
    before = b"".join(parts) + END
    code = linked({"enter_x": before, CALLBACK: BLOCK})["enter_x"]
    calls = parts.count(call_loop())
    if not calls:
        assert code == Code(before)
        return
    assert code.callback_at == len(before) // 8
    assert code.instructions[8 * code.callback_at :] == JOINED
    found = 0
    for at in range(len(before) // 8):
        opcode, registers, offset, immediate = struct.unpack_from("<BBhi", code.instructions, 8 * at)
        if (opcode, registers >> 4) == (LD_IMM64, PSEUDO_FUNC):
            # As the kernel counts it: insn_idx + imm + 1 (kernel/bpf/verifier.c, check_ld_imm).
            assert at + immediate + 1 == code.callback_at
            assert (registers & 15, offset) == (2, 0)
            assert struct.unpack_from("<i", code.instructions, 8 * at + 12) == (0,)
            found += 1
    assert found == calls


def btf(data: bytes) -> tuple[bytes, bytes]:
    """(types, strings) by the header (include/uapi/linux/btf.h)."""
    magic, version, flags, header, types, types_length, strings, strings_length = struct.unpack_from("<HBBIIIII", data)
    assert (magic, version, flags, header) == (0xEB9F, 1, 0, 24)
    assert (types, strings) == (0, types_length)
    assert len(data) == header + types_length + strings_length
    return data[header : header + types_length], data[header + types_length :]


def test_the_types_of_functions_are_an_int_what_gives_it_and_two_functions_by_name() -> None:
    types, strings = btf(function_types())

    def name(offset: int) -> str:
        return strings[offset : strings.index(b"\0", offset)].decode()

    integer, prototype, program, callback = (types[:16], types[16:28], types[28:40], types[40:])
    its_name, info, size, encoding = struct.unpack("<IIII", integer)
    assert (name(its_name), info >> 24, size, encoding & 0xFF) == ("int", 1, 4, 32)
    assert struct.unpack("<III", prototype) == (0, 13 << 24, 1)
    for each, called in ((program, "program"), (callback, CALLBACK)):
        its_name, info, of_type = struct.unpack("<III", each)
        assert (name(its_name), info >> 24, info & 0xFFFF, of_type) == (called, 12, 0, 2)
