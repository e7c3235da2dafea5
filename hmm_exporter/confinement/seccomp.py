# SPDX-License-Identifier: Apache-2.0
"""A seccomp filter: system calls that a thread that only serves never makes are refused to it.

A list of what is refused, not of what is allowed: Python and the C library may come to use a new call for an old
purpose, and an exporter that ends for it after an update of the distribution would be worse than what the call could
do. Of bpf(2), which is what makes this process worth attacking, and of ioctl(2), which is without end, only what is
needed is allowed. Which calls these are is said in ``calls``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

from hmm_exporter import libc
from hmm_exporter.confinement import calls

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # uapi/linux/audit.h
_X32 = 0x40000000  # __X32_SYSCALL_BIT: the same calls under other numbers, on x86-64

# struct seccomp_data: where a filter finds the number, the architecture, and the arguments, 8 bytes each.
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # linux/bpf_common.h
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000  # uapi/linux/seccomp.h: SECCOMP_RET_*

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2  # uapi/linux/prctl.h, seccomp.h


def only_serve() -> None:
    """Put the filter on the calling thread, which has no_new_privs. Raises OSError."""
    code = program(platform.machine(), os.getpid())
    instructions = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog, with its padding
    header = struct.pack("<HxxxxxxQ", len(code) // 8, ctypes.addressof(instructions))
    block = ctypes.create_string_buffer(header, len(header))
    libc.call("prctl", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, block, 0, 0)


def program(machine: str, pid: int) -> bytes:
    """struct sock_filter[] for that architecture and process. Raises OSError where the architecture is not known."""
    if machine not in calls.MACHINES:
        raise OSError(errno.ENOSYS, f"not known for {machine}")
    at = calls.MACHINES.index(machine)
    refuse, allow = _return(_ERRNO | errno.EPERM), _return(_ALLOW)
    not_there = [number for numbers in calls.NOT_THERE.values() if (number := numbers[at]) is not None]
    blocks = [
        # Calls of another architecture would have other numbers.
        [_statement(_LOAD, _ARCHITECTURE), _jump(_EQUAL, _AUDIT_ARCH[machine], 1, 0), _return(_KILL)],
        [_statement(_LOAD, _NUMBER), _jump(_AT_LEAST, _X32, 0, 1), refuse],
        *([_jump(_EQUAL, number, 0, 1), refuse] for number in calls.refused_numbers(at)),
        *([_jump(_EQUAL, number, 0, 1), _return(_ERRNO | errno.ENOSYS)] for number in not_there),
        *(_by_argument(rule, at) for rule in calls.by_argument(pid).values()),
        [allow],
    ]
    return b"".join(instruction for block in blocks for instruction in block)


def _by_argument(rule: calls.Rule, at: int) -> list[bytes]:
    """Decides about its call, and lets others pass to what comes next."""
    number = rule.numbers[at]
    if number is None:
        return []
    refuse, allow = _return(_ERRNO | errno.EPERM), _return(_ALLOW)
    test, last = _ANY_BIT if rule.bits else _EQUAL, len(rule.values)
    body = [
        _statement(_LOAD, _ARGUMENTS + 8 * rule.argument),
        # Each jumps over the answer for all other values.
        *(_jump(test, value, last - position, 0) for position, value in enumerate(sorted(rule.values))),
        *((refuse, allow) if rule.allowed else (allow, refuse)),
    ]
    return [_jump(_EQUAL, number, 0, len(body)), *body]


def _return(what: int) -> bytes:
    return _statement(_RETURN, what)


def _statement(code: int, operand: int) -> bytes:
    return struct.pack("<HBBI", code, 0, 0, operand)


def _jump(code: int, operand: int, if_true: int, if_false: int) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, operand)
