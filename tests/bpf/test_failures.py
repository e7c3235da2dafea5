# SPDX-License-Identifier: Apache-2.0
"""What goes wrong at the start is one clear line, or a probe's reason; and nothing is left behind."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from hmm_exporter.catalog.probes import PROBES
from tests.process import ROOT, SIMULATOR, Exporter, issue_exactly


def run(
    folder: Path,
    configuration: Mapping[str, Any],
    arguments: Sequence[str] = (),
    prefix: Sequence[str] = (),
    package: Path = ROOT,
) -> subprocess.CompletedProcess[str]:
    """The exporter until it ends by itself."""
    settings = {"web": {"listen_addresses": ["127.0.0.1:0"]}} | dict(configuration)
    file = folder / "hmm-exporter.yaml"
    file.write_text(yaml.safe_dump(settings))
    return subprocess.run(
        [*prefix, sys.executable, "-m", "hmm_exporter", "--config.file", str(file), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=package,
        env={**os.environ, "PYTHONPATH": str(package)},
    )


def the_error(done: subprocess.CompletedProcess[str]) -> str:
    """The one line at level error; asserts that the start failed without a traceback."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if " level=error " in line]
    assert len(lines) == 1, done.stderr
    return lines[0]


def script(folder: Path, body: str) -> str:
    """A program that stands in for the loader's Python."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def simulated(**sections: Any) -> dict[str, Any]:
    return {"simulator": str(SIMULATOR), **sections}


def programs_of(pid: int) -> set[int]:
    """Ids of the BPF programs that a process holds."""
    ids = set()
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        ids |= {int(line.split()[1]) for line in entry.read_text().splitlines() if line.startswith("prog_id:")}
    return ids


def gone(programs: set[int]) -> bool:
    """Whether the kernel's own list has none of them any more; it frees programs a little after their end."""
    for _ in range(100):
        if not programs & _loaded():
            return True
        time.sleep(0.1)
    return False


def _loaded() -> set[int]:
    libc = ctypes.CDLL(None, use_errno=True)
    ids: set[int] = set()
    last = 0
    while True:
        attributes = ctypes.create_string_buffer(struct.pack("<III", last, 0, 0), 12)
        if libc.syscall(321 if os.uname().machine == "x86_64" else 280, 11, attributes, 12) < 0:
            return ids
        last = struct.unpack_from("<I", attributes.raw, 4)[0]
        ids.add(last)


def test_without_bcc_the_error_names_the_package_to_install(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    done = run(tmp_path, simulated(loader={"python": str(tmp_path / "venv/bin/python")}))
    assert "No module named 'bcc'" in the_error(done)
    assert "python3-bpfcc" in the_error(done)


def test_a_loader_that_is_killed_is_named_with_its_signal(tmp_path: Path) -> None:
    done = run(tmp_path, simulated(loader={"python": script(tmp_path, "kill -KILL $$")}))
    assert "loader: killed by SIGKILL while compiling" in the_error(done)


def test_a_loader_that_hangs_is_ended_by_its_time_limit(tmp_path: Path) -> None:
    done = run(tmp_path, simulated(loader={"python": script(tmp_path, "exec sleep 600"), "timeout": "1s"}))
    assert "loader: bcc did not compile within 1 s (loader.timeout)" in the_error(done)


def test_a_program_that_does_not_compile_is_shown_by_file_and_line(tmp_path: Path) -> None:
    package = tmp_path / "copy"
    shutil.copytree(ROOT / "hmm_exporter", package / "hmm_exporter")
    broken = package / "hmm_exporter/bpf/program/migration.c"
    text = broken.read_text()
    line = next(at for at, each in enumerate(text.splitlines(), 1) if each.startswith("INLINE u8 class_of"))
    broken.write_text(text.replace("u64 fault_page)", "u64 fault_pgae)", 1))
    done = run(tmp_path, simulated(), package=package)
    assert re.search(rf"loader: .*migration\.c:{line + 2}:\d+: error: ", the_error(done))


def test_a_port_in_use_ends_the_second_exporter_at_once(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    with Exporter(tmp_path / "first") as first:
        address = first.url.removeprefix("http://")
        done = run(tmp_path, simulated(web={"listen_addresses": [address]}))
        assert f"cannot listen on {address}: address already in use" in the_error(done)
        assert first.scrape().get("hmm_exporter_books_balanced") == 1


def test_without_privilege_the_error_says_which_is_needed(tmp_path: Path) -> None:
    done = run(tmp_path, simulated(), prefix=["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"])
    assert "CAP_BPF and CAP_PERFMON" in the_error(done)


def test_a_missing_simulator_is_named_with_what_builds_it(tmp_path: Path) -> None:
    done = run(tmp_path, {"simulator": str(tmp_path / "nothing")})
    assert "nothing.btf: No such file or directory: build it with make -C tests/simulator" in the_error(done)


def _mounted(folder: Path, target: str) -> list[str]:
    """A command prefix under which ``folder`` hides ``target``."""
    return ["unshare", "--mount", "sh", "-c", f'mount --bind {folder} {target} && exec "$@"', "sh"]


def test_without_btf_it_serves_and_every_probe_says_why(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with Exporter(tmp_path, {"simulator": None}, prefix=_mounted(empty, "/sys/kernel/btf")) as exporter:
        samples = exporter.scrape()
        assert samples.sum("hmm_exporter_kernel_info", btf="no") == 1
        states = {dict(its)["state"] for its in samples.named("hmm_exporter_probe_info")}
        assert states == {"error", "disabled"}
        assert "CONFIG_DEBUG_INFO_BTF" in exporter.get("/")
        assert not [name for name in samples.names() if name.startswith("hmm_migration")]


def hidden(kallsyms: str) -> str:
    """As to a reader without the right to see addresses."""
    return re.sub(r"^[0-9a-f]{16}", "0" * 16, kallsyms, flags=re.MULTILINE)


def test_with_hidden_kallsyms_it_counts_all_the_same_and_calls_unknown_what_it_cannot_name(tmp_path: Path) -> None:
    program = tmp_path / "hmm-simulator"
    for suffix in ("", ".btf", ".kallsyms", ".iomem"):
        shutil.copy(f"{SIMULATOR}{suffix}", f"{program}{suffix}")
    symbols = tmp_path / "hmm-simulator.kallsyms"
    # What Python has read ahead it keeps: of a kernel's, a part that names nobody.
    ahead = "".join(f"{1:016x} a filler_{number}\n" for number in range(10_000))
    symbols.write_text(ahead + symbols.read_text())
    with Exporter(tmp_path, {"simulator": str(program)}) as exporter:
        # The addresses are needed to attach the simulator's uprobes, so they are hidden after the start.
        symbols.write_text(hidden(symbols.read_text()))
        issued = issue_exactly(1000, program=program)
        samples = exporter.scrape()
    for metric, kind, label in (
        ("hmm_migrations_started_total", "migrations", "pgmap_owner"),
        ("hmm_range_faults_total", "range_faults", "driver"),
    ):
        assert samples.sum(metric) == sum(event["count"] for event in issued[kind]) > 0
        named = {dict(its)[label] for its in samples.nonzero(metric)}
        assert {name.partition("-")[0] for name in named} <= {"unknown", "none", "other"}
        assert "unknown" in {name.partition("-")[0] for name in named}
    assert samples.get("hmm_exporter_books_balanced") == 1


def test_check_says_that_kallsyms_is_hidden_and_what_that_costs(tmp_path: Path) -> None:
    kallsyms = tmp_path / "kallsyms"
    kallsyms.write_text(hidden(Path(f"{SIMULATOR}.kallsyms").read_text()))
    check = run(tmp_path, {}, ["--check"], prefix=_mounted(kallsyms, "/proc/kallsyms"))
    assert check.returncode == 0, check.stderr
    assert (
        "symbols: drivers and callers will be called unknown: /proc/kallsyms shows no addresses: give CAP_SYSLOG"
        in (check.stdout)
    )


def test_on_a_kernel_without_hmm_it_serves_with_every_reason(tmp_path: Path) -> None:
    with Exporter(tmp_path, {"simulator": None}) as exporter:
        info = exporter.scrape().named("hmm_exporter_probe_info")
        assert len(info) == len(PROBES)
        if not Path("/sys/kernel/btf/vmlinux").exists():
            pytest.skip("this machine's kernel has no BTF")
        for its in info:
            probe = dict(its)
            if probe["state"] != "attached":
                assert probe["probe"] in exporter.get("/")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly_and_detaches_everything(tmp_path: Path, number: int) -> None:
    with Exporter(tmp_path) as exporter:
        programs = programs_of(exporter.process.pid)
        assert programs
        assert programs <= _loaded()
        assert exporter.stop(number) == 0
        assert "level=error" not in exporter.log
    assert gone(programs)


def test_sigkill_leaves_nothing_attached_and_the_next_start_is_clean(tmp_path: Path) -> None:
    with Exporter(tmp_path) as exporter:
        programs = programs_of(exporter.process.pid)
        assert programs
        exporter.stop(signal.SIGKILL)
    assert gone(programs)
    with Exporter(tmp_path) as exporter:
        assert exporter.scrape().get("hmm_exporter_books_balanced") == 1


def test_the_serving_process_maps_no_llvm_and_no_bcc(tmp_path: Path) -> None:
    with Exporter(tmp_path) as exporter:
        mapped = Path(f"/proc/{exporter.process.pid}/maps").read_text()
        assert not re.search(r"libLLVM|libclang|libbcc|libbpf", mapped)


def test_no_child_but_the_helper_stays_when_it_serves(tmp_path: Path) -> None:
    with Exporter(tmp_path) as exporter:
        pid = exporter.process.pid
        (helper,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        assert Path(f"/proc/{helper}/comm").read_text() == "hmm-helper\n"


HANGING_LOADER = """
import os, pathlib, runpy, sys, time

class HangsInBcc:
    def find_spec(self, name, *_):
        if name == "bcc":
            pathlib.Path("{marker}").write_text(str(os.getpid()))
            time.sleep(600)

sys.meta_path.insert(0, HangsInBcc())
runpy.run_path("{loader}", run_name="__main__")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_end_while_it_compiles_ends_the_loader_too(tmp_path: Path, number: int) -> None:
    marker = tmp_path / "loader.pid"
    hanging = tmp_path / "hanging.py"
    hanging.write_text(HANGING_LOADER.format(marker=marker, loader=ROOT / "hmm_exporter/bpf/loader.py"))
    python = script(tmp_path, f"exec /usr/bin/python3 -I {hanging}")
    file = tmp_path / "hmm-exporter.yaml"
    file.write_text(yaml.safe_dump(simulated(web={"listen_addresses": ["127.0.0.1:0"]}, loader={"python": python})))
    process = subprocess.Popen(
        [sys.executable, "-m", "hmm_exporter", "--config.file", str(file)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    while not (marker.exists() and marker.read_text()):
        assert process.poll() is None
    process.send_signal(number)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == (0 if number == signal.SIGTERM else -signal.SIGKILL), stderr
    assert "Traceback" not in stderr
    for _ in range(100):
        if not Path(f"/proc/{marker.read_text()}").exists():
            break
        time.sleep(0.05)
    else:
        raise AssertionError("the loader lives on")
