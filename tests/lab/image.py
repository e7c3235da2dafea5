# SPDX-License-Identifier: Apache-2.0
"""The images that lab machines boot: finds them in the cache, and has them built where they are missing.

Belongs here: the cache, and who may write to it. Does not belong here: what an image is made of (recipe.py), the steps
of a build (builder.py), starting a machine (vm.py). Only the standard library is used: `python3 -m tests.lab.image`
needs nothing installed.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab.builder import Builder, ImageError, check_host
from tests.lab.recipe import RECIPES, Recipe, RecipeError, chosen, identity


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


def cached_image(recipe: Recipe) -> Image | None:
    """The newest image that this very recipe built, if there is one. Asks no network."""
    found = []
    for description in cache_folder().glob(f"{_name(recipe)}-*/image.json"):
        fields = json.loads(description.read_text())
        image = Image(description.parent, fields["kernel_release"], fields["package_version"])
        found.append((description.stat().st_mtime, image))
    return max(found, key=lambda pair: pair[0])[1] if found else None


def ensure_image(recipe: Recipe | None = None, refresh: bool = False, say: Callable[[str], None] = print) -> Image:
    """The cached image, or a new one; with `refresh`, a newer kernel in the suite's index makes a new one, too.

    Without a recipe it is the one that the environment names.
    """
    recipe = recipe or chosen()
    image = cached_image(recipe)
    if image and not refresh:
        return image
    check_host()
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with _exclusively(cache / "lock", say):
        image = cached_image(recipe)  # whoever held the lock may have built it
        if image and not refresh:
            return image
        with _temporary_folder(cache) as work:
            builder = Builder(recipe, work, say)
            release, package_version = builder.newest_kernel()
            target = cache / f"{_name(recipe)}-{release}"
            if not target.exists():
                builder.build(release, package_version).rename(target)
        return Image(target, release, package_version)


def prune(say: Callable[[str], None] = print) -> None:
    """Removes the images that no recipe of today would boot."""
    kept = {image.folder for recipe in RECIPES if (image := cached_image(recipe))}
    for folder in set(cache_folder().glob("image-*")) - kept:
        say(f"removing {folder}")
        _remove(folder)


def _name(recipe: Recipe) -> str:
    return f"image-{recipe.kernel}-{identity(recipe)}"


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


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Build the lab's image, or find it in the cache. KERNEL in the environment says which kernel's."
    )
    parser.add_argument("--refresh", action="store_true", help="ask the suite whether there is a newer kernel")
    parser.add_argument(
        "--prune", action="store_true", help="then remove the images that no recipe of today would boot"
    )
    options = parser.parse_args()
    try:
        image = ensure_image(refresh=options.refresh)
    except (ImageError, RecipeError) as error:
        print(f"image.py: {error}", file=sys.stderr)
        return 1
    if options.prune:
        prune()
    print(f"kernel release  {image.kernel_release}")
    print(f"kernel          {image.kernel}")
    print(f"disk            {image.disk} ({image.disk.stat().st_blocks * 512 // 2**20} MiB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
