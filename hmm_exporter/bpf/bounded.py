# SPDX-License-Identifier: Apache-2.0
"""subprocess.run for a child that may do anything: bounded in time, and in what is kept of its output.

Whoever starts a program with a privileged daemon's memory limit must not be ended by what that prints.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Mapping, Sequence

MOST = 16 << 20
"""Bytes of stdout, and of stderr. All programs with everything on are some 400 kB."""
_CHUNK = 1 << 16


class TooMuchError(Exception):
    """The child wrote more than MOST bytes, and was killed."""


def run(
    command: Sequence[str], text: str, timeout: float, cwd: str, env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """As subprocess.run, which raises OSError and TimeoutExpired, with *text* for stdin; and TooMuchError."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=cwd, env=env) as child:
        try:
            deadline = time.monotonic() + timeout
            out, err = _converse(child, text.encode(), deadline)
            child.wait(max(deadline - time.monotonic(), 0))
        except BaseException:  # a signal to stop among them
            child.kill()
            raise
    return subprocess.CompletedProcess(command, child.returncode, _text(out), _text(err))


def _text(output: bytes) -> str:
    return output.decode("utf-8", "backslashreplace")


def _converse(child: subprocess.Popen[bytes], given: bytes, deadline: float) -> tuple[bytes, bytes]:
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    said = {child.stdout: bytearray(), child.stderr: bytearray()}
    with selectors.DefaultSelector() as selector:
        os.set_blocking(child.stdin.fileno(), False)
        selector.register(child.stdin, selectors.EVENT_WRITE)
        for each in said:
            selector.register(each, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired(child.args, left)
            for key, _ in selector.select(left):
                if key.fileobj is child.stdin:
                    try:
                        given = given[os.write(key.fd, given) :]
                    except BrokenPipeError:
                        given = b""
                    if not given:
                        selector.unregister(child.stdin)
                        child.stdin.close()
                    continue
                data = os.read(key.fd, _CHUNK)
                kept = said[key.fileobj]  # type: ignore[index]
                kept += data
                if len(kept) > MOST:
                    raise TooMuchError
                if not data:
                    selector.unregister(key.fileobj)
    return bytes(said[child.stdout]), bytes(said[child.stderr])
