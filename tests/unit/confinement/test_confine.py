# SPDX-License-Identifier: Apache-2.0
"""What a thread can no longer do once it is confined, asked of this kernel in a process of its own."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from hmm_exporter.bpf import syscall
from hmm_exporter.confinement import calls, landlock, seccomp
from hmm_exporter.confinement.confine import Part
from hmm_exporter.metrics.confinement import Confinement
from tests.process import ROOT

GAUGES = {"hmm_exporter_confined": {"part"}}
NAMES = ["no_new_privs", "capabilities", "landlock", "seccomp"]
SERVING = {"read", "log", "thread", "talk", "accept", "given", "signal_itself", "limits", "maps"}
CHANGES_OF_FILES = {"write", "make", "remove", "rename", "truncate", "link", "symlink", "device"}


@lru_cache
def confined(how: str = "") -> dict[str, Any]:
    """What it said; ``how`` is for attempts.py."""
    command = [sys.executable, str(Path(__file__).with_name("attempts.py")), how]
    with tempfile.TemporaryDirectory() as folder:
        env = {"PYTHONPATH": str(ROOT), "TMPDIR": folder}
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def as_root(reason: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(os.geteuid() != 0, reason=reason)


def test_it_says_of_each_part_whether_it_was_given_up() -> None:
    parts = confined()["parts"]
    assert list(parts) == NAMES
    assert {name: problem for name, problem in parts.items() if name != "landlock" and problem} == {}


@as_root("only root has CAP_SETPCAP, with which the bounding set is emptied")
@pytest.mark.parametrize("whose", ["sets", "of_a_thread"])
def test_all_five_sets_are_empty_and_a_later_thread_has_no_more(whose: str) -> None:
    sets = confined()[whose]
    capabilities = {name: int(value, 16) for name, value in sets.items() if name.startswith("Cap")}
    assert capabilities == dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), 0)
    assert (sets["NoNewPrivs"], sets["Seccomp"]) == ("1", "2")


@as_root("only root has CAP_BPF to keep")
def test_where_maps_need_cap_bpf_it_is_kept_alone_and_said() -> None:
    said = confined("before-5.19")
    for whose in ("sets", "of_a_thread"):
        assert {int(said[whose][name], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {1 << 39}
    assert said["parts"]["capabilities"] == "all but CAP_BPF, with which alone this kernel lets maps be read"
    (family,) = Confinement([Part(*part) for part in said["parts"].items()]).collect()
    assert {s.labels["part"]: s.value for s in family.samples if s.labels["part"] != "landlock"} == {
        "no_new_privs": 1,
        "capabilities": 0,
        "seccomp": 1,
    }


def test_what_serving_takes_is_still_possible() -> None:
    assert {name: confined()["attempts"][name] for name in SERVING} == dict.fromkeys(SERVING, "done")


@pytest.mark.parametrize("how", ["", "without-landlock"])
def test_all_else_is_refused(how: str) -> None:
    said = confined(how)
    assert bool(said["parts"]["landlock"]) or how != "without-landlock"
    refused = {name: answer for name, answer in said["attempts"].items() if name not in SERVING}
    assert {name: answer for name, answer in refused.items() if answer != "EPERM"} == {"openat2": "ENOSYS"}


@as_root("who is not root is refused much of it in any case")
def test_it_is_the_confinement_that_refuses_it() -> None:
    attempts = confined("not-at-all")["attempts"]
    assert {name for name, answer in attempts.items() if answer in ("EPERM", "EACCES", "ENOSYS")} == set()


def test_landlock_alone_refuses_to_change_a_file() -> None:
    said = confined("without-seccomp")
    if said["parts"]["landlock"]:
        pytest.skip(f"this kernel's Landlock: {said['parts']['landlock']}")
    # From version 3 on it knows truncate(2) by path, which before is as free as without it.
    assert {said["attempts"][name] for name in CHANGES_OF_FILES - {"truncate"}} == {"EACCES"}


@pytest.mark.parametrize(
    ("at", "header"), [(0, "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), (1, "/usr/include/asm-generic/unistd.h")]
)
def test_the_numbers_are_the_kernels(at: int, header: str) -> None:
    if not Path(header).exists():
        pytest.skip(f"{header} is missing: its package is linux-libc-dev, of that architecture")
    words = [line.split() for line in Path(header).read_text().splitlines() if line.startswith("#define __NR")]
    defined = {
        each[1].removeprefix("__NR_").removeprefix("__NR3264_"): int(each[2])
        for each in words
        if len(each) > 2 and each[2].isdecimal() and not each[1].endswith("_syscalls")
    }
    by_argument = {name: rule.numbers for name, rule in calls.by_argument(PID).items()}
    ours = {
        name: numbers
        for group in (*calls.REFUSED.values(), calls.NOT_THERE, by_argument)
        for name, numbers in group.items()
    }
    newest = max(defined.values())
    for name, numbers in ours.items():
        number = numbers[at]
        if number is None or number <= newest:
            assert defined.get(name) == number, name
    assert len({numbers[at] for numbers in ours.values()} - {None}) > 100


def test_a_ruleset_asks_for_no_more_than_that_version_of_landlock_knows() -> None:
    read_file, read_directory = 1 << 2, 1 << 3
    lengths = {}
    for version in range(1, 9):
        attributes = landlock.attributes(version)
        lengths[version] = len(attributes)
        files = int.from_bytes(attributes[:8], "little")
        assert not files & (read_file | read_directory)
        assert files.bit_length() == {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)
    assert lengths == {1: 8, 2: 8, 3: 8, 4: 16, 5: 16, 6: 16, 7: 16, 8: 16}


class Machine:
    """Runs a seccomp filter as the kernel does (Documentation/networking/filter.rst); what it returns."""

    def __init__(self, code: bytes) -> None:
        self.code = [
            (int.from_bytes(code[at : at + 2], "little"), code[at + 2], code[at + 3], code[at + 4 : at + 8])
            for at in range(0, len(code), 8)
        ]

    def run(self, number: int, architecture: int, *arguments: int) -> int:
        data = struct.pack("<IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
        at, accumulator = 0, 0
        while True:
            operation, if_true, if_false, operand = self.code[at]
            value = int.from_bytes(operand, "little")
            at += 1
            if operation == 0x20:
                accumulator = int.from_bytes(data[value : value + 4], "little")
            elif operation == 0x06:
                return value
            else:
                true = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}
                at += if_true if true[operation] else if_false


PID = 4711
ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026


@pytest.mark.parametrize(("machine", "architecture"), [("x86_64", 0xC000003E), ("aarch64", 0xC00000B7)])
def test_the_filter_decides_by_number_and_arguments(machine: str, architecture: int) -> None:
    run = Machine(seccomp.program(machine, PID)).run
    at = calls.MACHINES.index(machine)
    read = (0, 63)[at]
    for number in calls.refused_numbers(at):
        assert run(number, architecture) == EPERM
    for numbers in calls.NOT_THERE.values():
        assert run(numbers[at] or -1, architecture) == ENOSYS
    assert run(read, architecture) == ALLOW
    assert run(read, 0x40000003) == KILL  # i386's
    assert run(0x40000000 | read, architecture) == EPERM

    def by(call: str, *arguments: int) -> int:
        return run(calls.by_argument(PID)[call].numbers[at] or -1, architecture, *arguments)

    # What glibc's pthread_create and fork ask for.
    assert (by("clone", 0x003D0F00), by("clone", 0x01200011)) == (ALLOW, EPERM)
    assert (by("tgkill", PID), by("tgkill", PID + 1)) == (ALLOW, EPERM)
    assert (by("prlimit64", 0), by("prlimit64", PID + 1)) == (ALLOW, EPERM)
    # The upper half is the caller's rubbish: a C int has none.
    assert (by("socket", 1), by("socket", 2), by("socket", 2 | 1 << 32)) == (ALLOW, EPERM, EPERM)
    assert (by("openat", -100 % (1 << 64), 7, os.O_CLOEXEC), by("openat", 0, 0, os.O_RDONLY)) == (ALLOW, ALLOW)
    for flag in (os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC, os.O_TMPFILE, 3):
        assert by("openat", 0, 0, flag) == EPERM
        assert machine != "x86_64" or by("open", 0, flag) == EPERM
    no_signal, fast_open = 0x4000, 0x20000000
    assert (by("sendto", 3, 0, 0, no_signal), by("sendto", 3, 0, 0, no_signal | fast_open)) == (ALLOW, EPERM)
    assert (by("sendmsg", 3, 0, no_signal), by("sendmsg", 3, 0, no_signal | fast_open)) == (ALLOW, EPERM)
    assert {command for command in range(2048) if by("fcntl", 3, command) == EPERM} == {8, 10, 15, 1024}
    allowed = {command for command in range(64) if by("bpf", command) == ALLOW}
    assert allowed == syscall.WITHOUT_PRIVILEGE
    assert {by("bpf", command) for command in range(64)} == {ALLOW, EPERM}


def test_of_another_architecture_no_filter_is_made() -> None:
    with pytest.raises(OSError, match="not known for riscv64"):
        seccomp.program("riscv64", PID)


def test_the_metric_says_of_each_part_whether_it_was_given_up() -> None:
    parts = [Part("capabilities", ""), Part("landlock", "function not implemented")]
    (family,) = Confinement(parts).collect()
    assert {family.name} == GAUGES.keys()
    assert [(sample.labels, sample.value) for sample in family.samples] == [
        ({"part": "capabilities"}, 1),
        ({"part": "landlock"}, 0),
    ]
