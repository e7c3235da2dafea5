# SPDX-License-Identifier: Apache-2.0
"""What this kernel makes of the module, in processes that were started as a container's runtime does it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hmm_exporter
from hmm_exporter import capabilities, libc
from hmm_exporter.capabilities import CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN, CAP_SYSLOG, WANTED, capable, why_refused
from tests.containment import USER, contained, permitted_interpreter

# Written, in the form of proc_pid_status(5), shortened.
STATUS = """\
Name:\tpython3
CapInh:\t0000000000000000
CapPrm:\t000000c000000000
CapEff:\t{effective:016x}
CapBnd:\t000001ffffffffff
"""

# The modules come by stdin, for user 65532 may not be able to read the checkout. Says, as JSON, which sets it has at
# the start, then, in a block and after it, with which a child of a plain Python ends up.
PROGRAM = """
import ctypes, json, os, subprocess, sys, types
for name, source in json.load(sys.stdin).items():
    sys.modules[name] = types.ModuleType(name)
    exec(source, vars(sys.modules[name]))
module = vars(sys.modules["hmm_exporter.capabilities"])

def sets(text):
    return {line[3:6]: int(line.split()[1], 16) for line in text.splitlines() if line.startswith("Cap")}

def own():
    return sets(open("/proc/self/status").read())

def child():
    program = ["/usr/bin/python3", "-I", "-c", "print(open('/proc/self/status').read())"]
    return sets(subprocess.run(program, capture_output=True, text=True, check=True).stdout)

said = {"before": own()}
module["put_into_effect"]()
said["after"] = own()
with module["lent"](module["CAP_BPF"], module["CAP_PERFMON"]):
    said["lent"] = child()
said["later"], said["at_the_end"] = child(), own()
libc = ctypes.CDLL(None)
said["secure"], said["dumpable"] = libc.getauxval(23), libc.prctl(3, 0, 0, 0, 0)  # AT_SECURE, PR_GET_DUMPABLE
# What the exporter and prometheus_client's process metrics read.
said["readable"] = [name for name in ("stat", "status", "limits", "fdinfo/1") if open(f"/proc/self/{name}").read()]
said["files"], said["owner"] = len(os.listdir("/proc/self/fd")), os.stat("/proc/self/fd").st_uid
said["why_refused"] = module["why_refused"]()
print(json.dumps(said))
"""


def bits(*numbers: int) -> int:
    return sum(1 << number for number in numbers)


def run(*command: str | Path, preexec: Callable[[], None] | None = None) -> dict[str, Any]:
    modules = {each.__name__: Path(each.__file__ or "").read_text() for each in (hmm_exporter, libc, capabilities)}
    words = [*map(str, command), "-I", "-c", PROGRAM]
    done = subprocess.run(words, input=json.dumps(modules), capture_output=True, text=True, preexec_fn=preexec, cwd="/")
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@pytest.fixture(scope="module")
def interpreter() -> Iterator[Path]:
    with permitted_interpreter(*WANTED) as python:
        yield python


def test_the_numbers_are_the_kernels() -> None:
    header = Path("/usr/include/linux/capability.h")
    if not header.exists():
        pytest.skip(f"{header} is missing: its package is linux-libc-dev")
    defined = {
        words[1]: int(words[2])
        for words in map(str.split, header.read_text().splitlines())
        if words[:1] == ["#define"] and len(words) == 3 and words[2].isdecimal()
    }
    assert {name: defined[name] for name in WANTED.values()} == {name: number for number, name in WANTED.items()}
    assert defined["CAP_SYS_ADMIN"] == CAP_SYS_ADMIN


@pytest.mark.parametrize("no_new_privileges", [False, True], ids=["", "no_new_privs"])
def test_what_the_file_permits_and_the_container_allows_is_put_into_effect_and_no_more(
    interpreter: Path, no_new_privileges: bool
) -> None:
    said = run(interpreter, preexec=contained(*WANTED, 0, held=True, no_new_privileges=no_new_privileges))
    assert said["before"]["Eff"] == 0
    assert said["after"]["Eff"] == said["after"]["Prm"] == bits(*WANTED)
    assert "no capability is missing" in said["why_refused"]


def test_also_where_the_process_gains_them_by_exec_alone(interpreter: Path) -> None:
    said = run(interpreter, preexec=contained(*WANTED, held=False, no_new_privileges=False))
    assert said["after"]["Eff"] == bits(*WANTED)


@pytest.mark.parametrize(("held", "dumpable", "owner"), [(True, 1, USER), (False, 0, 0)], ids=["held", "gained"])
def test_it_reads_its_own_files_in_proc_though_the_kernel_guards_it(
    interpreter: Path, held: bool, dumpable: int, owner: int
) -> None:
    """A process that gains capabilities by exec is not dumpable, and its files in /proc are root's."""
    said = run(interpreter, preexec=contained(*WANTED, held=held, no_new_privileges=False))
    assert (said["secure"], said["dumpable"], said["owner"]) == (1, dumpable, owner)
    assert said["readable"] == ["stat", "status", "limits", "fdinfo/1"]
    assert said["files"] >= 3


@pytest.mark.parametrize("missing", WANTED, ids=WANTED.__getitem__)
def test_a_process_that_is_given_fewer_runs_and_names_the_missing_one(interpreter: Path, missing: int) -> None:
    given = set(WANTED) - {missing}
    said = run(interpreter, preexec=contained(*given, held=True, no_new_privileges=True))
    assert said["after"]["Eff"] == bits(*given)
    if missing == CAP_SYSLOG:  # bpf(2) is not refused for want of it
        assert "no capability is missing" in said["why_refused"]
    else:
        assert said["why_refused"] == f"{WANTED[missing]} is missing: run as root, or with CAP_BPF and CAP_PERFMON"


def test_a_child_has_what_it_is_lent_and_one_that_comes_later_has_nothing(interpreter: Path) -> None:
    said = run(interpreter, preexec=contained(*WANTED, held=True, no_new_privileges=True))
    assert said["lent"]["Eff"] == said["lent"]["Prm"] == said["lent"]["Amb"] == bits(CAP_BPF, CAP_PERFMON)
    assert (said["later"]["Eff"], said["later"]["Prm"], said["later"]["Inh"]) == (0, 0, 0)
    assert said["at_the_end"] == said["after"]


def test_what_cannot_be_lent_is_left_out(interpreter: Path) -> None:
    said = run(interpreter, preexec=contained(CAP_BPF, held=True, no_new_privileges=True))
    assert said["lent"]["Eff"] == bits(CAP_BPF)


def test_nothing_changes_for_a_process_that_has_them_in_effect() -> None:
    said = run("/usr/bin/python3")
    assert said["before"] == said["after"] == said["at_the_end"]
    assert said["lent"]["Eff"] == said["later"]["Eff"] == said["after"]["Eff"]


def test_a_process_that_needs_no_change_asks_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service whose SystemCallFilter has no @privileged would be killed for it."""
    asked: list[tuple[int, ...]] = []
    monkeypatch.setattr(capabilities, "_set", lambda *sets: asked.append(sets))
    capabilities.put_into_effect()
    with capabilities.lent(*WANTED):
        pass
    assert not asked


def test_ambient_ones_as_systemd_gives_them_are_kept_and_are_its_children_s() -> None:
    if os.geteuid():
        pytest.skip("only root can become another user")
    rights = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in WANTED.values())
    service = [
        *("setpriv", "--reuid=65532", "--regid=65532", "--clear-groups", "--no-new-privs"),
        *(f"--{name}=-all,{rights}" for name in ("inh-caps", "ambient-caps", "bounding-set")),
    ]
    said = run(*service, "/usr/bin/python3")
    assert said["before"] == said["after"] == said["at_the_end"]
    assert said["lent"]["Eff"] == said["later"]["Eff"] == said["at_the_end"]["Amb"] == bits(*WANTED)


@pytest.mark.parametrize(
    ("effective", "wanted", "there"),
    [
        (0xC0_0000_0000, (CAP_BPF, CAP_PERFMON), True),
        (0x80_0000_0000, (CAP_BPF, CAP_PERFMON), False),
        (0x80_0000_0000, (CAP_BPF,), True),
        (0x1FF_FFFF_FFFF, (CAP_SYS_ADMIN, CAP_BPF, CAP_PERFMON), True),
        (0x20_0000, (CAP_SYS_ADMIN,), True),
        (0, (CAP_SYS_ADMIN,), False),
    ],
)
def test_capabilities_are_the_bits_of_the_effective_set(
    tmp_path: Path, effective: int, wanted: tuple[int, ...], there: bool
) -> None:
    path = tmp_path / "status"
    path.write_text(STATUS.format(effective=effective))
    assert capable(*wanted, path=path) is there


def test_capabilities_that_cannot_be_read_are_none(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("Name:\tpython3\n")
    assert not capable(CAP_BPF, path=tmp_path / "status")
    assert not capable(CAP_BPF, path=tmp_path / "none")


def test_a_refusal_names_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "status"
    help_ = "run as root, or with CAP_BPF and CAP_PERFMON"
    for effective, said in (
        (0, f"CAP_BPF and CAP_PERFMON are missing: {help_}"),
        (bits(CAP_PERFMON), f"CAP_BPF is missing: {help_}"),
        (bits(CAP_BPF), f"CAP_PERFMON is missing: {help_}"),
        (bits(CAP_BPF, CAP_PERFMON), "no capability is missing: "),
        (bits(CAP_SYS_ADMIN), "no capability is missing: "),
    ):
        path.write_text(STATUS.format(effective=effective))
        assert why_refused(path).startswith(said)
