# SPDX-License-Identifier: Apache-2.0
"""COMMAND and the wait for it, with real processes and real signals."""

from __future__ import annotations

import os
import signal
import time

import pytest

from hmm_exporter.errors import StartError
from hmm_exporter.report.command import Waiter

FOR_LONG = 60.0


def soon() -> float:
    return time.monotonic() + FOR_LONG


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill $$", 143)])
def test_the_status_is_the_commands_as_a_shell_has_it(script: str, status: int) -> None:
    with Waiter(["sh", "-c", script], None) as waiter:
        assert waiter.wait(soon())
        assert waiter.status == status
        assert not waiter.interrupted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_wait_and_is_not_raised(number: signal.Signals) -> None:
    with Waiter((), None) as waiter:
        os.kill(os.getpid(), number)
        assert waiter.wait(soon())
        assert waiter.interrupted
        assert waiter.status is None
        os.kill(os.getpid(), number)  # a second one, while the report is written
    assert number not in signal.sigpending()


def test_the_time_ends_the_wait_with_nothing_ended() -> None:
    with Waiter(["sleep", "600"], None) as waiter:
        assert not waiter.wait(time.monotonic())
        assert not waiter.wait(time.monotonic() + 0.01)
        assert waiter.status is None


def test_a_command_that_still_runs_at_the_end_is_terminated() -> None:
    with Waiter(["sleep", "600"], None) as waiter:
        pid = waiter.pid
        assert pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert waiter.status == 128 + signal.SIGTERM


def test_the_command_has_the_signals_that_the_wait_holds_back() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with Waiter(["sh", "-c", 'trap "exit 5" INT; kill -INT $$; sleep 1'], None) as waiter:
        assert waiter.wait(soon())
        assert waiter.status == 5
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_the_commands_output_goes_where_it_shall() -> None:
    reader, writer = os.pipe()
    with Waiter(["echo", "of the command"], writer) as waiter:
        assert waiter.wait(soon())
    os.close(writer)
    with os.fdopen(reader) as output:
        assert output.read() == "of the command\n"


def test_a_command_that_cannot_be_run_is_named_and_nothing_stays_held_back() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with pytest.raises(StartError, match=r"^cannot run /nonexistent: No such file or directory$"):
        Waiter(["/nonexistent"], None).__enter__()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
