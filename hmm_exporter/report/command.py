# SPDX-License-Identifier: Apache-2.0
"""COMMAND: the program whose lifetime a report covers, and the wait for it, a signal, or the time.

What is done at each moment is ``report.run``'s.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from hmm_exporter.errors import StartError

# In the order in which the kernel delivers them: a Ctrl-C is seen before the end that it brings to COMMAND.
_WAITED_FOR = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
_GRACE_SECONDS = 10.0
"""From SIGTERM to SIGKILL, as systemd does it, but for somebody who waits."""


class Waiter:
    """Holds back the signals that end a report, from `with` to the end of its block, and waits for them."""

    def __init__(self, command: Sequence[str], output: int | None) -> None:
        """``output``: the descriptor that COMMAND's stdout is; None for this process's."""
        self._command = tuple(command)
        self._output = output
        self._process: subprocess.Popen[bytes] | None = None
        self.interrupted = False
        """Whether a signal wants the report to end."""

    def __enter__(self) -> Waiter:
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)
        try:
            if self._command:
                self._process = self._start()
        except BaseException:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        # One that came while the report was written must not end it now.
        while signal.sigtimedwait(_WAITED_FOR, 0):
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def status(self) -> int | None:
        """COMMAND's exit status, as a shell has it; None without COMMAND, or while it runs."""
        code = self._process.poll() if self._process else None
        return code if code is None or code >= 0 else 128 - code

    def wait(self, until: float) -> bool:
        """Sleep until that time (monotonic). True if COMMAND ended, or a signal wants the report to end."""
        while True:
            left = until - time.monotonic()
            got = signal.sigtimedwait(_WAITED_FOR, max(left, 0))
            self.interrupted |= got is not None and got.si_signo != signal.SIGCHLD
            if self.interrupted or self.status is not None:
                return True
            if left <= 0:
                return False

    def stop(self) -> None:
        """End COMMAND, if it still runs."""
        if self._process is None:
            return
        # A terminal's Ctrl-C has reached COMMAND as well: it may be about to end.
        if self._ends_within(1.0 if self.interrupted else 0.0):
            return
        self._process.terminate()
        if not self._ends_within(_GRACE_SECONDS):
            self._process.kill()
            self._process.wait()

    def _ends_within(self, seconds: float) -> bool:
        assert self._process
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.poll() is not None

    def _start(self) -> subprocess.Popen[bytes]:
        restore: Callable[[], object] = lambda: signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)  # noqa: E731
        sys.stdout.flush()
        try:
            # The process has one thread, so that a function of Python's may run after fork.
            return subprocess.Popen(self._command, stdout=self._output, preexec_fn=restore)
        except OSError as error:
            raise StartError(f"cannot run {self._command[0]}: {error.strerror}") from None
