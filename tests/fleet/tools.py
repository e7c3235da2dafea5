# SPDX-License-Identifier: Apache-2.0
"""Where the tools are that judge what a fleet runs, and how one is asked.

Belongs here: finding a tool, running it. Does not belong here: what a tool should say.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Files of Debian's packages by release, as `make test-fleet` extracts them.
DEBIAN = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hmm-exporter/debian"


def tool(release: str, name: str) -> Path:
    """A program of one of Debian's releases, which need not be this machine's. Raises FileNotFoundError."""
    path = DEBIAN / release / "usr/bin" / name
    if not path.exists():
        raise FileNotFoundError(f"{path}: `make test-fleet` takes it out of Debian's package")
    return path


def run(*command: str | Path, check: bool = True, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Runs a tool in the checkout; with *check*, a status other than 0 is an AssertionError with all that it said."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=ROOT, input=stdin, capture_output=True, text=True, timeout=120, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(words)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done
