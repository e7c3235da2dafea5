# SPDX-License-Identifier: Apache-2.0
"""Attaches compiled programs, probe by probe, each with its own result.

fentry and fexit first; what that fails for, by kprobe and kretprobe. The other way round where the
kernel can be preempted inside of a program: while one thread is, fentry skips the same program for
all others on that CPU (bpf_prog_enter_recur, kernel/bpf/trampoline.c), and kprobes cannot be
preempted. They are skipped while a task on that CPU is in bpf(2) on a map, as ours is at a scrape,
so that only a kernel that counts what it skips is asked for them. They are links of the kind
kprobe-multi where the kernel has it: those lose no return, however many threads sleep in a function.

Entry and exit of one function are always of one kind.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from hmm_exporter.bpf import code as instructions
from hmm_exporter.bpf import resource_walk, syscall
from hmm_exporter.bpf.code import Code
from hmm_exporter.bpf.compiler import compile_source
from hmm_exporter.bpf.link import Program, link, uses_kprobe_multi
from hmm_exporter.bpf.load import NotAttached, load
from hmm_exporter.bpf.maps import MapSet
from hmm_exporter.bpf.plan import ATTACHED, ERROR, Outcome
from hmm_exporter.bpf.resource_walk import ResourceWalk
from hmm_exporter.bpf.source import Plan, Target, text
from hmm_exporter.catalog.probe import Probe
from hmm_exporter.catalog.probes import PROBES
from hmm_exporter.catalog.values import DEVICE_REGIONS
from hmm_exporter.config import Config
from hmm_exporter.kernel.devices import Devices
from hmm_exporter.kernel.features import Kernel
from hmm_exporter.kernel.iomem import Iomem, regions

_PROBES = {probe.name: probe for probe in PROBES}


class Attachments:
    """All programs and links of one run; owns their fds, and the maps, until `close`."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.programs: list[Program] = []
        self.maps: MapSet | None = None
        self.bcc = ""
        self.resources: ResourceWalk | Iomem | None = None
        """What to ask, by `read`, for the physical ranges that devices' names come from."""
        self.resources_problem = ""
        """Why it is not asked, or was given up; empty if all is well."""
        self.devices = Devices()
        self._ram_end = 0
        self._links: list[tuple[Program, int]] = []

    @property
    def links(self) -> Sequence[tuple[Program, int]]:
        """Programs that are attached, with the fds of their links, in the order of attaching."""
        return tuple(self._links)

    @property
    def probes(self) -> frozenset[str]:
        """Those with programs, attached or not."""
        return frozenset(program.probe for program in self.programs)

    @property
    def knows_devices(self) -> bool:
        """Whether page frames of devices can be told from RAM's."""
        return self._ram_end > 0

    @property
    def devices_problem(self) -> str:
        """Why no device has a name, and what would help; empty if nothing is wrong."""
        if self.knows_devices:
            return ""
        asked = self.resources.problem if self.resources else ""
        return self.resources_problem or asked or "the kernel tells no RAM among its physical ranges"

    def keep(self, program: Program, link: int | None = None) -> None:
        """Own that program, which may be there already, and its link, if it is attached."""
        if program not in self.programs:
            self.programs.append(program)
        if link is not None:
            self._links.append((program, link))

    def detach(self, probes: Container[str], entries_only: bool = False) -> None:
        """Close these probes' links, newest first: entries before the returns that they pair with.

        ``entries_only``: to let calls that are under way return first.
        """
        gone = [link for link in self._links if link[0].probe in probes and (link[0].is_entry or not entries_only)]
        self._links = [link for link in self._links if link not in gone]
        for _, fd in reversed(gone):
            os.close(fd)

    def forget(self, probe: str) -> None:
        """Let go of its programs, which are not attached."""
        for program in [each for each in self.programs if each.probe == probe]:
            os.close(program.fd)
            self.programs.remove(program)

    def learn_devices(self, page_size: int) -> None:
        """Tell the programs whose page frames are whose now: devices come and go with their drivers."""
        if not self.maps or not self.resources:
            return
        found = regions(self.resources.read(), page_size)
        if not found.ram_end:  # what was told before is better than nothing
            return
        if self.devices.update(found.devices) or found.ram_end != self._ram_end:  # RAM can be added, too
            self.maps.write_devices(found.ram_end, self.devices.table()[:DEVICE_REGIONS])
            self._ram_end = found.ram_end

    def close(self) -> None:
        """Detach, and let go of everything."""
        self.detach(self.probes)
        for probe in self.probes:
            self.forget(probe)
        if self.resources:
            self.resources.close()
        if self.maps:
            self.maps.close()


def attach(kernel: Kernel, config: Config, plan: Plan) -> Attachments:
    """Compile, load and attach all of ``plan``. Raises StartError when nothing can be compiled."""
    attachments = Attachments()
    attachments.resources, attachments.resources_problem = kernel.iomem, kernel.iomem.problem
    try:
        attachments.outcomes += attach_more(kernel, config, plan, attachments)
    except BaseException:
        attachments.close()
        raise
    return attachments


def attach_more(
    kernel: Kernel, config: Config, plan: Plan, attachments: Attachments, load_only: bool = False
) -> list[Outcome]:
    """The same, to the maps that are there already; what became of each. Raises StartError.

    ``load_only``: their programs are to be attached later, in a moment.
    """
    outcomes: dict[str, Outcome] = {}
    for build in _builds(kernel, config):
        waiting = tuple(
            target
            for target in plan.targets
            if target.probe not in outcomes or outcomes[target.probe].state != ATTACHED
        )
        # Compiled once is enough of what is no probe's.
        resources = plan.resources and attachments.maps is None
        build_plan = replace(plan, targets=waiting, resources=resources)
        for outcome in _attach_build(kernel, config, build_plan, build, attachments, load_only):
            # What the first kind could not do the second may; if neither can, both reasons count.
            earlier = outcomes.get(outcome.probe.name)
            if earlier and outcome.state != ATTACHED:
                outcome = replace(outcome, reason=f"{earlier.reason}; {outcome.reason}")
            outcomes[outcome.probe.name] = outcome
    return list(outcomes.values())


def _builds(kernel: Kernel, config: Config) -> tuple[str, ...]:
    if kernel.simulated:
        return ("uprobe",)
    if config.probes.attach != "auto":
        return (config.probes.attach,)
    loses_fewer = kernel.preemptible and kernel.kprobe_multi and kernel.counts_missed_kprobes
    return ("kprobe", "fentry") if loses_fewer else ("fentry", "kprobe")


def _attach_build(
    kernel: Kernel, config: Config, plan: Plan, build: str, attachments: Attachments, load_only: bool
) -> Iterator[Outcome]:
    pmu = {"kprobe": kernel.kprobe, "uprobe": kernel.uprobe}.get(build)
    possible = []
    for target in plan.targets:
        # Raw tracepoints are attached alike in all builds for a kernel.
        if (
            build == "fentry"
            or pmu
            or kernel.kprobe_multi
            or (_PROBES[target.probe].tracepoint and not kernel.simulated)
        ):
            possible.append(target)
        else:
            reason = f"{build}: this kernel has none (CONFIG_{build.upper()}_EVENTS)"
            yield Outcome(_PROBES[target.probe], target.function, ERROR, reason=reason)
    if not possible:
        return
    plan = replace(plan, targets=tuple(possible))
    compiled = compile_source(text(plan, build), config.loader.python, config.loader.timeout)
    attachments.bcc = compiled.bcc
    if attachments.maps is None:
        attachments.maps = MapSet(config.limits, config.maps, plan.shards, compiled.maps)
    code = instructions.link(compiled, attachments.maps.fds)
    if plan.resources:
        value_bytes = compiled.maps[resource_walk.MAP].value_bytes
        _load_resource_walk(kernel, code[resource_walk.PROGRAM], value_bytes, attachments)
    attachments.learn_devices(kernel.page_size)
    attacher = _Attacher(kernel, build, plan.groups, code, load_only)
    failed: set[str] = set()
    # From the last function of a call to the first: nothing is begun whose end is not watched.
    for target in reversed(possible):
        probe = _PROBES[target.probe]
        try:
            if probe.requires in failed:
                raise NotAttached(ERROR, f"needs {probe.requires}")
            yield Outcome(probe, target.function, ATTACHED, attacher.attach(target, attachments))
        except NotAttached as refusal:
            failed.add(probe.name)
            yield Outcome(probe, target.function, refusal.state, reason=f"{build}: {refusal.reason}")


def _load_resource_walk(kernel: Kernel, code: Code, value_bytes: int, attachments: Attachments) -> None:
    """In place of /proc/iomem, which stays where there can be no walk."""
    root = kernel.symbols.address(resource_walk.ROOT)
    problem = resource_walk.why_not(kernel, root)
    if attachments.maps and root is not None and not problem:
        try:
            program = load(syscall.PROG_RAW_TRACEPOINT, code, resource_walk.PROGRAM)
        except NotAttached as refusal:
            problem = refusal.reason
        else:
            walk = ResourceWalk(program, attachments.maps.fds[resource_walk.MAP], value_bytes, root)
            attachments.resources, attachments.resources_problem = walk, ""
    if problem and attachments.resources_problem:
        attachments.resources_problem = problem


@dataclass(frozen=True)
class _Attacher:
    """Loads and attaches the programs of one build."""

    kernel: Kernel
    build: str
    groups: frozenset[str]
    code: Mapping[str, Code]
    load_only: bool

    def attach(self, target: Target, attachments: Attachments) -> str:
        """The kind by which the probe is attached. Raises NotAttached; then nothing of it is left."""
        probe = _PROBES[target.probe]
        programs: list[Program] = []
        links: list[int | None] = []
        try:
            # The return first, so that no entry waits for one that is not watched.
            for name in reversed(wanted_programs(probe, self.groups)):
                kind = self._kind(probe, name)
                programs.append(Program(probe.name, name, kind, self._load(target, name, kind), target.function))
                links.append(None if self.load_only else link(self.kernel, programs[-1]))
        except NotAttached:
            for fd in [fd for fd in links if fd is not None] + [program.fd for program in programs]:
                os.close(fd)
            raise
        for program, its_link in zip(programs, links):
            attachments.keep(program, its_link)
        return kind_of_probe(programs[-1])

    def _kind(self, probe: Probe, program: str) -> str:
        if probe.tracepoint and not self.kernel.simulated:
            return "tracepoint"
        entry = program.startswith("enter_")
        return {
            "fentry": "fentry" if entry else "fexit",
            "kprobe": "kprobe" if entry else "kretprobe",
            "uprobe": "uprobe" if entry else "uretprobe",
        }[self.build]

    def _load(self, target: Target, name: str, kind: str) -> int:
        code = self.code[name]
        if kind == "tracepoint":
            return load(syscall.PROG_RAW_TRACEPOINT, code, target.probe)
        if kind in ("fentry", "fexit"):
            function = self.kernel.btf.function(target.function) if self.kernel.btf else None
            attach_type = syscall.TRACE_FENTRY if kind == "fentry" else syscall.TRACE_FEXIT
            return load(syscall.PROG_TRACING, code, target.probe, attach_type, function.type_id if function else 0)
        attach_type = syscall.TRACE_KPROBE_MULTI if uses_kprobe_multi(self.kernel, kind) else 0
        return load(syscall.PROG_KPROBE, code, target.probe, attach_type)


def kind_of_probe(program: Program) -> str:
    """What is said of a probe by the first of its programs."""
    return program.kind.replace("uretprobe", "uprobe")


def wanted_programs(probe: Probe, groups: frozenset[str]) -> tuple[str, ...]:
    """The probe's programs, entry first, without an exit that only another group needs."""
    if probe.exit_only_with and probe.exit_only_with not in groups:
        return probe.programs[:1]
    return probe.programs
