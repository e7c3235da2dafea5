# SPDX-License-Identifier: Apache-2.0
"""A process as a container's runtime starts it: another user, few capabilities, an interpreter whose file permits them.

For every tier that needs no container to see what its rights lead to.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

USER = 65532
_LAST_CAPABILITY = Path("/proc/sys/kernel/cap_last_cap")


@contextmanager
def permitted_interpreter(*capabilities: int) -> Iterator[Path]:
    """A copy of the system's Python whose file permits these (setcap =p), in a folder that everybody can read."""
    if os.geteuid():
        pytest.skip("only root can set a file's capabilities")
    with tempfile.TemporaryDirectory(prefix="hmm-exporter-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        if os.statvfs(folder).f_flag & os.ST_NOSUID:
            pytest.skip(f"{folder.parent} is mounted nosuid: files' capabilities do not count there")
        python = folder / "python3"
        shutil.copy(Path("/usr/bin/python3").resolve(), python)
        low, high = _halves(*capabilities)
        # struct vfs_cap_data, VFS_CAP_REVISION_2, without the bit for effective: include/uapi/linux/capability.h
        os.setxattr(python, "security.capability", struct.pack("<5I", 0x02000000, low, 0, high, 0))
        yield python


def contained(*capabilities: int, held: bool, no_new_privileges: bool) -> Callable[[], None]:
    """For subprocess's preexec_fn: user 65532, bounded by these capabilities.

    ``held``: with them permitted to the process that executes, too, as runc and crun have it (one that has not cannot
    gain any with no_new_privs).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    last = int(_LAST_CAPABILITY.read_text())

    def prctl(*arguments: int) -> None:
        assert libc.prctl(*arguments, 0, 0) == 0, os.strerror(ctypes.get_errno())

    def become() -> None:
        for each in range(last + 1):
            if each not in capabilities:
                prctl(24, each, 0)  # PR_CAPBSET_DROP
        prctl(8, int(held), 0)  # PR_SET_KEEPCAPS
        os.setgroups([])
        os.setresgid(USER, USER, USER)
        os.setresuid(USER, USER, USER)
        low, high = _halves(*(capabilities if held else ()))
        header = struct.pack("<Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3
        assert libc.capset(header, struct.pack("<6I", low, low, 0, high, high, 0)) == 0
        if no_new_privileges:
            prctl(38, 1, 0)  # PR_SET_NO_NEW_PRIVS

    return become


def _halves(*capabilities: int) -> tuple[int, int]:
    low, high = (sum(1 << each - start for each in capabilities if start <= each < start + 32) for start in (0, 32))
    return low, high
