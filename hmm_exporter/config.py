# SPDX-License-Identifier: Apache-2.0
"""The options: what each is, and what it may be.

The dataclasses are the schema: an option is declared once, here, and the reader, the flags'
checks, ``config.example.yaml`` and the documentation follow. What can be said of an option stands in
``config_rule``, how a file becomes them in ``config_file``, which flags there are in ``cli``; what an
option does belongs to the room that uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NewType

from hmm_exporter.catalog.probes import GROUPS, PROBES
from hmm_exporter.catalog.values import JOB_LABELS, POD_LABELS
from hmm_exporter.config_rule import check_absolute, check_comm, check_path, check_url_path, rule
from hmm_exporter.web import address

Seconds = NewType("Seconds", float)
"""A duration in seconds, written as Prometheus does: ``30s``, ``10m``, ``1h30m``."""

Percent = NewType("Percent", float)
"""A part of one CPU, written as a percentage: ``1%`` is 0.01."""


class ConfigError(Exception):
    """What is wrong with the configuration: one line that says what, where, and what is allowed."""


@dataclass(frozen=True)
class Web:
    """The HTTP endpoint."""

    listen_addresses: tuple[str, ...] = field(
        default=(":10466",),
        metadata=rule(
            "addresses to listen on; :10466 is every address of the machine, IPv4 and IPv6",
            check=address.parse,
            allowed=address.ALLOWED,
            least=1,
        ),
    )
    telemetry_path: str = field(
        default="/metrics",
        metadata=rule(
            "where the metrics are",
            check=check_url_path,
            # /-/healthy and /-/ready must stay what they are.
            allowed="a path such as /metrics, of letters, digits and . _ ~ - /, not below /-/",
        ),
    )
    systemd_socket: bool = field(
        default=False,
        metadata=rule("listen on the sockets that systemd passes (hmm-exporter.socket), in place of listen_addresses"),
    )
    enable_lifecycle: bool = field(
        default=False,
        metadata=rule("reload the configuration when POST or PUT /-/reload asks for it, as SIGHUP always does"),
    )
    config_file: str | None = field(
        default=None,
        metadata=rule(
            "TLS, client certificates and passwords: a web configuration as all of Prometheus' exporters have it",
            check=check_path,
            allowed="the path of a file",
        ),
    )


@dataclass(frozen=True)
class Log:
    """Log lines, on stderr."""

    level: str = field(
        default="info",
        metadata=rule("the least that is logged", choices=("debug", "info", "warning", "error"), live=True),
    )
    format: str = field(
        default="logfmt", metadata=rule("how a log line is written", choices=("logfmt", "json"), live=True)
    )


@dataclass(frozen=True)
class Filter:
    """Whose events are counted: by the memory's owner, else the current process; in the kernel."""

    tgids: tuple[int, ...] = field(
        default=(),
        # PID_MAX_LIMIT, include/linux/threads.h.
        metadata=rule("count only these processes, by process id", low=1, high=4194304),
    )
    comms: tuple[str, ...] = field(
        default=(),
        metadata=rule(
            "count only processes of these command names",
            check=check_comm,
            allowed="a command name of 1 to 15 bytes, as in /proc/PID/comm",
        ),
    )


@dataclass(frozen=True)
class Probes:
    """Which probes are attached."""

    exclude: tuple[str, ...] = field(
        default=(),
        metadata=rule(
            "names of probes to leave out",
            choices=tuple(probe.name for probe in PROBES),
            allowed="the name of a probe, as hmm-exporter --check lists them",
            most=len(PROBES),
            live=True,
        ),
    )
    attach: str = field(
        default="auto",
        metadata=rule(
            "how functions are attached to: auto is what loses fewer events, else the other",
            choices=("auto", "fentry", "kprobe"),
        ),
    )
    groups: Mapping[str, bool] = field(
        default_factory=lambda: {group.name: group.default for group in GROUPS},
        metadata=rule("groups of probes to attach", choices=tuple(g.name for g in GROUPS), live=True),
    )


@dataclass(frozen=True)
class Limits:
    """How many label sets get a row of their own; later ones are counted in ``other``."""

    # A node has a few drivers and rarely more than 16 GPUs; above 256 the node tier would no
    # longer be affordable with its histograms (27 series for each label set).
    owners: int = field(default=16, metadata=rule("values of pgmap_owner", low=1, high=256))
    drivers: int = field(default=16, metadata=rule("values of driver", low=1, high=256))
    # A row is about 20 series: 4096 of them already exceed what one target should expose.
    processes: int = field(default=64, metadata=rule("rows of processes", low=1, high=4096))
    callers: int = field(
        default=20, metadata=rule("callers of hmm_range_fault that met EBUSY", low=1, high=256, live=True)
    )
    # Below 2000 the series that always exist, with everything on, and a few processes would not
    # fit; 100,000 is Prometheus' own rule of thumb for a target too large.
    series: int = field(
        default=10000,
        metadata=rule("series of HMM metrics in one scrape, a hard ceiling", low=2000, high=100000, live=True),
    )
    # Below a minute, a series would end between two scrapes of a common interval.
    idle_ttl: Seconds = field(
        default=Seconds(3600.0),
        metadata=rule("a row idle for this long is removed", low=60, high=30 * 86400, never=True, live=True),
    )
    # Below a hundredth of that, a second in sixty is too few runs to tell; 1000% are ten CPUs, of hundreds.
    cpu: Percent = field(
        default=Percent(0.01),
        metadata=rule(
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
    threads: int = field(default=8192, metadata=rule("threads inside a migration at a time", low=64, high=1048576))
    # Of 2 MiB each: 128 GiB. Half of that is kept for an hour, more for less long (metrics.idle); what finds no
    # room is counted as overflow, and has no residency. One takes some 180 bytes, in two maps; a million
    # take a third of a second of CPU to look through, every 15 seconds, and two when half of them are forgotten.
    arrivals: int = field(
        default=65536, metadata=rule("regions on devices whose arrival is remembered", low=1024, high=1048576)
    )
    # About 4 KiB each, because most slots stay empty: 4096 are 17 MiB.
    stacks: int = field(default=1024, metadata=rule("kernel stacks that met EBUSY", low=16, high=4096))
    failures: int = field(default=1024, metadata=rule("label sets of failures, with errno", low=64, high=65536))


@dataclass(frozen=True)
class Histograms:
    """Histograms that are not always kept."""

    migration_phases: bool = field(
        default=False, metadata=rule("hmm_migration_phase_duration_seconds, 140 series a class")
    )


@dataclass(frozen=True)
class Kubernetes:
    """Which pod a process is of, by its cgroup and the names of log files; the API is not asked."""

    enabled: bool = field(default=False, metadata=rule("add these labels to the metrics hmm_process_*"))
    labels: tuple[str, ...] = field(
        default=POD_LABELS,
        metadata=rule("the labels", choices=POD_LABELS, least=1, most=len(POD_LABELS)),
    )


@dataclass(frozen=True)
class Slurm:
    """Which job of Slurm a process is of, by its cgroup."""

    enabled: bool = field(default=False, metadata=rule("add the label slurm_job to the metrics hmm_process_*"))


@dataclass(frozen=True)
class Host:
    """Where the host's files are; in a container, where they are mounted."""

    cgroup: str = field(
        default="/sys/fs/cgroup",
        metadata=rule("the cgroup file system, version 2", check=check_absolute, allowed="an absolute path"),
    )
    container_logs: str = field(
        default="/var/log/containers",
        metadata=rule(
            "kubelet's links to the logs of containers: their names are read, not the logs",
            check=check_absolute,
            allowed="an absolute path",
        ),
    )


@dataclass(frozen=True)
class Loader:
    """The child process that compiles and loads the BPF programs."""

    python: str = field(
        default="/usr/bin/python3",
        metadata=rule("a Python that has bcc", check=check_absolute, allowed="an absolute path"),
    )
    # Compiling takes 3 s, in an emulated machine 20 s; beyond 10 minutes it hangs.
    timeout: Seconds = field(default=Seconds(60.0), metadata=rule("how long it may take", low=1, high=600))


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
        metadata=rule("memory that a CPU fault brings back from a device so soon has thrashed", low=0.001, high=3600),
    )
    # Prometheus' most usual intervals are 15 s, 30 s and a minute; two servers scrape at different moments.
    series_from_zero: Seconds = field(
        default=Seconds(60.0),
        metadata=rule(
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
        metadata=rule(
            "program of the simulator, to watch it instead of the running kernel",
            check=check_path,
            allowed="the path of a program",
        ),
    )

    @property
    def process_labels(self) -> tuple[str, ...]:
        """Labels of the process tier beside its own: what a cgroup's name says."""
        return self.kubernetes.labels * self.kubernetes.enabled + JOB_LABELS * self.slurm.enabled
