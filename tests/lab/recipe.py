# SPDX-License-Identifier: Apache-2.0
"""Which kernels the lab has: for each the user space that boots with it, and what both are made of, as data.

Belongs here: packages, suites, the scripts that compile; which of the recipes is meant. Does not belong here: the steps
of a build (builder.py), where its result is kept (image.py).
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: The environment's choice among the kernels; `make test-lab KERNEL=6.12` sets it.
VARIABLE = "KERNEL"


class RecipeError(ValueError):
    """There is no such kernel in the lab; the text says which there are."""


@dataclass(frozen=True)
class Recipe:
    """One kernel. In the names of packages, {release} and {series} stand for, say, 7.3.4+deb13-cloud-amd64 and 7.3."""

    kernel: str
    #: Debian's release whose user space boots, and bcc and bpftrace with it.
    suite: str
    #: The suite the kernel comes from, where it is not that release itself.
    backports: str | None
    #: The package whose description says which kernel is the newest, and where it says so.
    newest: str
    release_pattern: str
    #: Packages that only this kernel's image has, in both roots: the kernel itself, where no script builds it, and what
    #: tests for which one kernel is enough need.
    kernel_packages: tuple[str, ...]
    #: Packages of the root that compiles, and the scripts that run there in turn, with release and series as arguments.
    #: What they leave in /build/installed is copied over the root that boots.
    build_packages: tuple[str, ...]
    scripts: tuple[str, ...]
    #: Files that the scripts read, in the top folder of the root that compiles.
    files: tuple[str, ...]


#: In each root that boots. qemu-guest-agent is how the host runs commands; the rest is what exporter and referee need.
BOOT_PACKAGES = (
    "bpftool", "bpftrace", "curl", "iproute2", "kmod", "procps", "python3-bpfcc", "python3-prometheus-client",
    "python3-yaml", "qemu-guest-agent",
)  # fmt: skip
#: For what a fleet runs the exporter under: systemd, with all that `make install` would else fetch, and the container
#: runtime of Kubernetes.
_FLEET_PACKAGES = (
    "containerd", "dbus", "libcap2-bin", "python3-bcrypt", "python3-grpcio", "runc", "systemd", "systemd-sysv",
)  # fmt: skip
_COMPILER = ("binutils", "gcc", "libc6-dev", "make", "xz-utils", "zstd")
_KERNEL_COMPILER = (*_COMPILER, "bc", "bison", "dwarves", "flex", "kmod", "libelf-dev", "python3-minimal")


def _stock(kernel: str, suite: str) -> Recipe:
    """Debian's backported cloud kernel as it is: it has DEVICE_PRIVATE, and only test_hmm.ko has to be added."""
    return Recipe(
        kernel=kernel,
        suite=suite,
        backports=f"{suite}-backports",
        newest="linux-image-cloud-amd64",
        release_pattern=r"^Depends:.*\blinux-image-(\d\S*-cloud-amd64)",
        # By their own names: linux-image-* would pull in a generator of initial RAM disks, which this kernel does not
        # need (NVMe and ext4 are built in).
        kernel_packages=("linux-binary-{release}", "linux-modules-{release}", *_FLEET_PACKAGES),
        build_packages=(*_COMPILER, "linux-headers-{release}", "linux-source-{series}"),
        scripts=("module.sh", "hmm-tests.sh", "systemd.sh"),
        files=("select.c",),
    )


def _own(kernel: str, suite: str) -> Recipe:
    """Debian's source of a kernel that Debian itself builds without DEVICE_PRIVATE."""
    return Recipe(
        kernel=kernel,
        suite=suite,
        backports=None,
        newest=f"linux-source-{kernel}",
        release_pattern=r"^Version: ([\d.]+)-",
        kernel_packages=(),
        build_packages=(*_KERNEL_COMPILER, f"linux-source-{kernel}"),
        scripts=("kernel.sh", "hmm-tests.sh"),
        files=("kernel.config", "select.c"),
    )


#: The first is the default.
RECIPES = (_stock("7.3", "trixie"), _own("6.12", "trixie"), _own("6.1", "bookworm"))


def chosen() -> Recipe:
    """The kernel that the environment names, else the default."""
    name = os.environ.get(VARIABLE) or RECIPES[0].kernel
    for recipe in RECIPES:
        if recipe.kernel == name:
            return recipe
    raise RecipeError(f"{VARIABLE}={name}: the lab has {', '.join(recipe.kernel for recipe in RECIPES)}")


def identity(recipe: Recipe) -> str:
    """A hash of all that decides what its image looks like: a change of any of it builds a new image."""
    digest = hashlib.sha256(f"{recipe!r} {BOOT_PACKAGES!r}".encode())
    for name in ("builder.py", "init.sh", *recipe.scripts, *recipe.files):
        digest.update(name.encode() + b"\0" + (HERE / name).read_bytes() + b"\0")
    return digest.hexdigest()[:12]


if __name__ == "__main__":
    print("\n".join(recipe.kernel for recipe in RECIPES))
