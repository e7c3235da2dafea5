# SPDX-License-Identifier: Apache-2.0
"""``make bench``: measures everything and writes docs/benchmark.md. The order is that of the document."""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path

from tests.bench import document, lab, programs, scrape
from tests.process import ROOT

TARGET = ROOT / "docs/benchmark.md"


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what watching costs; KERNEL says on which of the lab's.")
    parser.add_argument("--rounds", type=int, default=5, help="in the lab (default: 5)")
    parser.add_argument("--output", type=Path, default=TARGET, help="what is written (default: docs/benchmark.md)")
    options = parser.parse_args()
    measured = lab.measure(options.rounds, _say)
    if measured.script_missing:
        _say(f"no columns for the script: {measured.script_missing}")
    text = document.text(
        document.Machine(_processor(), os.cpu_count() or 1, platform.release(), platform.python_version()),
        measured,
        scrape.measure(_say),
        scrape.maps_bytes(),
        programs.runs(),
        programs.instructions(),
        programs.kept(),
    )
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(text)
    print(text)


def _say(line: str) -> None:
    print(line, flush=True)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
