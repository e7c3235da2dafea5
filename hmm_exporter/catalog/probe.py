# SPDX-License-Identifier: Apache-2.0
"""What a declaration of a probe says. The probes themselves are in ``catalog.probes``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """Probes that are switched on and off together."""

    name: str
    default: bool
    help: str
    shed: int
    """Its place among those that are shed, one at a time, where watching costs more than limits.cpu."""
    meanwhile: str = ""
    """What the metrics of other groups do not tell without it. Their totals are exact all the same."""


@dataclass(frozen=True)
class Probe:
    """One kernel function or tracepoint, and the programs that watch it.

    ``functions`` are tried in this order and the first one that the kernel has is used.
    ``fields`` and ``enumerators`` must be in the kernel's BTF, or the probe is off with that reason.
    """

    name: str
    group: str
    sources: tuple[str, ...]
    """The files in ``bpf/program`` that it is made of, in order."""
    functions: tuple[str, ...]
    versions: str
    """The releases that have it, for the reader of ``--check``."""
    entry: bool = False
    exit: bool = False
    exit_only_with: str = ""
    """The exit program is needed only when this group is on, too."""
    tracepoint: bool = False
    requires: str = ""
    """The probe without which this one has nothing to say."""
    reads_pages: bool = False
    """It is for what only bpf_probe_read_kernel can read."""
    needs: str = ""
    """The kernel option without which the function is not built."""
    fields: tuple[str, ...] = ()
    enumerators: tuple[str, ...] = ()

    @property
    def programs(self) -> tuple[str, ...]:
        """Names of its C functions, entry before exit."""
        return tuple(f"{when}_{self.name}" for when, there in (("enter", self.entry), ("leave", self.exit)) if there)
