# SPDX-License-Identifier: Apache-2.0
"""What a thread can no longer do once it is confined, asked of this kernel in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from hmm_exporter.bpf import syscall
from hmm_exporter.confinement import landlock, seccomp
from hmm_exporter.confinement.confine import Part
from hmm_exporter.metrics.confinement import Confinement
from tests.process import ROOT

PROGRAM = r"""
import ctypes, errno, json, os, signal, socket, subprocess, sys, tempfile, threading
sys.path.insert(0, {root!r})
from hmm_exporter.bpf import syscall
from hmm_exporter.confinement.confine import confine

folder = tempfile.mkdtemp()
open(folder + "/there", "w").write("text")
listener = socket.create_server(("127.0.0.1", 0))
log = open(folder + "/log", "w")
has_bpf = os.geteuid() == 0
map_fd = syscall.map_create(syscall.MAP_HASH, 4, 8, 4, "test") if has_bpf else -1
child = os.fork()
if not child:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    signal.pause()

def sets():
    lines = open("/proc/thread-self/status").read().splitlines()
    return {{line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("Cap", "NoNew", "Seccomp:"))}}

def attempt(what):
    try:
        what()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"

def in_thread(what):
    said = []
    thread = threading.Thread(target=lambda: said.append(what()))
    thread.start()
    thread.join()
    return said[0]

def libc(name, *arguments):
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)

def talk():
    near, far = socket.socketpair()
    near.send(b"x")
    assert far.recv(1) == b"x"

def accept():
    listener.settimeout(0.1)
    try:
        listener.accept()
    except TimeoutError:
        pass

def map_round():
    syscall.map_update(map_fd, b"abcd", b"12345678")
    assert syscall.map_lookup(map_fd, b"abcd", 8) == b"12345678"
    assert syscall.map_lookup_and_delete(map_fd, b"abcd", 8) == b"12345678"
    assert list(syscall.map_lookup_batch(map_fd, 4, 8, 4)) == [(b"", b"")]

parts = [(part.name, part.problem) for part in confine()]
attempts = dict(
    read=lambda: open(folder + "/there").read(),
    log=lambda: os.write(log.fileno(), b"line"),
    thread=lambda: in_thread(lambda: None),
    talk=talk,
    accept=accept,
    write=lambda: open(folder + "/there", "w"),
    make=lambda: os.mkdir(folder + "/new"),
    remove=lambda: os.unlink(folder + "/there"),
    rename=lambda: os.rename(folder + "/there", folder + "/elsewhere"),
    execute=lambda: os.execv("/bin/true", ["true"]),
    fork=os.fork,
    run=lambda: subprocess.run(["true"]),
    connect=lambda: socket.create_connection(listener.getsockname()),
    bind=lambda: socket.socketpair()[0].bind(folder + "/socket"),
    udp=lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    netlink=lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    kill=lambda: os.kill(child, signal.SIGKILL),
    tgkill=lambda: libc("tgkill", child, child, signal.SIGKILL),
    ptrace=lambda: libc("ptrace", 16, child, 0, 0),  # PTRACE_ATTACH
    mount=lambda: libc("mount", b"none", folder.encode(), b"tmpfs", 0, None),
    unshare=lambda: libc("unshare", 0x10000000),  # CLONE_NEWUSER
    load=lambda: syscall.prog_load(1, bytes(16), "x"),
    map=lambda: syscall.map_create(syscall.MAP_HASH, 4, 8, 4, "x"),
    attach=lambda: syscall.raw_tracepoint_open(map_fd),
    perf=lambda: libc("syscall", {perf}, 0, 0, -1, -1, 0),
    maps=map_round if has_bpf else lambda: None,
)
said = {{name: attempt(what) for name, what in attempts.items()}}
print(json.dumps(dict(parts=parts, attempts=said, sets=sets(), of_a_thread=in_thread(sets))))
"""
GAUGES = {"hmm_exporter_confined": {"part"}}
ALLOWED = {"read", "log", "thread", "talk", "accept", "maps"}


@pytest.fixture(scope="module")
def said() -> dict[str, Any]:
    perf = {"x86_64": 298, "aarch64": 241}[os.uname().machine]
    program = PROGRAM.format(root=str(ROOT), perf=perf)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_it_says_of_each_part_whether_it_was_given_up(said: dict[str, Any]) -> None:
    assert [name for name, _ in said["parts"]] == ["no_new_privs", "capabilities", "landlock", "seccomp"]
    assert [problem for name, problem in said["parts"] if name != "landlock"] == ["", "", ""]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has CAP_SETPCAP, with which the bounding set is emptied")
@pytest.mark.parametrize("whose", ["sets", "of_a_thread"])
def test_all_five_sets_are_empty_and_a_later_thread_has_no_more(said: dict[str, Any], whose: str) -> None:
    sets = said[whose]
    assert {name: int(value, 16) for name, value in sets.items() if name.startswith("Cap")} == {
        "CapInh": 0,
        "CapPrm": 0,
        "CapEff": 0,
        "CapBnd": 0,
        "CapAmb": 0,
    }
    assert (sets["NoNewPrivs"], sets["Seccomp"]) == ("1", "2")


def test_what_serving_takes_is_still_possible(said: dict[str, Any]) -> None:
    assert {name: said["attempts"][name] for name in ALLOWED} == dict.fromkeys(ALLOWED, "done")


def test_all_else_is_refused(said: dict[str, Any]) -> None:
    refused = {name: answer for name, answer in said["attempts"].items() if name not in ALLOWED}
    if dict(said["parts"])["landlock"]:
        print(f"this kernel has no Landlock: {said['parts']}")
        for name in ("write", "make", "remove", "rename"):
            del refused[name]
    assert set(refused.values()) == {"EPERM"} | ({"EACCES"} if "write" in refused else set())
    assert {name for name, answer in refused.items() if answer == "EACCES"} <= {"write", "make", "remove", "rename"}


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

    def run(self, number: int, architecture: int, first: int = 0) -> int:
        data = (
            number.to_bytes(4, "little") + architecture.to_bytes(4, "little") + bytes(8) + first.to_bytes(8, "little")
        )
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


@pytest.mark.parametrize(
    ("machine", "architecture", "execve", "read", "clone", "tgkill", "bpf"),
    [("x86_64", 0xC000003E, 59, 0, 56, 234, 321), ("aarch64", 0xC00000B7, 221, 63, 220, 131, 280)],
)
def test_the_filter_decides_by_number_and_first_argument(
    machine: str, architecture: int, execve: int, read: int, clone: int, tgkill: int, bpf: int
) -> None:
    run = Machine(seccomp.program(machine, PID)).run
    assert run(execve, architecture) == EPERM
    assert run(read, architecture) == ALLOW
    assert run(read, 0x40000003) == KILL  # i386's
    assert run(0x40000000 | read, architecture) == EPERM
    thread, process = 0x003D0F00, 0x01200011  # what glibc's pthread_create and fork ask for
    assert (run(clone, architecture, thread), run(clone, architecture, process)) == (ALLOW, EPERM)
    assert run(435, architecture) == ENOSYS  # clone3, on both
    assert (run(tgkill, architecture, PID), run(tgkill, architecture, PID + 1)) == (ALLOW, EPERM)
    allowed = {command for command in range(64) if run(bpf, architecture, command) == ALLOW}
    assert allowed == syscall.WITHOUT_PRIVILEGE
    assert {run(bpf, architecture, command) for command in range(64)} == {ALLOW, EPERM}


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
