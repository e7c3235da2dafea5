# SPDX-License-Identifier: Apache-2.0
"""The status page of an exporter on a busy simulated node, in a browser: for tests, and for `make pictures`."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.fleet.browser import Browser, View
from tests.fleet.pictures import shrink
from tests.fleet.simulated import CONFIGURATION, EVENTS_PER_SECOND, WORKLOADS, scenarios
from tests.host_files import simulated_node
from tests.process import ROOT, SIMULATOR, Exporter

WIDTHS = {"wide": 1440, "narrow": 390}
SCHEMES = ("light", "dark")
EACH = tuple(itertools.product(WIDTHS, SCHEMES))
_LONGEST = 600
_SECONDS = 15
#: What the README shows: from the top of one element to the end of another.
_IN_README = {
    "status": ("wide", "light", ("html", ".who")),
    "status-histograms": ("wide", "dark", (".histograms", ".histograms")),
}


@contextlib.contextmanager
def busy_node(folder: Path) -> Iterator[str]:
    """The page's address, while every scenario is played in pods and jobs."""
    files, cgroups = simulated_node(folder)
    chosen = [word for name in scenarios() for word in ("--scenario", name)]
    command = [str(SIMULATOR), "run", "--seconds", str(_LONGEST), "--rate", str(EVENTS_PER_SECOND), *chosen]
    with (
        Exporter(folder, {**CONFIGURATION, **WORKLOADS, **files.options}) as exporter,
        subprocess.Popen([*command, "--cgroups", str(cgroups)], stdout=subprocess.DEVNULL) as player,
    ):
        try:
            yield f"{exporter.url}/"
        finally:
            player.terminate()


def looks(url: str, seconds: float) -> tuple[View, dict[tuple[str, str], View]]:
    """The first look, and after so many seconds one for each width and scheme."""
    with Browser() as browser:
        first = browser.view(url, WIDTHS["wide"], "light")
        time.sleep(seconds)
        return first, {
            (width, scheme): browser.view(f"{url}?refresh=60", WIDTHS[width], scheme) for width, scheme in EACH
        }


def main() -> None:
    """Whole pages to build/pictures, parts to docs/images."""
    with tempfile.TemporaryDirectory() as folder, busy_node(Path(folder)) as url:
        _, views = looks(url, _SECONDS)
        for each, view in views.items():
            _write(view, ROOT / f"build/pictures/status-{'-'.join(each)}.png")
        time.sleep(_SECONDS)
        with Browser() as browser:
            for name, (width, scheme, part) in _IN_README.items():
                picture = ROOT / f"docs/images/{name}.png"
                _write(browser.view(url, WIDTHS[width], scheme, part), picture)
                shrink(picture)


def _write(view: View, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(view.picture)


if __name__ == "__main__":
    main()
