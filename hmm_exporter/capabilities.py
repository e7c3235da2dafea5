# SPDX-License-Identifier: Apache-2.0
"""This process's capabilities: put into effect, lent to a child, given up, and named where one is missing.

For containers. To a process that is not root, Kubernetes gives the capabilities of its manifest in the bounding set
alone. The image's interpreter is a file that permits them (``setcap =p``); to put them into effect is left to the
process, so that it can start and complain where the manifest gives fewer (with ``=ep``, exec itself fails then, see
security/commoncap.c, bprm_caps_from_vfs_caps). Under systemd and as root they are in effect already.

Linux has capabilities by thread: call from the main thread, before there are others.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from hmm_exporter import libc

# include/uapi/linux/capability.h; the last two since 5.8
CAP_SETPCAP, CAP_SYS_ADMIN, CAP_SYSLOG, CAP_PERFMON, CAP_BPF = 8, 21, 34, 38, 39

WANTED = {CAP_BPF: "CAP_BPF", CAP_PERFMON: "CAP_PERFMON", CAP_SYSLOG: "CAP_SYSLOG"}
"""All that is ever used, by name."""

_VERSION_3 = 0x20080522  # _LINUX_CAPABILITY_VERSION_3: sets of 64 bits, in two halves
# include/uapi/linux/prctl.h
_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 23, 24, 38
_PR_CAP_AMBIENT, _AMBIENT_RAISE, _AMBIENT_LOWER = 47, 2, 3
_STATUS = Path("/proc/thread-self/status")


def put_into_effect() -> None:
    """What is wanted and permitted becomes effective. Changes nothing where it is already."""
    effective, permitted, inheritable = _get()
    wanted = permitted & _bits(*WANTED)
    if wanted & ~effective:
        with contextlib.suppress(OSError):  # whoever then needs one says so
            _set(effective | wanted, permitted, inheritable)


@contextlib.contextmanager
def lent(*capabilities: int) -> Iterator[None]:
    """A child that is started in the block has these, as far as we have; one that is started later does not."""
    effective, permitted, inheritable = _get()
    ambient = _status("CapAmb")
    lending = [each for each in capabilities if permitted & ~ambient & _bits(each)]
    if not lending or os.geteuid() == 0:  # root's children have what root has; and a service may be forbidden capset(2)
        yield
        return
    with contextlib.suppress(OSError):
        _set(effective, permitted, inheritable | _bits(*lending))
    # Where SECBIT_NO_CAP_AMBIENT_RAISE forbids it, the child goes without, and says what it cannot do.
    raised = [each for each in lending if _ambient(_AMBIENT_RAISE, each)]
    try:
        yield
    finally:
        for each in raised:
            _ambient(_AMBIENT_LOWER, each)
        with contextlib.suppress(OSError):
            _set(effective, permitted, inheritable)


def gain_no_more() -> None:
    """No program that the calling thread could execute gives it rights. Raises OSError."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def keep_only(*capabilities: int) -> None:
    """No set of the calling thread has more than these, the bounding set if it has CAP_SETPCAP; without any, none.

    Raises OSError: a seccomp filter may forbid capset(2).
    """
    keep = _bits(*capabilities)
    effective, permitted, inheritable = _get()
    if effective & _bits(CAP_SETPCAP):
        for each in range(64):
            try:
                bounded = _prctl(_PR_CAPBSET_READ, each)
            except OSError:  # EINVAL: there are no more
                break
            if bounded and not keep & _bits(each):
                _prctl(_PR_CAPBSET_DROP, each)
    # The ambient set has only what is permitted and inheritable, and follows.
    if (effective | permitted | inheritable) & ~keep:
        _set(effective & keep, permitted & keep, inheritable & keep)


def capable(*capabilities: int, path: Path = _STATUS) -> bool:
    """Whether this process has all of these capabilities in effect."""
    return not _bits(*capabilities) & ~_status("CapEff", path)


def why_refused(path: Path = _STATUS) -> str:
    """Of bpf(2): which capability is missing, and what would help; or that it is not for want of one."""
    missing = [WANTED[each] for each in (CAP_BPF, CAP_PERFMON) if not capable(each, path=path)]
    if not missing or capable(CAP_SYS_ADMIN, path=path):
        return "no capability is missing: a user namespace, a security module or a seccomp profile forbids it"
    is_missing = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
    return f"{is_missing}: run as root, or with CAP_BPF and CAP_PERFMON"


def _bits(*capabilities: int) -> int:
    return sum(1 << each for each in set(capabilities))


def _status(name: str, path: Path = _STATUS) -> int:
    """A set by its name in the file; empty if it cannot be read."""
    try:
        words = next(line.split() for line in path.read_text().splitlines() if line.startswith(f"{name}:"))
    except (OSError, StopIteration):
        return 0
    return int(words[1], 16)


def _get() -> tuple[int, int, int]:
    """The effective, permitted and inheritable set."""
    halves = ctypes.create_string_buffer(24)
    try:
        libc.call("capget", struct.pack("<Ii", _VERSION_3, 0), halves)
    except OSError:
        return 0, 0, 0
    low, high = (struct.unpack_from("<3I", halves, offset) for offset in (0, 12))
    effective, permitted, inheritable = (above << 32 | below for below, above in zip(low, high))
    return effective, permitted, inheritable


def _set(*sets: int) -> None:
    """In the order of `_get`. Raises OSError; more than is permitted no caller here asks for."""
    halves = [each & 0xFFFFFFFF for each in sets] + [each >> 32 for each in sets]
    libc.call("capset", struct.pack("<Ii", _VERSION_3, 0), struct.pack("<6I", *halves))


def _ambient(operation: int, capability: int) -> bool:
    """Whether it was done."""
    try:
        _prctl(_PR_CAP_AMBIENT, operation, capability)
    except OSError:
        return False
    return True


def _prctl(operation: int, *arguments: int) -> int:
    return libc.call("prctl", operation, *arguments, *[0] * (4 - len(arguments)))
