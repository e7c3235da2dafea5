# SPDX-License-Identifier: Apache-2.0
"""Builds and caches what a lab machine boots: Debian with its newest backported cloud kernel, test_hmm.ko, hmm-tests.

Belongs here: finding the kernel's version, building the two roots (one that boots, one that compiles and is thrown
away), the disk image, the cache. Does not belong here: starting a machine (vm.py) or what is done in one (guest.py).
Only the standard library is used, and nothing of this package, so that the file runs by its path too.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SUITE = "trixie"
BACKPORTS = f"{SUITE}-backports"
KERNEL_METAPACKAGE = "linux-image-cloud-amd64"

#: Beside the kernel. qemu-guest-agent is how the host runs commands, the others are what exporter and referee need.
BOOT_PACKAGES = (
    "bpftool", "bpftrace", "curl", "iproute2", "kmod", "procps", "python3-bpfcc", "python3-prometheus-client",
    "python3-yaml", "qemu-guest-agent",
)  # fmt: skip
BUILD_PACKAGES = ("binutils", "gcc", "libc6-dev", "make", "xz-utils", "zstd")

#: Sparse: the file takes on disk what the root takes. The rest is room for what tests push.
DISK_SIZE = "2G"

#: Always named: mmdebstrap finds it by itself on Debian, not on Ubuntu.
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
HOST_TOOLS = {"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs", "setpriv": "util-linux", "unshare": "util-linux"}
#: Where mke2fs lives; not on every user's path.
SYSTEM_FOLDERS = ":/usr/sbin:/sbin"

HERE = Path(__file__).resolve().parent
#: What decides what an image looks like; a change of one of these builds a new image.
RECIPE = (HERE / "image.py", HERE / "init.sh", HERE / "workload.sh")

#: mmdebstrap writes its default mirror into sources.list before this hook runs: the backports line is derived from it.
BACKPORTS_HOOK = (
    f'grep -rhE "^deb .* {SUITE} main" "$1"/etc/apt/ | sed "s/ {SUITE} / {BACKPORTS} /"'
    ' > "$1"/etc/apt/sources.list.d/backports.list && test -s "$1"/etc/apt/sources.list.d/backports.list'
)


class ImageError(RuntimeError):
    """An image cannot be built here; the text says why and, where it is known, what would help."""


@dataclass(frozen=True)
class Image:
    """A complete image in the cache; its files are never modified."""

    folder: Path
    kernel_release: str
    package_version: str

    @property
    def disk(self) -> Path:
        return self.folder / "root.ext4"

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"


def cache_folder() -> Path:
    """The lab's part of the project's cache, always outside the checkout."""
    if named := os.environ.get("HMM_EXPORTER_CACHE"):
        return Path(named).expanduser().absolute() / "lab"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "hmm-exporter" / "lab"


def recipe_hash() -> str:
    digest = hashlib.sha256()
    for path in RECIPE:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def cached_image() -> Image | None:
    """The newest image that this very recipe built, if there is one. Asks no network."""
    found = []
    for description in cache_folder().glob(f"image-{recipe_hash()}-*/image.json"):
        fields = json.loads(description.read_text())
        image = Image(description.parent, fields["kernel_release"], fields["package_version"])
        found.append((description.stat().st_mtime, image))
    return max(found, key=lambda pair: pair[0])[1] if found else None


def ensure_image(refresh: bool = False, say: Callable[[str], None] = print) -> Image:
    """The cached image, or a new one; with `refresh`, a newer kernel in the suite's index makes a new one, too."""
    image = cached_image()
    if image and not refresh:
        return image
    _check_host()
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with _exclusively(cache / "lock", say):
        image = cached_image()  # whoever held the lock may have built it
        if image and not refresh:
            return image
        with _temporary_folder(cache) as work:
            builder = _Builder(work, say)
            release, package_version = builder.newest_kernel()
            target = cache / f"image-{recipe_hash()}-{release}"
            if not target.exists():
                builder.build(release, package_version).rename(target)
        return Image(target, release, package_version)


def _check_host() -> None:
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


@contextlib.contextmanager
def _exclusively(lock: Path, say: Callable[[str], None]) -> Iterator[None]:
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another build is under way; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _temporary_folder(cache: Path) -> Iterator[Path]:
    """A folder in the cache's own file system (so that renaming is atomic), gone afterwards whatever happens."""
    for leftover in cache.glob("building-*"):  # of a build that was killed: we hold the lock, so nobody uses it
        _remove(leftover)
    work = Path(tempfile.mkdtemp(prefix="building-", dir=cache))
    try:
        work.chmod(0o755)
        yield work
    finally:
        _remove(work)


def _remove(folder: Path) -> None:
    # Should anything of the host ever be mounted below, it must survive. More than once, because the processes of a
    # build that was interrupted may need a moment to die, and write until then.
    command = ["rm", "-rf", "--one-file-system", str(folder)]
    for _ in range(10):
        if subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0:
            return
        time.sleep(1)
    raise ImageError(f"cannot remove {folder}")


class _Builder:
    """The steps of one build, all below one temporary folder."""

    def __init__(self, work: Path, say: Callable[[str], None]) -> None:
        self._work = work
        self._say = say
        self._log = work / "build.log"

    def newest_kernel(self) -> tuple[str, str]:
        """Release (7.3.4+deb13-cloud-amd64) and package version of the kernel that the metapackage stands for today."""
        answer = self._work / "kernel.txt"
        query = f"apt-cache show --no-all-versions -t {BACKPORTS} {KERNEL_METAPACKAGE}"
        hook = f'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" {query} > {shlex.quote(str(answer))}'
        with self._step(f"asking {BACKPORTS} for its newest kernel"):
            self._run(
                ["mmdebstrap", "--variant=custom", "--format=null", f"--keyring={KEYRING}",
                 f"--setup-hook={BACKPORTS_HOOK}", f"--customize-hook={hook}", SUITE, "/dev/null"]
            )  # fmt: skip
        text = answer.read_text()
        release = re.search(r"^Depends:.*\blinux-image-(\d\S*-cloud-amd64)", text, re.MULTILINE)
        version = re.search(r"^Version: (\S+)", text, re.MULTILINE)
        if not release or not version:
            raise ImageError(f"{KERNEL_METAPACKAGE} of {BACKPORTS} names no kernel:\n{text}")
        self._say(f"  {release[1]} (package version {version[1]})")
        return release[1], version[1]

    def build(self, release: str, package_version: str) -> Path:
        """A folder that holds a complete image, to be renamed into its place."""
        source = ".".join(release.split(".")[:2])
        toolchain, root, result = self._work / "toolchain", self._work / "root", self._work / "result"
        # Image, modules and headers by their own names: linux-image-* would pull in a generator of initial RAM disks,
        # which this kernel does not need (NVMe and ext4 are built in).
        kernel = (f"linux-binary-{release}", f"linux-modules-{release}")
        with self._step("making the root that compiles"):
            self._bootstrap(toolchain, (*BUILD_PACKAGES, *kernel, f"linux-headers-{release}", f"linux-source-{source}"))
        with self._step("building test_hmm.ko and hmm-tests"):
            self._in_root(toolchain, (HERE / "workload.sh").read_text(), release, source)
        with self._step("making the root that boots"):
            self._bootstrap(root, (*BOOT_PACKAGES, *kernel))
            modules = root / "lib/modules" / release
            (modules / "updates").mkdir()
            shutil.copy(toolchain / "build/module/test_hmm.ko", modules / "updates")
            shutil.copy(toolchain / "build/hmm-tests", root / "usr/local/bin")
            shutil.copy(HERE / "init.sh", root / "init")
            (root / "init").chmod(0o755)
            # mmdebstrap copies the host's resolv.conf; the guest has no network but the host's way in.
            (root / "etc/resolv.conf").write_text("")
            (root / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.1.1 lab\n")
            self._in_root(root, f"depmod {release}")
        with self._step("making the disk image"):
            result.mkdir()
            shutil.copy(modules / "vmlinuz", result / "vmlinuz")
            disk = result / "root.ext4"
            # No journal: the image is never written to, a machine writes to a snapshot that dies with it.
            self._run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(root), str(disk), DISK_SIZE])
        fields = {"kernel_release": release, "package_version": package_version, "recipe": recipe_hash()}
        (result / "image.json").write_text(json.dumps(fields, indent=2) + "\n")
        shutil.copy(self._log, result / "build.log")
        result.chmod(0o755)
        return result

    def _bootstrap(self, root: Path, packages: Sequence[str]) -> None:
        without = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "info", "locale", "man")]
        self._run(
            ["mmdebstrap", "--variant=minbase", f"--keyring={KEYRING}", "--aptopt=APT::Install-Recommends false",
             *without, f"--setup-hook={BACKPORTS_HOOK}", f"--include={','.join(packages)}", SUITE, str(root)]
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


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the lab's image, or find it in the cache.")
    parser.add_argument("--refresh", action="store_true", help="ask the suite whether there is a newer kernel")
    parser.add_argument("--prune", action="store_true", help="then remove all other images from the cache")
    options = parser.parse_args()
    try:
        image = ensure_image(refresh=options.refresh)
    except ImageError as error:
        print(f"image.py: {error}", file=sys.stderr)
        return 1
    if options.prune:
        for other in cache_folder().glob("image-*"):
            if other != image.folder:
                print(f"removing {other}")
                _remove(other)
    print(f"kernel release  {image.kernel_release}")
    print(f"kernel          {image.kernel}")
    print(f"disk            {image.disk} ({image.disk.stat().st_blocks * 512 // 2**20} MiB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
