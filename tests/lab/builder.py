# SPDX-License-Identifier: Apache-2.0
"""Builds one image by its recipe: a root that compiles and is thrown away, a root that boots, the disk.

Belongs here: the steps, each in namespaces of its own. Does not belong here: what is in a root (recipe.py), where the
image is kept and when it is built again (image.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.lab.recipe import BOOT_PACKAGES, HERE, Recipe

#: Sparse: the file takes on disk what the root takes. The rest is room for what tests push.
DISK_SIZE = "2G"

#: Always named: mmdebstrap finds it by itself on Debian, not on Ubuntu.
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
HOST_TOOLS = {"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs", "setpriv": "util-linux", "unshare": "util-linux"}
#: Where mke2fs lives; not on every user's path.
SYSTEM_FOLDERS = ":/usr/sbin:/sbin"


class ImageError(RuntimeError):
    """An image cannot be built here; the text says why and, where it is known, what would help."""


def check_host() -> None:
    if platform.machine() != "x86_64":
        raise ImageError(f"the lab's kernel is built for x86_64, and this machine is {platform.machine()}")
    path = os.environ.get("PATH", "") + SYSTEM_FOLDERS
    missing = {package for tool, package in HOST_TOOLS.items() if not shutil.which(tool, path=path)}
    if not KEYRING.exists():
        missing.add("debian-archive-keyring")
    if missing:
        raise ImageError(f"host tools are missing; install the packages: {' '.join(sorted(missing))}")
    if os.geteuid() != 0:
        raise ImageError("building an image needs root: its files must belong to root (booting an image does not)")


class Builder:
    """The steps of one build, all below one temporary folder."""

    def __init__(self, recipe: Recipe, work: Path, say: Callable[[str], None]) -> None:
        self._recipe = recipe
        self._work = work
        self._say = say
        self._log = work / "build.log"

    def newest_kernel(self) -> tuple[str, str]:
        """Release (7.3.4+deb13-cloud-amd64) and package version of the kernel that Debian offers today."""
        recipe = self._recipe
        answer = self._work / "kernel.txt"
        target = f"-t {recipe.backports}" if recipe.backports else ""
        query = f"apt-cache show --no-all-versions {target} {recipe.newest}"
        hook = f'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" {query} > {shlex.quote(str(answer))}'
        with self._step(f"asking {recipe.backports or recipe.suite} for its newest {recipe.newest}"):
            self._run(
                ["mmdebstrap", "--variant=custom", "--format=null", f"--keyring={KEYRING}",
                 *self._sources(), f"--customize-hook={hook}", recipe.suite, "/dev/null"]
            )  # fmt: skip
        text = answer.read_text()
        release = re.search(recipe.release_pattern, text, re.MULTILINE)
        version = re.search(r"^Version: (\S+)", text, re.MULTILINE)
        if not release or not version:
            raise ImageError(f"{recipe.newest} of {recipe.backports or recipe.suite} names no kernel:\n{text}")
        self._say(f"  {release[1]} (package version {version[1]})")
        if not release[1].startswith(f"{recipe.kernel}."):
            self._say(f"  this is no {recipe.kernel} any more: the kernel's figures may differ from the predicted ones")
        return release[1], version[1]

    def build(self, release: str, package_version: str) -> Path:
        """A folder that holds a complete image, to be renamed into its place."""
        recipe = self._recipe
        series = ".".join(release.split(".")[:2])
        toolchain, root, result = self._work / "toolchain", self._work / "root", self._work / "result"

        def named(packages: Sequence[str]) -> list[str]:
            return [package.format(release=release, series=series) for package in packages]

        with self._step("making the root that compiles"):
            self._bootstrap(toolchain, named((*recipe.build_packages, *recipe.kernel_packages)))
        for name in recipe.files:
            shutil.copy(HERE / name, toolchain)
        for name in recipe.scripts:
            with self._step(f"running {name} in it"):
                self._in_root(toolchain, (HERE / name).read_text(), release, series)
        with self._step("making the root that boots"):
            self._bootstrap(root, named((*BOOT_PACKAGES, *recipe.kernel_packages)))
            shutil.copytree(toolchain / "build/installed", root, symlinks=True, dirs_exist_ok=True)
            shutil.copy(HERE / "init.sh", root / "init")
            (root / "init").chmod(0o755)
            # mmdebstrap copies the host's resolv.conf; the guest has no network but the host's way in.
            (root / "etc/resolv.conf").write_text("")
            (root / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.1.1 lab\n")
            self._in_root(root, f"depmod {release}")
        with self._step("making the disk image"):
            result.mkdir()
            shutil.copy(root / "usr/lib/modules" / release / "vmlinuz", result / "vmlinuz")
            disk = result / "root.ext4"
            # No journal: the image is never written to, a machine writes to a snapshot that dies with it.
            self._run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(root), str(disk), DISK_SIZE])
        fields = {"kernel_release": release, "package_version": package_version}
        (result / "image.json").write_text(json.dumps(fields, indent=2) + "\n")
        shutil.copy(self._log, result / "build.log")
        result.chmod(0o755)
        return result

    def _sources(self) -> list[str]:
        """mmdebstrap writes its default mirror into sources.list before this hook: backports' line is made from it."""
        if not self._recipe.backports:
            return []
        listed = '"$1"/etc/apt/sources.list.d/backports.list'
        suites = f"s/ {self._recipe.suite} / {self._recipe.backports} /"
        written = f'grep -rhE "^deb .* {self._recipe.suite} main" "$1"/etc/apt/ | sed "{suites}" > {listed}'
        return [f"--setup-hook={written} && test -s {listed}"]

    def _bootstrap(self, root: Path, packages: Sequence[str]) -> None:
        without = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "info", "locale", "man")]
        self._run(
            ["mmdebstrap", "--variant=minbase", f"--keyring={KEYRING}", "--aptopt=APT::Install-Recommends false",
             *without, *self._sources(), f"--include={','.join(packages)}", self._recipe.suite, str(root)]
        )  # fmt: skip

    def _in_root(self, root: Path, script: str, *arguments: str) -> None:
        environment = ("/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8")
        self._run([*environment, "/bin/sh", "-c", script, "sh", *arguments], f"--root={root}", "--wd=/")

    def _run(self, command: Sequence[str], *options: str) -> None:
        # Mount and process namespaces of its own: whatever a command mounts or starts goes away with it, and it goes
        # away with us, even if we are killed. mmdebstrap alone would go on, and leave /proc mounted in its root.
        namespaces = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", *options, "--")
        isolated = ["setpriv", "--pdeathsig", "KILL", "--", *namespaces, *command]
        path = os.environ.get("PATH", "") + SYSTEM_FOLDERS
        with self._log.open("ab") as log:
            log.write(f"\n+ {shlex.join(command)[:400]}\n".encode())
            log.flush()
            outcome = subprocess.run(
                isolated,
                env={**os.environ, "PATH": path},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=False,
            )
        if outcome.returncode:
            tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-30:])
            raise ImageError(f"{command[0]} failed with status {outcome.returncode}; the end of its log:\n{tail}")

    @contextlib.contextmanager
    def _step(self, what: str) -> Iterator[None]:
        self._say(f"{what} ...")
        start = time.monotonic()
        yield
        self._say(f"  {time.monotonic() - start:.0f} s")
