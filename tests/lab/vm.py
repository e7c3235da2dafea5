# SPDX-License-Identifier: Apache-2.0
"""A lab machine: boots the image, runs commands in it, moves files, and dies with its context.

Belongs here: the machine's life and what goes in and out of it. Does not belong here: how an image is made (image.py),
which machine it is (emulator.py), the agent's protocol (agent.py), anything about HMM (guest.py).
`python3 -m tests.lab.vm 'command'` boots a machine, runs one command in it and prints what it says.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import shlex
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tests.lab.agent import AgentError, AgentGoneError, Exit, GuestAgent
from tests.lab.builder import ImageError
from tests.lab.command import CommandError, GuestProcess, Result, pause
from tests.lab.emulator import GUEST_PORT, INIT, SYSTEMD, Emulator, VirtualMachineError
from tests.lab.image import Image, ensure_image
from tests.lab.recipe import RecipeError

#: What a checkout may hold and no guest needs.
IGNORED_NAMES = frozenset(
    {".git", ".venv", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis"}
)

#: The agent gives a process this environment and nothing else.
GUEST_ENVIRONMENT = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LANG=C.UTF-8",
)

#: Each command's number, in its environment: whatever it starts inherits it, and can be found by it.
_MARK = "LAB_COMMAND"

#: Well below the agent's limit on a process's output.
_CHUNK_BYTES = 4 * 2**20


class VirtualMachine:
    """One machine, from `with` to the end of its block. It is never stopped gently: nothing in it is kept.

    Commands may be run from several threads at once.
    """

    def __init__(
        self,
        image: Image | None = None,
        memory_mib: int = 4096,
        processors: int = 1,
        kernel_arguments: Sequence[str] = (),
        boot_timeout: float = 180.0,
        init: str = INIT,
        disks: Sequence[Path] = (),
    ) -> None:
        self.image = image or ensure_image()
        self.boot_seconds = 0.0
        self._temporary = tempfile.TemporaryDirectory(prefix="hmm-exporter-lab-")
        folder = Path(self._temporary.name)
        self._emulator = Emulator(self.image, folder, memory_mib, processors, kernel_arguments, init, disks)
        self._boot_timeout = boot_timeout
        self._numbers = itertools.count(1)
        self._marks: dict[int, int] = {}

    @property
    def host_port(self) -> int:
        """The port of 127.0.0.1 that leads to the guest's GUEST_PORT."""
        return self._emulator.host_port

    def __enter__(self) -> VirtualMachine:
        start = time.monotonic()
        command = self._emulator.command()
        with self._emulator.logs[0].open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self._agent = self._connect(start + self._boot_timeout)
            self._agent.synchronise(start + self._boot_timeout - time.monotonic())
        except AgentError as error:
            console = self.console()
            self._end()
            raise VirtualMachineError(f"the machine did not boot: {error}\n{_tail(console)}") from error
        except BaseException:
            self._end()
            raise
        self.boot_seconds = time.monotonic() - start
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._agent.close()
        self._end()

    def console(self) -> str:
        """What the emulator and the guest's kernel have written so far."""
        return "".join(path.read_text(errors="replace") for path in self._emulator.logs if path.exists())

    def run(self, command: str, timeout: float = 60.0, check: bool = True, stdin: bytes = b"") -> Result:
        """Runs a shell command to its end; with `check`, a status other than 0 is a CommandError."""
        start = time.monotonic()
        end, timely = self._run(command, timeout, stdin)
        texts = (end.stdout.decode(errors="replace"), end.stderr.decode(errors="replace"))
        result = Result(command, end.status, *texts, time.monotonic() - start)
        if not timely:
            raise CommandError(f"killed after {timeout:g} s: {result}")
        if check and result.status:
            raise CommandError(str(result))
        return result

    def start(self, command: str) -> GuestProcess:
        """Starts a shell command and returns at once. Say `exec program` where signals must reach the program."""
        log = f"/run/lab/{next(self._numbers)}"
        pid = self._execute(f"exec >{log}.out 2>{log}.err </dev/null\n{command}", capture=False)
        return GuestProcess(self, command, pid, log)

    def push(self, source: Path, guest_path: str) -> None:
        """Copies a file to the guest's path, or what a folder holds into the guest's folder, with modes."""
        parent, name = (guest_path, ".") if source.is_dir() else guest_path.rsplit("/", 1)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
            archive.add(source, arcname=name, filter=_for_guest)
        data = packed.getvalue()
        archive_path = f"/run/lab/{next(self._numbers)}.tar.gz"
        for offset in range(0, len(data), _CHUNK_BYTES):
            self.run(f"cat >>{archive_path}", stdin=data[offset : offset + _CHUNK_BYTES])
        folder = shlex.quote(parent or "/")
        self.run(f"mkdir -p {folder} && tar -xzf {archive_path} -C {folder} && rm {archive_path}", timeout=300)

    def read(self, guest_path: str) -> bytes:
        """A guest file's content."""
        content = b""
        while True:
            quoted = shlex.quote(guest_path)
            part, _ = self._run(f"test -r {quoted} && tail -c +{len(content) + 1} {quoted} | head -c {_CHUNK_BYTES}")
            if part.status:
                raise CommandError(f"cannot read the guest's {guest_path}")
            content += part.stdout
            if len(part.stdout) < _CHUNK_BYTES:
                return content

    def pull(self, guest_path: str, target: Path) -> None:
        """Copies a guest's file or folder to the path on the host."""
        archive_path = f"/run/lab/{next(self._numbers)}.tar.gz"
        parent, name = guest_path.rstrip("/").rsplit("/", 1)
        self.run(f"tar -czf {archive_path} -C {shlex.quote(parent or '/')} {shlex.quote(name)}", timeout=300)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as unpacked:
            with tarfile.open(fileobj=io.BytesIO(self.read(archive_path))) as archive:
                archive.extractall(unpacked, filter="data")
            (Path(unpacked) / name).rename(target)
        self.run(f"rm {archive_path}")

    def outcome(self, pid: int) -> Exit | None:
        """How a command ended, None while it runs; told once."""
        try:
            return self._agent.outcome(pid)
        except AgentError as error:
            raise self._explained(error) from error

    def kill(self, pid: int) -> None:
        """Kills a command with all that it started."""
        mark = f"{_MARK}={self._marks[pid]}"
        self.run(f"grep -lzx {mark} /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3 | xargs -r kill -KILL", check=False)

    def _run(self, command: str, timeout: float = 60.0, stdin: bytes = b"") -> tuple[Exit, bool]:
        start = time.monotonic()
        pid = self._execute(command, stdin)
        timely = True
        while (end := self.outcome(pid)) is None:
            if timely and time.monotonic() - start > timeout:
                timely = False
                self.kill(pid)
            pause(start)
        return end, timely

    def _execute(self, command: str, stdin: bytes = b"", capture: bool = True) -> int:
        mark = next(self._numbers)
        environment = [*GUEST_ENVIRONMENT, f"{_MARK}={mark}"]
        try:
            pid = self._agent.execute(["/bin/sh", "-c", command], environment, stdin, capture)
        except AgentError as error:
            raise self._explained(error) from error
        self._marks[pid] = mark
        return pid

    def _explained(self, error: AgentError) -> Exception:
        if not isinstance(error, AgentGoneError):
            return CommandError(f"the guest agent: {error}")
        # The socket closes a little before the process ends, and the console's last lines are the ones that matter.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        return VirtualMachineError(f"the machine died: {error}\n{_tail(self.console())}")

    def _connect(self, deadline: float) -> GuestAgent:
        while True:
            try:
                return GuestAgent(self._emulator.agent_socket, lambda: self._process.poll() is None)
            except OSError as error:  # the emulator has not made the socket yet
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise AgentError(f"the emulator did not start: {error}") from error
            time.sleep(0.01)

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._temporary.cleanup()


def _for_guest(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if Path(member.name).name in IGNORED_NAMES:
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _tail(text: str, lines: int = 40) -> str:
    return "\n".join(text.splitlines()[-lines:])


def main() -> int:
    parser = argparse.ArgumentParser(description="Boot a lab machine, run one command in it, print what it says.")
    parser.add_argument("command")
    parser.add_argument("--push", metavar="PATH", type=Path, help="a file or folder, copied to /tmp/NAME first")
    parser.add_argument("--systemd", action="store_true", help="with systemd as the first process")
    parser.add_argument("--disk", metavar="IMAGE", type=Path, action="append", default=[], help="one disk more")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for the command (default: 600)")
    options = parser.parse_args()
    try:
        with VirtualMachine(init=SYSTEMD if options.systemd else INIT, disks=options.disk) as machine:
            forward = f"127.0.0.1:{machine.host_port} leads to its port {GUEST_PORT}"
            print(f"booted in {machine.boot_seconds:.1f} s; {forward}", flush=True)
            if options.push:
                machine.push(options.push, f"/tmp/{options.push.resolve().name}")
            result = machine.run(options.command, timeout=options.timeout, check=False)
    except (CommandError, ImageError, RecipeError, VirtualMachineError) as error:
        print(f"vm.py: {error}", file=sys.stderr)
        return 1
    print(result.stdout, end="", flush=True)
    print(result.stderr, end="", file=sys.stderr)
    print(f"status {result.status} after {result.seconds:.1f} s")
    return result.status


if __name__ == "__main__":
    sys.exit(main())
