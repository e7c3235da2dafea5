# SPDX-License-Identifier: Apache-2.0
"""A seccomp filter: system calls that a thread that only serves never makes are refused to it.

A list of what is refused, not of what is allowed: Python and the C library may come to use a new call for an old
purpose, and an exporter that ends for it after an update of the distribution would be worse than what the call could
do. Of bpf(2), which is what makes this process worth attacking, only what is needed is allowed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable, Mapping

from hmm_exporter.bpf import syscall

# asm/unistd_64.h and asm-generic/unistd.h; from 424 on numbers are the same everywhere.
_NUMBERS: Mapping[str, tuple[int | None, int | None]] = {
    # Another program, another process.
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    # Other processes' memory, signals and files.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "kill": (62, 129),
    "tkill": (200, 130),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "process_madvise": (440, 440),
    # The network: connections are accepted, on sockets that listen already.
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    # The machine.
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "setns": (308, 268),
    "unshare": (272, 97),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "iopl": (172, None),
    "ioperm": (173, None),
    # Ways into the kernel that other programs need.
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "personality": (135, 92),
    "fanotify_init": (300, 262),
    "quotactl": (179, 60),
    "memfd_secret": (447, 447),
}
_BPF, _CLONE, _CLONE3, _SOCKET, _TGKILL = (321, 280), (56, 220), (435, 435), (41, 198), (234, 131)

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # uapi/linux/audit.h
_X32 = 0x40000000  # __X32_SYSCALL_BIT: the same calls under other numbers, on x86-64

_CLONE_THREAD = 0x00010000  # uapi/linux/sched.h
_AF_UNIX = 1

# struct seccomp_data: where a filter finds the number, the architecture, and the lower half of the first argument.
_NUMBER, _ARCHITECTURE, _FIRST = 0, 4, 16
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # linux/bpf_common.h
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000  # uapi/linux/seccomp.h: SECCOMP_RET_*

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2  # uapi/linux/prctl.h, seccomp.h

_libc = ctypes.CDLL(None, use_errno=True)


def only_serve() -> None:
    """Put the filter on the calling thread, which has no_new_privs. Raises OSError."""
    code = program(platform.machine(), os.getpid())
    instructions = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog, with its padding
    header = struct.pack("<HxxxxxxQ", len(code) // 8, ctypes.addressof(instructions))
    if _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.create_string_buffer(header, len(header)), 0, 0):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def program(machine: str, pid: int) -> bytes:
    """struct sock_filter[] for that architecture and process. Raises OSError where the architecture is not known."""
    if machine not in _AUDIT_ARCH:
        raise OSError(errno.ENOSYS, f"not known for {machine}")
    at = list(_AUDIT_ARCH).index(machine)
    refuse = _statement(_RETURN, _ERRNO | errno.EPERM)
    denied = [number for numbers in _NUMBERS.values() if (number := numbers[at]) is not None]
    blocks = [
        # Calls of another architecture would have other numbers.
        [_statement(_LOAD, _ARCHITECTURE), _jump(_EQUAL, _AUDIT_ARCH[machine], 1, 0), _statement(_RETURN, _KILL)],
        [_statement(_LOAD, _NUMBER), _jump(_AT_LEAST, _X32, 0, 1), refuse],
        *([_jump(_EQUAL, number, 0, 1), refuse] for number in denied),
        # Its arguments lie in memory, where no filter sees them: the C library then makes threads by clone.
        [_jump(_EQUAL, _CLONE3[at], 0, 1), _statement(_RETURN, _ERRNO | errno.ENOSYS)],
        _only_if(_CLONE[at], [_jump(_ANY_BIT, _CLONE_THREAD, 1, 0), refuse]),
        _only_if(_SOCKET[at], [_jump(_EQUAL, _AF_UNIX, 1, 0), refuse]),
        _only_if(_TGKILL[at], [_jump(_EQUAL, pid, 1, 0), refuse]),
        _only_if(_BPF[at], [*_one_of(syscall.WITHOUT_PRIVILEGE), refuse]),
        [_statement(_RETURN, _ALLOW)],
    ]
    return b"".join(instruction for block in blocks for instruction in block)


def _only_if(number: int, then: list[bytes]) -> list[bytes]:
    """Ask *then* about the first argument of that call. It refuses, or runs past its own end."""
    allow = _statement(_RETURN, _ALLOW)
    return [_jump(_EQUAL, number, 0, len(then) + 2), _statement(_LOAD, _FIRST), *then, allow]


def _one_of(values: Iterable[int]) -> list[bytes]:
    """Jumps over the one instruction behind them for each of the values."""
    values = sorted(values)
    return [_jump(_EQUAL, value, len(values) - position, 0) for position, value in enumerate(values)]


def _statement(code: int, operand: int) -> bytes:
    return struct.pack("<HBBI", code, 0, 0, operand)


def _jump(code: int, operand: int, if_true: int, if_false: int) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, operand)
