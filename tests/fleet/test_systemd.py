# SPDX-License-Identifier: Apache-2.0
"""The units, judged by systemd-analyze, that it would see a mistake in them, and what `make install` installs.

How they do under a running systemd is the lab's (tests/lab/test_systemd.py).
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hmm_exporter import __version__
from hmm_exporter.cli import _parse
from hmm_exporter.config import Config
from hmm_exporter.config_file import load
from tests.fleet.tools import ROOT, run

UNITS = "usr/local/lib/systemd/system"
SERVICE, SOCKET = "hmm-exporter.service", "hmm-exporter.socket"

#: The most that systemd-analyze may say of the service with these drop-ins, in tenths: as it is, and what each changes.
EXPOSURE = {
    (): 20,
    ("hardened",): 16,
    ("socket",): 13,
    ("hardened", "socket"): 9,
    ("paranoid",): 23,
}

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Runs the script of `make install` and `make uninstall`; the folder that it installed into."""

    def install(*words: str, **variables: str) -> Path:
        environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "DESTDIR": str(tmp_path)}
        subprocess.run(
            [ROOT / "scripts/install.sh", *(words or ("install",))],
            env=environment | variables,
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
            timeout=120,
        )
        return tmp_path

    return install


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with this machine's own units and ours, and the programs that they start."""
    shutil.copytree("/usr/lib/systemd/system", tmp_path / "usr/lib/systemd/system", symlinks=True)
    for name in (SERVICE, SOCKET):
        write(tmp_path / UNITS / name, (ROOT / "deploy/systemd" / name).read_text())
    for program in (tmp_path / "usr/local/bin/hmm-exporter", tmp_path / "usr/bin/kill"):
        write(program, "#!/bin/sh\n")
        program.chmod(0o755)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def drop_in(root: Path, name: str, text: str = "") -> None:
    text = text or (ROOT / "deploy/systemd" / f"{name}.conf").read_text()
    write(root / "etc/systemd/system" / f"{SERVICE}.d" / f"{name}.conf", text)


def verify(root: Path) -> tuple[int, str]:
    """The exit status, and what is said of our units."""
    done = run("systemd-analyze", "verify", f"--root={root}", "--man=no", SERVICE, SOCKET, check=False)
    said = done.stdout + done.stderr
    return done.returncode, "\n".join(line for line in said.splitlines() if "hmm-exporter" in line)


def exposure(root: Path, most: int) -> bool:
    """Whether systemd-analyze thinks that the service is exposed that much at most."""
    command = ("systemd-analyze", "security", "--offline=true", f"--root={root}", f"--threshold={most}", SERVICE)
    done = run(*command, check=False)
    assert "Overall exposure level" in done.stdout, done.stdout + done.stderr
    return done.returncode == 0


def test_there_is_a_bound_for_each_drop_in() -> None:
    assert {name for names in EXPOSURE for name in names} == {
        path.stem for path in (ROOT / "deploy/systemd").glob("*.conf")
    }


@pytest.mark.parametrize("drop_ins", EXPOSURE, ids="+".join)
def test_the_units_are_clean_and_exposed_no_more_than_that(root: Path, drop_ins: tuple[str, ...]) -> None:
    for name in drop_ins:
        drop_in(root, name)
    assert verify(root) == (0, "")
    assert exposure(root, EXPOSURE[drop_ins])
    assert not exposure(root, EXPOSURE[drop_ins] - 1)


@pytest.mark.parametrize(
    "mistake",
    [
        "[Service]\nWatchdogSecs=30s\n",
        "[Service]\nType=notfy\n",
        "[Service]\nSystemCallFilter=@system-services\n",
        "[Service]\nExecStart=\nExecStart=/usr/local/bin/hmm-exporte\n",
        "[Unit]\nRequires=hmm-exporter.sockett\n",
    ],
)
def test_a_mistake_is_seen(root: Path, mistake: str) -> None:
    drop_in(root, "mistake", mistake)
    status, said = verify(root)
    assert status or said


@pytest.mark.parametrize(
    "line",
    ["DynamicUser=no", "RestrictNamespaces=no", "MemoryDenyWriteExecute=no", "CapabilityBoundingSet=CAP_SYS_ADMIN"],
)
def test_whatever_is_taken_back_costs_exposure(root: Path, line: str) -> None:
    drop_in(root, "mistake", f"[Service]\n{line}\n")
    assert not exposure(root, EXPOSURE[()])


def commands() -> list[list[str]]:
    """What the units start, with the flags of the environment file's example."""
    files = [ROOT / "deploy/systemd" / name for name in (SERVICE, "socket.conf")]
    lines = [line for file in files for line in file.read_text().splitlines()]
    return [shlex.split(line.partition("=")[2]) for line in lines if line.startswith("ExecStart=/")]


def test_the_units_start_the_command_with_flags_that_it_knows() -> None:
    assert len(commands()) == 2
    for program, *flags, arguments in commands():
        assert (program, arguments) == ("/usr/local/bin/hmm-exporter", "$ARGS")
        given, _ = _parse(flags)
        assert given.config_file == "/etc/hmm-exporter/config.yaml"


def test_the_environment_files_example_is_flags_that_the_command_knows() -> None:
    lines = (ROOT / "deploy/systemd/hmm-exporter.env").read_text().splitlines()
    assignments = [line.lstrip("# ") for line in lines if "ARGS=" in line]
    assert len(assignments) == 2
    for assignment in assignments:
        _parse(shlex.split(assignment.partition("=")[2]))


def test_the_socket_is_the_daemons_default_port() -> None:
    assert (
        f"ListenStream={Config().web.listen_addresses[0].lstrip(':')}" in (ROOT / "deploy/systemd" / SOCKET).read_text()
    )


def test_what_is_installed_runs_and_is_whole(install: Install) -> None:
    root = install()
    launcher = root / "usr/local/bin/hmm-exporter"
    here = launcher.read_text().replace('"/usr/local', f'"{root}/usr/local')
    said = run("/usr/bin/python3", "-I", "-c", here.replace("sys.exit(main())", "sys.exit(main(['--version']))"))
    assert said.stdout.startswith(f"hmm-exporter {__version__} ")
    package = root / "usr/local/lib/hmm-exporter/hmm_exporter"
    for source in (ROOT / "hmm_exporter").rglob("*.[pch]*"):
        if source.is_file() and "__pycache__" not in source.parts:
            assert (package / source.relative_to(ROOT / "hmm_exporter")).read_bytes() == source.read_bytes()
    # The daemon cannot write others, so that none may become stale by being copied (PEP 552).
    assert {path.read_bytes()[4:8] for path in package.rglob("*.pyc")} == {b"\1\0\0\0"}
    assert load(root / "etc/hmm-exporter/config.yaml") == Config()
    assert not [path for path in root.rglob("*") if path.is_file() and not os.stat(path).st_mode & 0o004]


def test_another_prefix_is_in_all_that_names_it(install: Install) -> None:
    root = install(PREFIX="/opt/hmm", UNITDIR="/etc/systemd/system")
    files = [
        root / "opt/hmm/bin/hmm-exporter",
        root / "etc/systemd/system" / SERVICE,
        *(root / "opt/hmm/share").rglob("*"),
    ]
    texts = [file.read_text() for file in files if file.is_file()]
    assert len(texts) == 5
    assert not [text for text in texts if "/usr/local" in text]
    assert "ExecStart=/opt/hmm/bin/hmm-exporter " in texts[1]


def test_installing_again_keeps_the_configuration_and_drops_what_is_no_longer_there(install: Install) -> None:
    root = install()
    for name in ("config.yaml", "hmm-exporter.env"):
        write(root / "etc/hmm-exporter" / name, "# mine\n")
    stale = root / "usr/local/lib/hmm-exporter/hmm_exporter/stale.py"
    stale.touch()
    install()
    assert not stale.exists()
    assert [path.read_text() for path in (root / "etc/hmm-exporter").iterdir()] == ["# mine\n"] * 2


def test_uninstalling_leaves_the_configuration_and_nothing_else(install: Install) -> None:
    install()
    root = install("uninstall")
    left = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    assert left == ["etc/hmm-exporter/config.yaml", "etc/hmm-exporter/hmm-exporter.env"]


def test_make_passes_its_variables_on() -> None:
    for target in ("install", "uninstall"):
        lines = run("make", "--dry-run", target, "PREFIX=/p", "DESTDIR=/d", "UNITDIR=/u").stdout.splitlines()
        (line,) = [line for line in lines if "install.sh" in line]
        assert all(part in line for part in ('PREFIX="/p"', 'DESTDIR="/d"', 'UNITDIR="/u"', f"install.sh {target}"))
