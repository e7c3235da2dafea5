# SPDX-License-Identifier: Apache-2.0
"""Which probes this kernel can have, by the catalogue, its BTF and the configuration.

Decides before anything is compiled. What then happens to the chosen ones is ``bpf.attach``'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from hmm_exporter.bpf.maps import shards_for
from hmm_exporter.bpf.source import Plan, Target
from hmm_exporter.catalog.fields import (
    CGROUP_FIELDS,
    OPTIONAL_ENUMERATORS,
    OPTIONAL_FIELDS,
    PROCESS_FIELDS,
    RESOURCE_ENUMERATORS,
    RESOURCE_FIELDS,
)
from hmm_exporter.catalog.probe import Probe
from hmm_exporter.catalog.probes import PROBES
from hmm_exporter.config import Config
from hmm_exporter.kernel.btf import Btf
from hmm_exporter.kernel.features import Kernel

ATTACHED, ABSENT, DISABLED, DENIED, ERROR = "attached", "absent", "disabled", "denied", "error"
SHED = "shed"
"""Detached by the governor, for what it cost."""

NO_PAGES = "lockdown is confidentiality: what moved cannot be read, calls and times can"


@dataclass(frozen=True)
class Outcome:
    """What became of a probe. ``reason`` says why not, and what would help; empty when attached."""

    probe: Probe
    function: str
    state: str
    kind: str = "none"
    reason: str = ""


def reads_pages(kernel: Kernel) -> bool:
    """Whether the kernel lets programs read what is not typed (bpf_probe_read_kernel; security/lockdown)."""
    return kernel.simulated is not None or kernel.lockdown != "confidentiality"


def reads_cgroups(kernel: Kernel) -> bool:
    """Whether programs can tell in which cgroup a process is."""
    btf = kernel.btf
    return btf is not None and all(btf.offset(path) is not None for path in CGROUP_FIELDS)


def choose(kernel: Kernel, config: Config, pids: bool = False) -> tuple[Plan, list[Outcome]]:
    """The plan for the probes that can be tried, and the outcome of all others.

    ``pids``: processes are told apart by their ids, too.
    """
    choices = {probe.name: _choose(probe, kernel, config) for probe in PROBES}
    for probe in PROBES:
        required, own = choices.get(probe.requires), choices[probe.name]
        if isinstance(required, Outcome) and isinstance(own, Target):
            reason = f"needs {probe.requires}: {required.reason}"
            choices[probe.name] = replace(required, probe=probe, function=own.function, reason=reason)
    targets = [choice for choice in choices.values() if isinstance(choice, Target)]
    cgroups = not pids and bool(config.process_labels) and reads_cgroups(kernel)
    plan = replace(_plan(targets, kernel, config), pids=pids, cgroups=cgroups)
    return plan, [choice for choice in choices.values() if isinstance(choice, Outcome)]


def why_disabled(probe: Probe, config: Config) -> str:
    """Empty if the configuration wants it."""
    if not config.probes.groups[probe.group]:
        return f"probes.groups.{probe.group} is false"
    return "named in probes.exclude" if probe.name in config.probes.exclude else ""


def _choose(probe: Probe, kernel: Kernel, config: Config) -> Target | Outcome:
    function = probe.functions[0]
    if why := why_disabled(probe, config):
        return Outcome(probe, function, DISABLED, reason=why)
    if kernel.btf is None:
        return Outcome(probe, function, ERROR, reason=kernel.btf_problem)
    if probe.reads_pages and not reads_pages(kernel):
        return Outcome(probe, function, DENIED, reason=NO_PAGES)
    target = _target(probe, kernel, kernel.btf)
    if target is None:
        needs = f", with {probe.needs}" if probe.needs else ""
        return Outcome(
            probe, function, ABSENT, reason=f"not in this kernel (it is in releases: {probe.versions}{needs})"
        )
    missing = [name for name in PROCESS_FIELDS + probe.fields if kernel.btf.offset(name) is None]
    missing += [name for name in probe.enumerators if not kernel.btf.enumerator(name)]
    if missing:
        # An enumerator of 0 is one too: 64-bit flags in the BTF of a pahole that cut them to 32.
        return Outcome(probe, target.function, ABSENT, reason=f"this kernel's BTF has no {', '.join(missing)}")
    return target


def _target(probe: Probe, kernel: Kernel, btf: Btf) -> Target | None:
    for name in probe.functions:
        if probe.tracepoint and not kernel.simulated:
            # Each tracepoint has a typedef of its probe's type (include/trace/bpf_probe.h, 5.3).
            if btf.has_typedef(f"btf_trace_{name}"):
                return Target(probe.name, name, 0)
            continue
        function = btf.function(name)
        if function:
            return Target(probe.name, name, function.parameters)
    return None


def _plan(targets: Iterable[Target], kernel: Kernel, config: Config) -> Plan:
    targets = tuple(targets)
    probes = {probe.name: probe for probe in PROBES}
    chosen = [probes[target.probe] for target in targets]
    paths = {*PROCESS_FIELDS, *OPTIONAL_FIELDS, *CGROUP_FIELDS, *(path for probe in chosen for path in probe.fields)}
    enumerators = {name for probe in chosen for name in probe.enumerators}
    resources = _has_resources(kernel)
    if resources:
        paths.update(RESOURCE_FIELDS)
        enumerators.update(RESOURCE_ENUMERATORS)
    offsets: dict[str, int] = {}
    sizes: dict[str, int] = {}
    values: dict[str, int] = {}
    if kernel.btf:
        for path in sorted(paths):
            offset = kernel.btf.offset(path)
            if offset is not None:
                offsets[path] = offset
                sizes[path.partition(".")[0]] = kernel.btf.size(path.partition(".")[0]) or 0
        names = sorted({*enumerators, *OPTIONAL_ENUMERATORS})
        values = {name: kernel.btf.enumerator(name) or 0 for name in names}
    return Plan(
        targets=targets,
        offsets=offsets,
        sizes=sizes,
        enumerators=values,
        groups=frozenset(name for name, on in config.probes.groups.items() if on),
        shards=shards_for(kernel.possible_cpus),
        page_size=kernel.page_size,
        tgids=config.filter.tgids,
        comms=tuple(comm.encode() for comm in config.filter.comms),
        pages=reads_pages(kernel),
        thrash_window=config.thrash_window,
        migration_phases=config.histograms.migration_phases,
        attempts_in_locked=any(target.probe == "hmm_range_fault_locked" for target in targets),
        resources=resources,
    )


def _has_resources(kernel: Kernel) -> bool:
    """Whether the kernel's tree of physical ranges can be read; a simulator's is a file."""
    btf = kernel.btf
    if btf is None or kernel.simulated:
        return False
    return all(btf.offset(path) is not None for path in RESOURCE_FIELDS) and all(
        btf.enumerator(name) for name in RESOURCE_ENUMERATORS
    )
