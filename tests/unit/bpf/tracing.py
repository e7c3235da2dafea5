# SPDX-License-Identifier: Apache-2.0
"""A kernel of the tests' own that loads and attaches, and refuses what it is told to.

Nothing is compiled: each program's code is its name. What the kernel then makes of real code is the
affair of tests/bpf.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from hmm_exporter.bpf.attach import Attachments, attach
from hmm_exporter.bpf.compiler import Compiled
from hmm_exporter.bpf.plan import Outcome, choose
from hmm_exporter.bpf.resource_walk import PROGRAM
from hmm_exporter.config import Config
from hmm_exporter.kernel.features import Kernel
from tests.unit.bpf import kernels
from tests.unit.bpf.c_text import preprocess
from tests.unit.bpf.in_memory import Bpf, layouts


class Load(NamedTuple):
    """A program that was loaded."""

    type: int
    program: str
    attach_type: int
    btf_id: int


class Link(NamedTuple):
    """A program that was attached: how, to what, from where in the file, and as a return probe or not."""

    how: str
    program: str
    target: str = ""
    offset: int = 0
    retprobe: bool = False


def number(code: int) -> OSError:
    return OSError(code, os.strerror(code))


class Tracing:
    """The kernel's side. ``refuse_load`` and ``refuse_link`` are asked for an error, or None."""

    def __init__(self) -> None:
        self.loads: list[Load] = []
        self.links: list[Link] = []
        self.compiled: list[str] = []
        self.refuse_load: Callable[[Load], OSError | None] = lambda load: None
        self.refuse_link: Callable[[Link], OSError | None] = lambda link: None
        self.log = ""
        self.bpf = Bpf()
        self._programs: dict[int, str] = {}

    def compile_source(self, text: str, python: str, timeout: float) -> Compiled:
        source = preprocess(text)
        build = next(name for name in source.defined if name.startswith("BUILD_"))
        self.compiled.append(build.removeprefix("BUILD_").lower())
        programs = {}
        for macro, name in re.findall(r"^(ENTER|LEAVE|TRACEPOINT)\((\w+)\)", source.code, re.MULTILINE):
            program = f"{'leave' if macro == 'LEAVE' else 'enter'}_{name}"
            programs[program] = program.encode().ljust(64, b"\0")
        if PROGRAM in source.code:
            programs[PROGRAM] = PROGRAM.encode().ljust(64, b"\0")
        return Compiled(programs, layouts(1), "0.26.0")

    def prog_load(
        self,
        kind: int,
        code: bytes,
        name: str,
        attach_type: int = 0,
        btf_id: int = 0,
        log_bytes: int = 0,
        functions: Sequence[tuple[int, int]] = (),
        btf_fd: int = 0,
    ) -> tuple[int, str]:
        assert bool(functions) == bool(btf_fd)
        load = Load(kind, code.rstrip(b"\0").decode(), attach_type, btf_id)
        refusal = self.refuse_load(load)
        if refusal:
            raise OSError(refusal.errno, refusal.strerror, self.log if log_bytes else "")
        self.loads.append(load)
        return self._open(load.program), ""

    def prog_test_run(self, fd: int, context: bytes) -> int:
        """The walk of the resources, which finds none; 0 is that it is done."""
        assert self._programs[fd] == PROGRAM
        return 0

    def raw_tracepoint_open(self, prog_fd: int, name: str = "") -> int:
        return self._link(Link("tracepoint" if name else "tracing", self._programs[prog_fd], name))

    def probe_open(self, pmu: int, retprobe_bit: int | None, target: str, offset: int, prog_fd: int) -> int:
        assert retprobe_bit in (None, 0)
        how = {kernels.KPROBE.type: "kprobe", kernels.UPROBE.type: "uprobe"}[pmu]
        return self._link(Link(how, self._programs[prog_fd], target, offset, retprobe_bit is not None))

    def kprobe_multi_open(self, prog_fd: int, function: str, retprobe: bool) -> int:
        return self._link(Link("kprobe-multi", self._programs[prog_fd], function, retprobe=retprobe))

    def _link(self, link: Link) -> int:
        refusal = self.refuse_link(link)
        if refusal:
            raise refusal
        self.links.append(link)
        return self._open(link.program)

    def _open(self, program: str) -> int:
        fd = os.open(os.devnull, os.O_RDONLY)
        self._programs[fd] = program
        return fd


def attached(kernel: Kernel, config: Config) -> tuple[dict[str, Outcome], Attachments]:
    """Outcomes by probe. The attachments are closed already."""
    plan, _ = choose(kernel, config)
    attachments = attach(kernel, config, plan)
    attachments.close()
    return {outcome.probe.name: outcome for outcome in attachments.outcomes}, attachments
