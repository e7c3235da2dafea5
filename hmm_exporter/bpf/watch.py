# SPDX-License-Identifier: Apache-2.0
"""From a configuration to attached probes: learn the kernel, choose, attach.

How each is done is its own room's; what becomes of the attached ones is the daemon's, or the report's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from hmm_exporter.bpf import lockdown
from hmm_exporter.bpf.attach import Attachments, attach
from hmm_exporter.bpf.plan import Outcome, choose
from hmm_exporter.catalog.probes import PROBES
from hmm_exporter.config import Config
from hmm_exporter.kernel.features import Kernel, running_kernel
from hmm_exporter.kernel.simulated import simulated_kernel

_ORDER = {probe.name: number for number, probe in enumerate(PROBES)}


def watched_kernel(config: Config) -> Kernel:
    """Raises StartError, of a simulator that is not one."""
    return simulated_kernel(Path(config.simulator)) if config.simulator else lockdown.seen(running_kernel())


def attach_probes(kernel: Kernel, config: Config, pids: bool = False) -> tuple[Attachments, list[Outcome]]:
    """Attach what can be; what became of each probe is in the catalogue's order. Raises StartError.

    ``pids``: processes are told apart by their ids, too.
    """
    plan, left_out = choose(kernel, config, pids)
    attachments = attach(kernel, config, plan)
    attachments.outcomes = in_order([*attachments.outcomes, *left_out])
    return attachments, attachments.outcomes


def in_order(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """As the catalogue has the probes."""
    return sorted(outcomes, key=lambda outcome: _ORDER[outcome.probe.name])


def with_probes(config: Config, groups: Iterable[str], exclude: Iterable[str]) -> Config:
    """*config* with these groups on, all others off, and without these probes."""
    on = {name: name in groups for name in config.probes.groups}
    return replace(config, probes=replace(config.probes, groups=on, exclude=tuple(exclude)))
