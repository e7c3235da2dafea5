# SPDX-License-Identifier: Apache-2.0
"""Debian's Python with bcc, a folder for each release, fetched once and kept in the project's cache.

Packages are unpacked and not installed. Nothing of them runs but Python, which the folder's own dynamic linker runs on
this machine's files: the loader, our headers and /proc are where they always are, and nothing is mounted. Does not
belong here: what is compiled with it.
"""

from __future__ import annotations

import hashlib
import platform
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.lab.builder import KEYRING
from tests.lab.image import cache_folder

PACKAGES = ("base-files", "python3-bpfcc")
LIBRARIES = f"{platform.machine()}-linux-gnu"


@dataclass(frozen=True)
class Release:
    """A release of Debian, and its bcc. ``unstable`` has that version or a newer one."""

    suite: str
    bcc: tuple[int, int]
    unstable: bool = False


RELEASES = (
    Release("bookworm", (0, 26)),
    Release("trixie", (0, 31)),
    Release("sid", (0, 37), unstable=True),
)


class RootError(RuntimeError):
    """A release's packages could not be had; the text has the end of what mmdebstrap said."""


@dataclass(frozen=True)
class Root:
    """An unpacked release. Its files are never modified, but for what Python compiles of its own modules."""

    folder: Path

    @property
    def library_version(self) -> str:
        """By the file that libbcc.so.0 stands for, and not by what bcc's Python says of itself."""
        (library,) = (self.folder / "usr/lib" / LIBRARIES).glob("libbcc.so.0.*")
        return library.name.removeprefix("libbcc.so.")

    def python(self, folder: Path, arch: str = "") -> str:
        """A script in ``folder`` to be named as loader.python; ``arch`` is what bcc is told to compile for."""
        (linker,) = (self.folder / "lib" / LIBRARIES).glob("ld-linux-*.so.*")
        # Not all releases have /lib in /usr. The cache knows this machine's libraries, which are others.
        path = ":".join(str(self.folder / where / LIBRARIES) for where in ("lib", "usr/lib"))
        script = folder / "python3"
        script.write_text(
            f"#!/bin/sh\n{f'export ARCH={arch}' if arch else ''}\n"
            f'exec {linker} --inhibit-cache --library-path {path} {self.folder / "usr/bin/python3"} "$@"\n'
        )
        script.chmod(0o755)
        return str(script)


def ensure_root(release: Release) -> Root:
    """The release's folder in the cache; what is not there yet is fetched."""
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    target = cache_folder().with_name("bcc") / f"{release.suite}-{recipe}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        # Beside its place, so that it appears there whole, or not at all.
        with tempfile.TemporaryDirectory(prefix="fetching-", dir=target.parent) as work:
            made = Path(work) / "root"
            _fetch(release.suite, made)
            try:
                made.rename(target)
            except OSError:
                if not target.exists():  # another run was quicker
                    raise
    return Root(target)


def _fetch(suite: str, to: Path) -> None:
    # What this machine's apt was told of mirrors that lag behind goes here, too: sid's index is valid for a week.
    asked = ["apt-config", "dump", "--format", '%f "%v";%n', "Acquire::Check-Valid-Until"]
    settings = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
    done = subprocess.run(
        ["mmdebstrap", "--variant=extract", "--format=directory", f"--keyring={KEYRING}",
         "--aptopt=APT::Install-Recommends false", *(f"--aptopt={each}" for each in settings),
         f"--include={','.join(PACKAGES)}", suite, str(to)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RootError(f"{suite}: mmdebstrap failed:\n" + "\n".join(done.stdout.splitlines()[-20:]))
