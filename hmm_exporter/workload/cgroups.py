# SPDX-License-Identifier: Apache-2.0
"""The cgroup file system: which cgroup a number from the kernel is.

The number that the programs read (kernfs_node.id) is the inode of the cgroup's directory: kernfs
gives 64-bit systems the whole of it (fs/kernfs/dir.c:kernfs_ino, since 5.5), and never gives a
number again. What a path means is said in ``workload.placement``.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

_ROOT_INODE = 1
"""Of the whole hierarchy; that of a part of it, as a container sees its own, has another."""


class Cgroups:
    """The hierarchy of version 2 below one folder."""

    def __init__(self, root: Path, whole: bool = True) -> None:
        """*whole*: the hierarchy has to be all of the machine's; a simulator's is any tree of folders."""
        self._root = root
        self._whole = whole

    @property
    def problem(self) -> str:
        """Why no cgroup can be found, and what would help; empty if they can."""
        advice = "host.cgroup must name the place where the host's cgroup file system is mounted"
        try:
            inode = self._root.stat().st_ino
            entries = set(os.listdir(self._root))
        except OSError as error:
            return f"{self._root}: {error.strerror}: {advice}"
        if not self._whole:
            return ""
        if "cgroup.controllers" not in entries:
            return f"{self._root} is not a cgroup file system of version 2, and version 1 is not supported: {advice}"
        if inode != _ROOT_INODE:
            return f"{self._root} is only a part of the host's cgroups: {advice}"
        return ""

    def paths(self, wanted: Collection[int]) -> Mapping[int, str]:
        """Paths below the root, such as ``/system.slice``, of those of the wanted that there are."""
        found: dict[int, str] = {}
        for number, path in self._walk():
            if number in wanted:
                found[number] = path
                if len(found) == len(wanted):
                    break
        return found

    def exists(self, number: int, path: str) -> bool:
        """Whether that is still the cgroup of that path."""
        try:
            return os.stat(f"{self._root}{path}").st_ino == number
        except OSError:
            return False

    def _walk(self) -> Iterator[tuple[int, str]]:
        """(number, path), those that lie higher first: a pod's are three or four folders deep."""
        try:
            yield self._root.stat().st_ino, "/"
        except OSError:
            return
        level = [""]
        while level:
            below = []
            for path in level:
                try:
                    with os.scandir(f"{self._root}{path}") as entries:
                        folders = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
                except OSError:  # removed meanwhile
                    continue
                for entry in folders:
                    # Not entry.stat(): readdir tells the number, too (kernfs_fop_readdir).
                    yield entry.inode(), f"{path}/{entry.name}"
                    below.append(f"{path}/{entry.name}")
            level = below
