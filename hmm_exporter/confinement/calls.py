# SPDX-License-Identifier: Apache-2.0
"""The system calls that a thread that only serves does without: which, and by which of their arguments.

How a filter is made of this is ``seccomp``'s.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from hmm_exporter.bpf import syscall

MACHINES = ("x86_64", "aarch64")

Numbers = tuple["int | None", "int | None"]
"""In the order of MACHINES; None where a machine never had the call."""

# asm/unistd_64.h and asm-generic/unistd.h; from 424 on numbers are the same everywhere.
REFUSED: Mapping[str, Mapping[str, Numbers]] = {
    "programs and processes": {
        "fork": (57, None),
        "vfork": (58, None),
        "execve": (59, 221),
        "execveat": (322, 281),
        "uselib": (134, None),
    },
    "files": {
        "creat": (85, None),
        "truncate": (76, 45),
        "mknod": (133, None),
        "mknodat": (259, 33),
        "mkdir": (83, None),
        "mkdirat": (258, 34),
        "link": (86, None),
        "linkat": (265, 37),
        "symlink": (88, None),
        "symlinkat": (266, 36),
        "rename": (82, None),
        "renameat": (264, 38),
        "renameat2": (316, 276),
        "unlink": (87, None),
        "unlinkat": (263, 35),
        "rmdir": (84, None),
        "chmod": (90, None),
        "fchmod": (91, 52),
        "fchmodat": (268, 53),
        "fchmodat2": (452, 452),
        "chown": (92, None),
        "lchown": (94, None),
        "fchown": (93, 55),
        "fchownat": (260, 54),
        "setxattr": (188, 5),
        "lsetxattr": (189, 6),
        "fsetxattr": (190, 7),
        "setxattrat": (463, 463),
        "removexattr": (197, 14),
        "lremovexattr": (198, 15),
        "fremovexattr": (199, 16),
        "removexattrat": (466, 466),
        "file_setattr": (469, 469),
        "utime": (132, None),
        "utimes": (235, None),
        "futimesat": (261, None),
        "utimensat": (280, 88),
    },
    "others' memory and descriptors": {
        "ptrace": (101, 117),
        "process_vm_readv": (310, 270),
        "process_vm_writev": (311, 271),
        "process_madvise": (440, 440),
        "process_mrelease": (448, 448),
        "move_pages": (279, 239),
        "migrate_pages": (256, 238),
        "kcmp": (312, 272),
        "pidfd_open": (434, 434),
        "pidfd_getfd": (438, 438),
    },
    "signals to others": {
        "kill": (62, 129),
        "tkill": (200, 130),
        "rt_sigqueueinfo": (129, 138),
        "rt_tgsigqueueinfo": (297, 240),
        "pidfd_send_signal": (424, 424),
    },
    "scheduling": {
        "setpriority": (141, 140),
        "sched_setparam": (142, 118),
        "sched_setscheduler": (144, 119),
        "sched_setaffinity": (203, 122),
        "sched_setattr": (314, 274),
        "ioprio_set": (251, 30),
    },
    "memory, semaphores and messages between processes": {
        "shmget": (29, 194),
        "shmat": (30, 196),
        "shmctl": (31, 195),
        "shmdt": (67, 197),
        "semget": (64, 190),
        "semop": (65, 193),
        "semctl": (66, 191),
        "semtimedop": (220, 192),
        "msgget": (68, 186),
        "msgsnd": (69, 189),
        "msgrcv": (70, 188),
        "msgctl": (71, 187),
        "mq_open": (240, 180),
        "mq_unlink": (241, 181),
    },
    # Connections are accepted, on sockets that listen already.
    "network": {
        "connect": (42, 203),
        "bind": (49, 200),
        "listen": (50, 201),
        "sendmmsg": (307, 269),  # its flags could be asked for, as sendmsg's; nobody wants it
    },
    "machine": {
        "mount": (165, 40),
        "umount2": (166, 39),
        "pivot_root": (155, 41),
        "chroot": (161, 51),
        "open_tree": (428, 428),
        "open_tree_attr": (467, 467),
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
    },
    "ways into the kernel that other programs need": {
        "perf_event_open": (298, 241),
        "userfaultfd": (323, 282),
        "io_setup": (206, 0),
        "io_uring_setup": (425, 425),
        "io_uring_enter": (426, 426),
        "io_uring_register": (427, 427),
        "add_key": (248, 217),
        "request_key": (249, 218),
        "keyctl": (250, 219),
        "personality": (135, 92),
        "modify_ldt": (154, None),
        "fanotify_init": (300, 262),
        "quotactl": (179, 60),
        "quotactl_fd": (443, 443),
        "memfd_secret": (447, 447),
        "syslog": (103, 116),
    },
}

NOT_THERE: Mapping[str, Numbers] = {"clone3": (435, 435), "openat2": (437, 437)}
"""As on a kernel before them, since their arguments lie in memory, where no filter sees them: who wants one makes do
with clone, and openat."""


@dataclass(frozen=True)
class Rule:
    """A call that is refused by one of its arguments."""

    numbers: Numbers
    argument: int
    """Its position, from 0. Its lower half counts, which is all of a C int."""
    values: Collection[int]
    allowed: bool
    """Whether these are what is allowed, or what is refused."""
    bits: bool = False
    """Whether the values are masks, of which one bit counts."""


_THREAD = 0x00010000  # CLONE_THREAD, uapi/linux/sched.h
_AF_UNIX = 1
_FASTOPEN = 0x20000000  # MSG_FASTOPEN, linux/socket.h: sends to an address, and connects to it
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | (os.O_TMPFILE & ~os.O_DIRECTORY)

# asm-generic/ioctls.h, asm-generic/fcntl.h; linux/fcntl.h for leases, which make those wait who open a file.
_TCGETS, _TCGETS2, _TIOCGWINSZ, _FIONREAD, _FIONBIO, _FIONCLEX, _FIOCLEX = (
    *(0x5401, 0x802C542A, 0x5413),  # isatty(3), the terminal's size
    *(0x541B, 0x5421, 0x5450, 0x5451),
)
_F_SETOWN, _F_SETSIG, _F_SETOWN_EX, _F_SETLEASE = 8, 10, 15, 1024


def by_argument(pid: int) -> Mapping[str, Rule]:
    """For the process of that number."""
    return {
        "clone": Rule((56, 220), 0, [_THREAD], allowed=True, bits=True),
        "open": Rule((2, None), 1, [_WRITES], allowed=False, bits=True),
        "openat": Rule((257, 56), 2, [_WRITES], allowed=False, bits=True),
        # What Python and the C library ask of descriptors: others change files, devices, and whom a socket signals.
        "ioctl": Rule(
            (16, 29), 1, [_TCGETS, _TCGETS2, _TIOCGWINSZ, _FIONREAD, _FIONBIO, _FIONCLEX, _FIOCLEX], allowed=True
        ),
        "fcntl": Rule((72, 25), 1, [_F_SETOWN, _F_SETSIG, _F_SETOWN_EX, _F_SETLEASE], allowed=False),
        "tgkill": Rule((234, 131), 0, [pid], allowed=True),
        "prlimit64": Rule((302, 261), 0, [0], allowed=True),
        "socket": Rule((41, 198), 0, [_AF_UNIX], allowed=True),
        "socketpair": Rule((53, 199), 0, [_AF_UNIX], allowed=True),
        "sendto": Rule((44, 206), 3, [_FASTOPEN], allowed=False, bits=True),
        "sendmsg": Rule((46, 211), 2, [_FASTOPEN], allowed=False, bits=True),
        "bpf": Rule((321, 280), 0, syscall.WITHOUT_PRIVILEGE, allowed=True),
    }


def refused_numbers(at: int) -> Sequence[int]:
    """Those that no argument makes good, for that one of MACHINES."""
    numbers = (each[at] for group in REFUSED.values() for each in group.values())
    return [number for number in numbers if number is not None]
