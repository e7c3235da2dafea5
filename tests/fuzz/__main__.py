# SPDX-License-Identifier: Apache-2.0
"""Runs fuzzers, one after another, each in a process of its own: ``make fuzz``.

Prints a line each: inputs tried, branches and features reached (libFuzzer's cov and ft), seconds. A target that
fails leaves the input in build/fuzz/TARGET, and the last lines of its log are printed. New inputs stay there, too;
``--keep`` puts the fewest and smallest that reach as much into the corpus.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.target import CORPUS, load, names

_FOLDER = Path(__file__).parents[2] / "build" / "fuzz"

_UNNAMED = re.compile("[0-9a-f]{40}")
"""What libFuzzer calls an input, by its contents."""

_SECONDS, _MEBIBYTES = 10, 1024
"""For one input, and for the process: a thousand times what any input takes."""


_TOO_FEW = 99
"""Our status for a fuzzer that ends well, and has not tried as many inputs as it should; libFuzzer's are others."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs for each target")
    parser.add_argument("--seed", type=int, default=0, help="for the same inputs again (default: others each time)")
    parser.add_argument("--folder", type=Path, default=_FOLDER, help="for logs and new inputs (default: build/fuzz)")
    parser.add_argument("--keep", action="store_true", help="take what was found into the corpus; no run")
    parser.add_argument("target", nargs="*", help=f"of {', '.join(names())} (default: all)")
    given = parser.parse_args()
    if why := why_not():
        print(why)
        return 1
    if unknown := set(given.target) - set(names()):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    statuses = []
    for name in given.target or names():
        folder = given.folder / name
        (folder / "found").mkdir(parents=True, exist_ok=True)
        statuses.append(keep(name, folder) if given.keep else run(name, folder, given.runs, given.seed))
    return int(any(statuses))


def why_not() -> str:
    """Why nothing can be fuzzed here; empty if it can."""
    if importlib.util.find_spec("atheris"):
        return ""
    return (
        f"atheris is not installed ({sys.executable} -m pip install '.[fuzz]'),"
        " or has no wheel for this Python and architecture"
    )


def run(name: str, folder: Path, runs: int, seed: int) -> int:
    """Fuzz one target; its exit status."""
    log = folder / "log"
    begun = time.monotonic()
    with log.open("wb") as output:
        arguments = [f"-runs={runs}", f"-seed={seed}", f"-artifact_prefix={folder}/", str(folder / "found")]
        status = _child(name, folder, arguments, output.fileno())
    seconds = time.monotonic() - begun
    text = log.read_text(errors="replace")
    reached = re.findall(r"^#(\d+)\s.*?cov: (\d+) ft: (\d+) corp: (\d+)", text, re.MULTILINE)
    inputs, branches, features, corpus = reached[-1] if reached else (0, 0, 0, 0)
    if status == 0 and int(inputs) < runs:
        status = _TOO_FEW
    print(
        f"{name:16} {int(inputs):>9,} inputs  cov {branches:>5}  ft {features:>6}  corpus {corpus:>4}  {seconds:6.0f} s"
        + ("" if status == 0 else f"  FAILED with status {status}: see {log}"),
        flush=True,
    )
    if status:
        print("\n".join(text.splitlines()[-25:]))
    return status


def keep(name: str, folder: Path) -> int:
    """Put the fewest and smallest inputs that reach as much into the corpus, beside those that have a name."""
    fewest, corpus = folder / "fewest", CORPUS / name
    shutil.rmtree(fewest, ignore_errors=True)
    fewest.mkdir()
    with (folder / "merge.log").open("wb") as output:
        # By branches: how often each was taken would make it ten times as many.
        arguments = ["-merge=1", "-use_counters=0", str(fewest), str(folder / "found")]
        status = _child(name, folder, arguments, output.fileno())
    if status == 0:
        for path in corpus.iterdir():
            if _UNNAMED.fullmatch(path.name):
                path.unlink()
        known = {path.read_bytes() for path in corpus.iterdir()}
        for path in fewest.iterdir():
            if path.read_bytes() not in known:
                shutil.copy(path, corpus)
    sizes = [path.stat().st_size for path in corpus.iterdir()]
    print(f"{name:16} {len(sizes):>4} inputs, {sum(sizes):>6} bytes", flush=True)
    return status


def _child(name: str, folder: Path, arguments: list[str], output: int) -> int:
    target = load(name)
    words = folder / "words"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
    limits = [f"-max_len={target.most_bytes}", f"-timeout={_SECONDS}", f"-rss_limit_mb={_MEBIBYTES}"]
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.child",
        name,
        *limits,
        f"-dict={words}",
        *arguments,
        str(CORPUS / name),
    ]
    return subprocess.run(command, stdout=output, stderr=output).returncode


def _escaped(word: str | bytes) -> str:
    """As libFuzzer reads the words of its dictionary: two hexadecimal digits a byte."""
    return "".join(f"\\x{byte:02x}" for byte in (word.encode() if isinstance(word, str) else word))


if __name__ == "__main__":
    sys.exit(main())
