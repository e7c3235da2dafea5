# SPDX-License-Identifier: Apache-2.0
"""Landlock (5.13; uapi/linux/landlock.h): a thread that may read files as before, and neither write nor execute any.

Rights that a ruleset handles and no rule allows are refused, and there is no rule here. What a newer version of
Landlock can refuse is asked for where the kernel has it. Files that are open stay open: the log is one of them.
"""

from __future__ import annotations

import ctypes
import os
import struct

from hmm_exporter import libc

_CREATE_RULESET, _RESTRICT_SELF = 444, 446
"""On all architectures."""
_VERSION = 1 << 0  # LANDLOCK_CREATE_RULESET_VERSION

# LANDLOCK_ACCESS_FS_*: but for READ_FILE (1 << 2) and READ_DIR (1 << 3), which are not handled.
_EXECUTE, _WRITE_FILE, _IOCTL_DEV = 1 << 0, 1 << 1, 1 << 15
_REMOVE_AND_MAKE = sum(1 << bit for bit in range(4, 13))
_SINCE = {
    1: _EXECUTE | _WRITE_FILE | _REMOVE_AND_MAKE,
    2: 1 << 13,  # REFER, 5.19
    3: 1 << 14,  # TRUNCATE, 6.2
    5: _IOCTL_DEV,  # 6.10
}
_BIND_AND_CONNECT_TCP = 1 << 0 | 1 << 1  # LANDLOCK_ACCESS_NET_*, version 4, 6.7


def write_no_file() -> None:
    """Restrict the calling thread. Raises OSError: ENOSYS or EOPNOTSUPP where the kernel has no Landlock."""
    version = libc.call("syscall", _CREATE_RULESET, None, 0, _VERSION)
    ruleset = attributes(version)
    block = ctypes.create_string_buffer(ruleset, len(ruleset))
    fd = libc.call("syscall", _CREATE_RULESET, block, len(ruleset), 0)
    try:
        libc.call("syscall", _RESTRICT_SELF, fd, 0)
    finally:
        os.close(fd)


def attributes(version: int) -> bytes:
    """struct landlock_ruleset_attr, as long as that version of Landlock knows it."""
    files = sum(rights for since, rights in _SINCE.items() if since <= version)
    # Signals are not scoped (version 6): that would also stop PR_SET_PDEATHSIG, with which the helper ends.
    return struct.pack("<2Q", files, _BIND_AND_CONNECT_TCP)[: 16 if version >= 4 else 8]
