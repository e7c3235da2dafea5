# SPDX-License-Identifier: Apache-2.0
"""The container's image, built from the Dockerfile without a registry, on a disk for a lab machine's containerd.

Belongs here: the base that stands in for Debian's, the build by buildah, the disk, and the cache of all three. Does not
belong here: what is in the image (Dockerfile), running it (pods.py). `python3 -m tests.lab.container_image` builds it.

Layers are buildah's to keep, in a storage of our own: what changed is built, and where that is the exporter's code, it
takes seconds. Debian's packages are those of the day of the first build; --refresh forgets them and takes today's.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab.builder import KEYRING, SYSTEM_FOLDERS, ImageError
from tests.lab.image import cache_folder

ROOT = Path(__file__).parents[2]
NAME, PAUSE = "localhost/hmm-exporter:test", "localhost/pause:test"
#: In place of the image that the Dockerfile begins with: the same suite and essential packages.
_BASE = "localhost/debian:trixie-slim"
_HOST_TOOLS = {"buildah": "buildah", "gcc": "gcc", "mke2fs": "e2fsprogs", "mmdebstrap": "mmdebstrap"}
#: The lab's own containerd, which the Makefile extracts: an emulated processor would unpack an image for minutes.
_CONTAINERD = cache_folder().with_name("debian") / "trixie/usr/bin"
#: Sparse: room for the layers, for what they are unpacked to, and for what containers write.
_DISK_SIZE = "2G"
_PAUSE_PROGRAM = "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n"


@dataclass(frozen=True)
class ContainerImage:
    """A built image. ``disk`` is ext4, to be mounted at /var/lib/containerd: it has NAME and PAUSE, unpacked."""

    disk: Path
    id: str
    layer_bytes: tuple[int, ...]
    """Unpacked, from the first."""


def ensure_container_image(refresh: bool = False) -> ContainerImage:
    """The image of this checkout. Raises ImageError."""
    path = os.environ.get("PATH", "") + SYSTEM_FOLDERS
    if missing := sorted(package for tool, package in _HOST_TOOLS.items() if not shutil.which(tool, path=path)):
        raise ImageError(f"host tools are missing; install the packages: {' '.join(missing)}")
    if not (_CONTAINERD / "containerd").exists():
        raise ImageError(f"{_CONTAINERD}/containerd: `make lab-packages` takes it out of Debian's package")
    if os.geteuid() != 0:
        raise ImageError("building the container's image needs root")
    folder = cache_folder().with_name("container")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if refresh:
            _buildah(folder, "rmi", "--all", "--force")
        return _build(folder)


def _build(folder: Path) -> ContainerImage:
    known = _buildah(folder, "images", "--format", "{{.Name}}:{{.Tag}}").split()
    if _BASE not in known:
        _make_base(folder)
    if PAUSE not in known:
        _make_pause(folder)
    # Without namespaces, which a build inside of a container may not make.
    options = ("--isolation=chroot", "--pull-never", "--layers")
    _buildah(folder, "bud", *options, f"--from={_BASE}", f"--tag={NAME}", str(ROOT))
    described = json.loads(_buildah(folder, "inspect", "--type=image", NAME))
    layers = tuple(layer["size"] for layer in json.loads(described["Manifest"])["layers"])
    image = ContainerImage(folder / f"{described['FromImageID'][:12]}.ext4", described["FromImageID"], layers)
    if not image.disk.exists():
        _make_disk(folder, image.disk)
        for other in set(folder.glob("*.ext4")) - {image.disk}:
            other.unlink()
    return image


def _make_base(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as work:
        tar = f"{work}/base.tar"
        packages = "--include=apt,ca-certificates"
        _run("mmdebstrap", "--variant=essential", packages, "--components=main", f"--keyring={KEYRING}", "trixie", tar)
        container = _buildah(folder, "from", "scratch").strip()
        _buildah(folder, "add", container, tar, "/")
        _buildah(folder, "commit", "--rm", container, _BASE)


def _make_pause(folder: Path) -> None:
    """What keeps a pod's namespaces: any program that does nothing."""
    with tempfile.TemporaryDirectory(dir=folder) as work:
        _run("gcc", "-static", "-Os", "-x", "c", "-o", f"{work}/pause", "-", stdin=_PAUSE_PROGRAM)
        container = _buildah(folder, "from", "scratch").strip()
        _buildah(folder, "add", container, f"{work}/pause", "/pause")
        _buildah(folder, "config", "--entrypoint", '["/pause"]', container)
        _buildah(folder, "commit", "--rm", container, PAUSE)


def _make_disk(folder: Path, disk: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as work:
        state = Path(work) / "state"
        with _containerd(Path(work), state) as client:
            for name in (NAME, PAUSE):
                archive = f"{work}/archive"
                _buildah(folder, "push", name, f"docker-archive:{archive}:{name}")
                _run(*client, "image", "import", archive)
                os.unlink(archive)
        made = Path(work) / "disk"
        _run("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(state), str(made), _DISK_SIZE)
        made.rename(disk)


@contextlib.contextmanager
def _containerd(work: Path, state: Path) -> Iterator[tuple[str, ...]]:
    """A containerd with its state in a folder; the command that asks it, as the kubelet's containers are kept."""
    configuration, socket = work / "config.toml", work / "socket"
    configuration.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
    program = str(_CONTAINERD / "containerd")
    command = [program, f"--config={configuration}", f"--root={state}", f"--state={work}/run", f"--address={socket}"]
    with (work / "log").open("wb") as log:
        daemon = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *command], stdout=log, stderr=log)
    try:
        while not socket.exists():
            if daemon.poll() is not None:
                raise ImageError(f"containerd ended:\n{(work / 'log').read_text()}")
            time.sleep(0.05)
        yield str(_CONTAINERD / "ctr"), f"--address={socket}", "--namespace=k8s.io"
    finally:
        daemon.terminate()
        daemon.wait()


def _buildah(folder: Path, *arguments: str) -> str:
    # The user's own images and containers are none of our business.
    storage = (f"--root={folder}/storage", f"--runroot={folder}/run", "--storage-driver=overlay")
    return _run("buildah", *storage, *arguments)


def _run(*command: str, stdin: str = "") -> str:
    environment = {**os.environ, "PATH": os.environ.get("PATH", "") + SYSTEM_FOLDERS}
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
        raise ImageError(f"{' '.join(command[:1] + command[-1:])} failed with status {done.returncode}:\n{tail}")
    return done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the container's image, or find it in the cache.")
    parser.add_argument("--refresh", action="store_true", help="with Debian's packages of today")
    try:
        image = ensure_container_image(parser.parse_args().refresh)
    except ImageError as error:
        print(f"container_image.py: {error}", file=sys.stderr)
        return 1
    print(f"image   {image.id}")
    print(f"layers  {' + '.join(f'{each / 1e6:.1f}' for each in image.layer_bytes)} MB")
    print(f"disk    {image.disk}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
