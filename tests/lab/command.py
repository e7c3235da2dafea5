# SPDX-License-Identifier: Apache-2.0
"""A command in the guest: what it left when it has ended, and a handle on it while it runs beside others.

Belongs here: waiting for commands, their output, their end. Does not belong here: how a command gets into the guest
(vm.py, agent.py), and which commands are useful (guest.py).
"""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.lab.agent import Exit
    from tests.lab.vm import VirtualMachine


def pause(start: float) -> None:
    """Sleeps before the guest is asked again: the longer a command has run already, the longer.

    Asked a hundred times a second, an emulated processor is slower by a sixth: a measured workload must not feel that.
    """
    time.sleep(min(0.2, max(0.01, (time.monotonic() - start) / 10)))


class CommandError(RuntimeError):
    """A command in the guest failed or took too long; the text has its output."""


@dataclass(frozen=True)
class Result:
    """What a command of the guest left."""

    command: str
    status: int
    stdout: str
    stderr: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.command!r}: status {self.status} after {self.seconds:.1f} s\n{self.stdout}{self.stderr}"


class GuestProcess:
    """A command that runs in the guest beside others. Its output can be read at any time."""

    def __init__(self, machine: VirtualMachine, command: str, pid: int, log: str) -> None:
        self.command = command
        self.pid = pid
        self._machine = machine
        self._log = log
        self._start = time.monotonic()
        self._exit: Exit | None = None

    def running(self) -> bool:
        self._exit = self._exit or self._machine.outcome(self.pid)
        return self._exit is None

    def stdout(self) -> str:
        return self._machine.read(f"{self._log}.out").decode(errors="replace")

    def stderr(self) -> str:
        return self._machine.read(f"{self._log}.err").decode(errors="replace")

    def signal(self, name: str) -> None:
        """Sends a signal to the command alone, not to its children."""
        self._machine.run(f"kill -{name} {self.pid}", check=False)

    def wait(self, timeout: float = 60.0) -> Result:
        start = time.monotonic()
        while self.running():
            if time.monotonic() - start > timeout:
                self._machine.kill(self.pid)
                raise CommandError(f"{self.command!r} runs after {timeout:g} s still:\n{self.stdout()}{self.stderr()}")
            pause(start)
        status = self._exit.status if self._exit else 0
        return Result(self.command, status, self.stdout(), self.stderr(), time.monotonic() - self._start)

    def wait_for_output(self, text: str, timeout: float = 60.0) -> None:
        """Waits until the command has written a line with the text, for example that it is ready."""
        # The guest waits, not the host: reading the logs again and again would slow the command down by half.
        follow = f"tail -q -n +1 --pid={self.pid} -f {self._log}.out {self._log}.err"
        try:
            self._machine.run(f"{follow} | grep -qF -m 1 -e {shlex.quote(text)}", timeout)
        except CommandError as error:
            state = "runs still" if self.running() else "has ended"
            written = self.stdout() + self.stderr()
            raise CommandError(f"{self.command!r} {state} and has not written {text!r}:\n{written}") from error

    def stop(self, name: str = "TERM", timeout: float = 60.0) -> Result:
        self.signal(name)
        return self.wait(timeout)
