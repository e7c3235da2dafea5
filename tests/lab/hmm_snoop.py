# SPDX-License-Identifier: Apache-2.0
"""The bpftrace script hmm-snoop.bt as a referee: runs it in the lab machine and reads its maps.

The script is not part of this project. It is looked for in HMM_SNOOP, else beside the checkout.
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.lab.vm import VirtualMachine

ROOT = Path(__file__).parents[2]
BESIDE = ROOT.parent / "shared/seed/hmm-snoop.bt"

#: The kernel runs no kprobe's program on a CPU where a task is in bpf(2) on a map (kernel/trace/bpf_trace.c,
#: trace_call_bpf; kernel/bpf/syscall.c, bpf_disable_instrumentation; 7.3.4). Who reads maps beside the script is
#: therefore not to be preempted there by the work that is watched, nor is the script itself.
UNPREEMPTED = "chrt --fifo 1"


def find() -> Path | None:
    """The script, if it is anywhere."""
    named = os.environ.get("HMM_SNOOP")
    path = Path(named) if named else BESIDE
    return path if path.is_file() else None


def printed(script: str) -> set[str]:
    """The maps whose figures the script prints, in summaries or at the end.

    Named there, or left for bpftrace, which prints at the end what is not cleared; but not what BEGIN sets: constants.
    """
    code = re.sub(r"/\*.*?\*/", "", script, flags=re.DOTALL)
    summary, final = (_block(code, head) for head in ("interval:s:5", "END"))
    named = {name for call in re.findall(r"printf?\((.*?)\);", summary + final, re.DOTALL) for name in _maps(call)}
    left = _maps(code) - {name for cleared in re.findall(r"clear\((.*?)\)", final) for name in _maps(cleared)}
    return (named | left) - set(re.findall(r"@(\w+) =", _block(code, "BEGIN")))


def _block(code: str, head: str) -> str:
    """A probe's body."""
    body = code[code.index(f"{head}\n{{") :]
    depth = 0
    for brace in re.finditer(r"[{}]", body):
        depth += 1 if brace[0] == "{" else -1
        if not depth:
            return body[: brace.end()]
    raise ValueError(f"{head}: its braces do not balance")


def _maps(code: str) -> set[str]:
    return set(re.findall(r"@(\w+)", code))


class HmmSnoop:
    """The script, attached from `with` to `stop`."""

    def __init__(self, machine: VirtualMachine, script: Path) -> None:
        self._machine = machine
        machine.push(script, "/tmp/hmm-snoop.bt")

    def __enter__(self) -> HmmSnoop:
        self._others = set(self._misses())
        self._process = self._machine.start(f"exec {UNPREEMPTED} bpftrace -f json /tmp/hmm-snoop.bt 0 0")
        # Its BEGIN runs when everything is attached.
        self._process.wait_for_output("hmm-snoop: tracing", timeout=180)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.running():
            self._process.stop("KILL")

    def wait_for_summary(self) -> None:
        """Waits for one that begins after now: not all of its maps are in the final report."""
        begun = self._process.stdout().count("hmm-snoop summary at")
        deadline = time.monotonic() + 120
        while self._process.stdout().count("migrate_device_pfns: ") <= begun:
            if time.monotonic() > deadline:
                raise TimeoutError(f"hmm-snoop.bt: no summary in 120 s after its {begun}th")
            time.sleep(1)

    def missed(self) -> int:
        """Events that the kernel did not run the script's programs for. It does not say so itself."""
        misses = self._misses()
        return sum(misses[number] for number in misses if number not in self._others)

    def _misses(self) -> dict[int, int]:
        """Of all programs in the kernel, by number."""
        programs = json.loads(self._machine.run("bpftool prog show -j").stdout)
        return {program["id"]: program.get("recursion_misses", 0) for program in programs}

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


def figure(value: object) -> int:
    """A scalar, or the events of a histogram: its bounds and units are not ours."""
    return sum(bucket["count"] for bucket in value) if isinstance(value, list) else int(str(value))


def by_key(value: object) -> dict[str, int]:
    """The figures of a map with keys."""
    return {key: figure(each) for key, each in value.items()} if isinstance(value, dict) else {}


def counted(value: object) -> bool:
    """Whether a map, of whatever kind, has counted anything."""
    return any(by_key(value).values()) if isinstance(value, dict) else bool(figure(value))
