# SPDX-License-Identifier: Apache-2.0
"""The options: what each is, what it may be, and how a YAML file becomes them.

The dataclasses are the schema: an option is declared once, here, and the reader, the flags'
checks, ``config.example.yaml`` and the documentation follow. What an option does belongs to the
room that uses it; which flags there are, to ``cli``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NewType

from hmm_exporter.catalog.probes import GROUPS, PROBES
from hmm_exporter.catalog.values import JOB_LABELS, POD_LABELS
from hmm_exporter.web import address

Seconds = NewType("Seconds", float)
"""A duration in seconds, written as Prometheus does: ``30s``, ``10m``, ``1h30m``."""

Text = NewType("Text", str)
"""A text for which any scalar of YAML counts, as programs in Go read it: ``X-XSS-Protection: 1``."""
Percent = NewType("Percent", float)
"""A part of one CPU, written as a percentage: ``1%`` is 0.01."""


class ConfigError(Exception):
    """What is wrong with the configuration: one line that says what, where, and what is allowed."""


@dataclass(frozen=True)
class Rule:
    """What an option is for and what it may be; for a list, what each of its items may be."""

    help: str
    low: float = 0
    high: float = 0
    never: bool = False
    """It may be 0, too, for never."""
    live: bool = False
    """A reload changes it; the others take a restart."""
    choices: tuple[str, ...] = ()
    check: Callable[[str], object] | None = None
    """Raises ValueError for a text that is not allowed."""
    allowed: str = ""
    """What *check* or *choices* allow, in words."""
    least: int = 0
    most: int = 16
    """Items in a list."""
    key: str = ""
    """How a file spells it, where Python could not."""
    secret: bool = False
    """No message may show what was given."""


def _rule(help: str, **limits: Any) -> Mapping[str, Rule]:
    return {"rule": Rule(help, **limits)}


def _comm(text: str) -> None:
    # TASK_COMM_LEN is 16 with the terminating 0; a longer name can match no process.
    if not 1 <= len(text.encode()) <= 15 or "\0" in text:
        raise ValueError


def _path(text: str) -> None:
    if not text or "\0" in text:
        raise ValueError


def _absolute(text: str) -> None:
    # The loader is started with privileges: $PATH must not choose it.
    _path(text)
    if not text.startswith("/"):
        raise ValueError


def _url_path(text: str) -> None:
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+/?|/", text) or text.startswith("/-/"):
        raise ValueError


@dataclass(frozen=True)
class Web:
    """The HTTP endpoint."""

    listen_addresses: tuple[str, ...] = field(
        default=(":10466",),
        metadata=_rule(
            "addresses to listen on; :10466 is every address of the machine, IPv4 and IPv6",
            check=address.parse,
            allowed=address.ALLOWED,
            least=1,
        ),
    )
    telemetry_path: str = field(
        default="/metrics",
        metadata=_rule(
            "where the metrics are",
            check=_url_path,
            # /-/healthy and /-/ready must stay what they are.
            allowed="a path such as /metrics, of letters, digits and . _ ~ - /, not below /-/",
        ),
    )
    systemd_socket: bool = field(
        default=False,
        metadata=_rule("listen on the sockets that systemd passes (hmm-exporter.socket), in place of listen_addresses"),
    )
    enable_lifecycle: bool = field(
        default=False,
        metadata=_rule("reload the configuration when POST or PUT /-/reload asks for it, as SIGHUP always does"),
    )
    config_file: str | None = field(
        default=None,
        metadata=_rule(
            "TLS, client certificates and passwords: a web configuration as all of Prometheus' exporters have it",
            check=_path,
            allowed="the path of a file",
        ),
    )


@dataclass(frozen=True)
class Log:
    """Log lines, on stderr."""

    level: str = field(
        default="info",
        metadata=_rule("the least that is logged", choices=("debug", "info", "warning", "error"), live=True),
    )
    format: str = field(
        default="logfmt", metadata=_rule("how a log line is written", choices=("logfmt", "json"), live=True)
    )


@dataclass(frozen=True)
class Filter:
    """Whose events are counted: by the memory's owner, else the current process; in the kernel."""

    tgids: tuple[int, ...] = field(
        default=(),
        # PID_MAX_LIMIT, include/linux/threads.h.
        metadata=_rule("count only these processes, by process id", low=1, high=4194304),
    )
    comms: tuple[str, ...] = field(
        default=(),
        metadata=_rule(
            "count only processes of these command names",
            check=_comm,
            allowed="a command name of 1 to 15 bytes, as in /proc/PID/comm",
        ),
    )


@dataclass(frozen=True)
class Probes:
    """Which probes are attached."""

    exclude: tuple[str, ...] = field(
        default=(),
        metadata=_rule(
            "names of probes to leave out",
            choices=tuple(probe.name for probe in PROBES),
            allowed="the name of a probe, as hmm-exporter --check lists them",
            most=len(PROBES),
            live=True,
        ),
    )
    attach: str = field(
        default="auto",
        metadata=_rule(
            "how functions are attached to: auto is what loses fewer events, else the other",
            choices=("auto", "fentry", "kprobe"),
        ),
    )
    groups: Mapping[str, bool] = field(
        default_factory=lambda: {group.name: group.default for group in GROUPS},
        metadata=_rule("groups of probes to attach", choices=tuple(g.name for g in GROUPS), live=True),
    )


@dataclass(frozen=True)
class Limits:
    """How many label sets get a row of their own; later ones are counted in ``other``."""

    # A node has a few drivers and rarely more than 16 GPUs; above 256 the node tier would no
    # longer be affordable with its histograms (27 series for each label set).
    owners: int = field(default=16, metadata=_rule("values of pgmap_owner", low=1, high=256))
    drivers: int = field(default=16, metadata=_rule("values of driver", low=1, high=256))
    # A row is about 20 series: 4096 of them already exceed what one target should expose.
    processes: int = field(default=64, metadata=_rule("rows of processes", low=1, high=4096))
    callers: int = field(
        default=20, metadata=_rule("callers of hmm_range_fault that met EBUSY", low=1, high=256, live=True)
    )
    # Below 2000 the series that always exist, with everything on, and a few processes would not
    # fit; 100,000 is Prometheus' own rule of thumb for a target too large.
    series: int = field(
        default=10000,
        metadata=_rule("series of HMM metrics in one scrape, a hard ceiling", low=2000, high=100000, live=True),
    )
    # Below a minute, a series would end between two scrapes of a common interval.
    idle_ttl: Seconds = field(
        default=Seconds(3600.0),
        metadata=_rule("a row idle for this long is removed", low=60, high=30 * 86400, never=True, live=True),
    )
    # Below a hundredth of that, a second in sixty is too few runs to tell; 1000% are ten CPUs, of hundreds.
    cpu: Percent = field(
        default=Percent(0.01),
        metadata=_rule(
            "CPU time that watching may take, of one CPU, before groups of probes are shed",
            low=0.0001,
            high=10,
            never=True,
            live=True,
        ),
    )


@dataclass(frozen=True)
class Maps:
    """Capacities of BPF maps, in entries."""

    # One entry for each thread inside a migration at one moment; all are preallocated, at about
    # 1,100 bytes: 1,048,576 are 1.1 GiB, for a machine with that many threads at it.
    threads: int = field(default=8192, metadata=_rule("threads inside a migration at a time", low=64, high=1048576))
    # Of 2 MiB each: 128 GiB. Half of that is kept for an hour, more for less long (metrics.idle); what finds no
    # room is counted as overflow, and has no residency. One takes some 180 bytes, in two maps; a million
    # take a third of a second of CPU to look through, every 15 seconds, and two when half of them are forgotten.
    arrivals: int = field(
        default=65536, metadata=_rule("regions on devices whose arrival is remembered", low=1024, high=1048576)
    )
    # About 4 KiB each, because most slots stay empty: 4096 are 17 MiB.
    stacks: int = field(default=1024, metadata=_rule("kernel stacks that met EBUSY", low=16, high=4096))
    failures: int = field(default=1024, metadata=_rule("label sets of failures, with errno", low=64, high=65536))


@dataclass(frozen=True)
class Histograms:
    """Histograms that are not always kept."""

    migration_phases: bool = field(
        default=False, metadata=_rule("hmm_migration_phase_duration_seconds, 140 series a class")
    )


@dataclass(frozen=True)
class Kubernetes:
    """Which pod a process is of, by its cgroup and the names of log files; the API is not asked."""

    enabled: bool = field(default=False, metadata=_rule("add these labels to the metrics hmm_process_*"))
    labels: tuple[str, ...] = field(
        default=POD_LABELS,
        metadata=_rule("the labels", choices=POD_LABELS, least=1, most=len(POD_LABELS)),
    )


@dataclass(frozen=True)
class Slurm:
    """Which job of Slurm a process is of, by its cgroup."""

    enabled: bool = field(default=False, metadata=_rule("add the label slurm_job to the metrics hmm_process_*"))


@dataclass(frozen=True)
class Host:
    """Where the host's files are; in a container, where they are mounted."""

    cgroup: str = field(
        default="/sys/fs/cgroup",
        metadata=_rule("the cgroup file system, version 2", check=_absolute, allowed="an absolute path"),
    )
    container_logs: str = field(
        default="/var/log/containers",
        metadata=_rule(
            "kubelet's links to the logs of containers: their names are read, not the logs",
            check=_absolute,
            allowed="an absolute path",
        ),
    )


@dataclass(frozen=True)
class Loader:
    """The child process that compiles and loads the BPF programs."""

    python: str = field(
        default="/usr/bin/python3",
        metadata=_rule("a Python that has bcc", check=_absolute, allowed="an absolute path"),
    )
    # Compiling takes 3 s, in an emulated machine 20 s; beyond 10 minutes it hangs.
    timeout: Seconds = field(default=Seconds(60.0), metadata=_rule("how long it may take", low=1, high=600))


@dataclass(frozen=True)
class Config:
    """All options."""

    web: Web = field(default_factory=Web)
    log: Log = field(default_factory=Log)
    filter: Filter = field(default_factory=Filter)
    probes: Probes = field(default_factory=Probes)
    limits: Limits = field(default_factory=Limits)
    maps: Maps = field(default_factory=Maps)
    histograms: Histograms = field(default_factory=Histograms)
    kubernetes: Kubernetes = field(default_factory=Kubernetes)
    slurm: Slurm = field(default_factory=Slurm)
    host: Host = field(default_factory=Host)
    loader: Loader = field(default_factory=Loader)
    # Above an hour, arrivals are forgotten (metrics.idle).
    thrash_window: Seconds = field(
        default=Seconds(10.0),
        metadata=_rule("memory that a CPU fault brings back from a device so soon has thrashed", low=0.001, high=3600),
    )
    # Prometheus' most usual intervals are 15 s, 30 s and a minute; two servers scrape at different moments.
    series_from_zero: Seconds = field(
        default=Seconds(60.0),
        metadata=_rule(
            "a series that is new is shown at 0 for so long, so that rate() counts from its beginning; longer than the"
            " scrape interval",
            low=1,
            high=600,
            never=True,
            live=True,
        ),
    )
    simulator: str | None = field(
        default=None,
        metadata=_rule(
            "program of the simulator, to watch it instead of the running kernel",
            check=_path,
            allowed="the path of a program",
        ),
    )

    @property
    def process_labels(self) -> tuple[str, ...]:
        """Labels of the process tier beside its own: what a cgroup's name says."""
        return self.kubernetes.labels * self.kubernetes.enabled + JOB_LABELS * self.slurm.enabled


def rules_of(section: type[Any]) -> dict[str, Rule]:
    fields = dataclasses.fields(section)
    return {each.name: each.metadata["rule"] for each in fields if "rule" in each.metadata}
