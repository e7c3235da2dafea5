# SPDX-License-Identifier: Apache-2.0
"""Loads one program into the kernel; where that, or attaching it, fails, says why in a line.

What is loaded and where it is attached is ``bpf.attach``'s.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from hmm_exporter import capabilities
from hmm_exporter.bpf import syscall
from hmm_exporter.bpf.code import Code, function_types, functions
from hmm_exporter.bpf.plan import DENIED, ERROR

_ENOTSUPP = 524  # include/linux/errno.h; not for user space, and yet what a trampoline fails with
_LOG_BYTES = 16 << 20


class NotAttached(Exception):
    """One probe could not be attached in one way: the state it is in, and why."""

    def __init__(self, state: str, reason: str) -> None:
        super().__init__(reason)
        self.state = state
        self.reason = reason


def load(kind: int, code: Code, name: str, attach_type: int = 0, btf_id: int = 0) -> int:
    """fd of the program. Raises NotAttached: not permitted, or what the verifier says last."""
    btf_fd = syscall.btf_load(function_types()) if code.callback_at else 0
    try:
        return _load(kind, code, name, attach_type, btf_id, btf_fd)
    finally:
        if btf_fd:
            os.close(btf_fd)


def _load(kind: int, code: Code, name: str, attach_type: int, btf_id: int, btf_fd: int) -> int:
    arguments = (kind, code.instructions, name, attach_type, btf_id)
    try:
        return syscall.prog_load(*arguments, functions=functions(code), btf_fd=btf_fd)[0]
    except OSError as refused:
        if refused.errno in (errno.EPERM, errno.ENOTSUP, _ENOTSUPP):
            raise why_not_attached(refused, "load") from None
        if refused.errno == errno.E2BIG:  # BPF_COMPLEXITY_LIMIT_INSNS; its log would be of many megabytes
            raise NotAttached(ERROR, "too complex for this kernel's verifier (a million instructions)") from None
    # Once more with the verifier's log, which costs its size and is only wanted now.
    try:
        return syscall.prog_load(*arguments, _LOG_BYTES, functions(code), btf_fd)[0]
    except OSError as refused:
        lines = [line for line in str(refused.filename or "").splitlines() if line and "processed" not in line]
        raise NotAttached(ERROR, f"the verifier refuses it: {lines[-1] if lines else refused.strerror}") from None


def why_not_attached(error: OSError, kind: str) -> NotAttached:
    """``kind`` is that of a link, or "load"."""
    if error.errno in (errno.EPERM, errno.EACCES):
        return NotAttached(DENIED, _why_denied(kind))
    if error.errno in (errno.ENOTSUP, _ENOTSUPP, errno.EINVAL) and kind in ("load", "fentry", "fexit"):
        return NotAttached(ERROR, "this kernel cannot trace the function so (CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS)")
    if error.errno == errno.EBUSY:
        return NotAttached(ERROR, "the function is taken: another tool modifies it, or too many programs trace it")
    return NotAttached(ERROR, f"{kind}: {error.strerror}")


def _why_denied(kind: str) -> str:
    if kind in ("load", "fentry", "fexit", "tracepoint"):
        return f"not permitted: {capabilities.why_refused()}"
    paranoid = _paranoid()
    if paranoid > 2:
        return (
            f"perf_event_open is not permitted: kernel.perf_event_paranoid is {paranoid};"
            " set it to 2, or give CAP_SYS_ADMIN"
        )
    return "perf_event_open is not permitted: give CAP_PERFMON, and a seccomp profile and lockdown that allow it"


def _paranoid(path: Path = Path("/proc/sys/kernel/perf_event_paranoid")) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
