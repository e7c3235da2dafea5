# SPDX-License-Identifier: Apache-2.0
"""The bpftrace script hmm-snoop.bt as a referee: runs it in the lab machine and reads its maps.

The script is not part of this project. It is looked for in HMM_SNOOP, else beside the checkout.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.lab.vm import VirtualMachine

ROOT = Path(__file__).parents[2]
BESIDE = ROOT.parent / "shared/seed/hmm-snoop.bt"


def find() -> Path | None:
    """The script, if it is anywhere."""
    named = os.environ.get("HMM_SNOOP")
    path = Path(named) if named else BESIDE
    return path if path.is_file() else None


class HmmSnoop:
    """The script, attached from `with` to `stop`."""

    def __init__(self, machine: VirtualMachine, script: Path) -> None:
        self._machine = machine
        machine.push(script, "/tmp/hmm-snoop.bt")

    def __enter__(self) -> HmmSnoop:
        self._process = self._machine.start("exec bpftrace -f json /tmp/hmm-snoop.bt 0 0")
        # Its BEGIN runs when everything is attached.
        self._process.wait_for_output("hmm-snoop: tracing", timeout=180)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.running():
            self._process.stop("KILL")

    def stop(self) -> dict[str, Any]:
        """End it, and give the maps of its final report by name, without the @."""
        output = self._process.stop("INT", timeout=120).stdout
        maps: dict[str, Any] = {}
        for line in output.splitlines():
            if line.startswith("{"):
                entry = json.loads(line)
                if entry.get("type") in ("map", "hist", "lhist"):
                    # The periodic summaries come first, the final report last.
                    maps.update({name.removeprefix("@"): value for name, value in entry["data"].items()})
        return maps


def events(histogram: object) -> int:
    """How many values a printed histogram holds; its bounds and units are not ours."""
    buckets = histogram if isinstance(histogram, list) else [each for by in _values(histogram) for each in by]
    return sum(bucket["count"] for bucket in buckets)


def total(by_key: object) -> int:
    """Sum over a map's keys, or the scalar."""
    return sum(int(value) for value in _values(by_key)) if isinstance(by_key, dict) else int(str(by_key or 0))


def _values(by_key: object) -> list[Any]:
    return list(by_key.values()) if isinstance(by_key, dict) else []
