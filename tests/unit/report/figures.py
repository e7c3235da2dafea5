# SPDX-License-Identifier: Apache-2.0
"""Written figures, as the collector makes families of them, for the tests of this folder."""

from __future__ import annotations

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family

from hmm_exporter.bpf.plan import ABSENT, ATTACHED, Outcome
from hmm_exporter.catalog.metric import Type
from hmm_exporter.catalog.metrics import METRICS
from hmm_exporter.catalog.probes import PROBES
from hmm_exporter.catalog.values import HISTOGRAM_SLOTS, Size
from hmm_exporter.kernel.symbols import Symbol
from hmm_exporter.report.pages import Subject
from hmm_exporter.report.snapshot import Snapshot, snapshot
from hmm_exporter.report.stacks import Stack
from hmm_exporter.report.terminal import Style
from hmm_exporter.report.text import Page

PLAIN = Page(80, Style())
STACKS = (
    Stack(
        "amdgpu",
        "hmm_range_fault",
        12,
        (
            Symbol("amdgpu_hmm_range_get_pages", "amdgpu", 139),
            Symbol("svm_range_validate_and_map", "amdgpu", 1544),
            Symbol("unknown", "", 0),
            Symbol("process_one_work", "", 396),
        ),
    ),
    Stack("xe", "hmm_range_fault_unlocked_timeout", 1, ()),
)
SUBJECT = Subject("0.1.0", "Linux 7.3.4", outcomes=tuple(Outcome(probe, probe.name, ATTACHED) for probe in PROBES[:2]))
LACKING = Outcome(PROBES[4], PROBES[4].name, ABSENT, reason="not in this kernel (it is in releases: 7.3 and newer)")


def counter(name: str, *samples: tuple[dict[str, str], float]) -> Family:
    family = CounterMetricFamily(name, "", labels=tuple(samples[0][0]) if samples else ())
    for labels, value in samples:
        family.add_metric(tuple(labels.values()), value)
    return family


def histogram(name: str, size: Size, labels: dict[str, str], slots: dict[int, int], total: float) -> Family:
    """``slots``: how many in which bucket."""
    family = HistogramMetricFamily(name, "", labels=tuple(labels))
    bounds, seen, buckets = [*(repr(bound) for bound in size.bounds), "+Inf"], 0, []
    for at, bound in enumerate(bounds):
        seen += slots.get(at, 0)
        buckets.append((bound, seen))
    family.add_metric(tuple(labels.values()), buckets, total)
    return family


def a_job() -> Snapshot:
    """A training job that thrashes a little, on two devices whose names begin alike."""
    n = {"trigger": "syscall", "pgmap_owner": "amdgpu-1"}
    forth, back = {"class": "prefetch", **n}, {"class": "fault_back", **n, "trigger": "cpu_fault"}
    one, two = {"pid": "4417", "comm": "train.py"}, {"pid": "4302", "comm": "ollama"}
    books = GaugeMetricFamily("hmm_exporter_books_balanced", "", value=1)
    return snapshot(
        [
            counter("hmm_migrations_started", (forth, 123456), (back, 789)),
            counter("hmm_migrations_completed", (forth, 123400), (back, 789)),
            counter("hmm_migrations_empty", (forth, 50)),
            counter("hmm_migration_failures", ({"class": "prefetch", "errno": "EINVAL"}, 6)),
            counter("hmm_migration_requested_bytes", (forth, 5 << 40), (back, 3 << 20)),
            counter("hmm_migration_unmoved_bytes", ({"class": "prefetch", "reason": "busy"}, 20480)),
            counter(
                "hmm_migration_moved_bytes",
                ({"direction": "host_to_device", "device": "nvidia-uvm-hmm-of-a-long-name-0"}, 1536 << 20),
                ({"direction": "device_to_host", "device": "nvidia-uvm-hmm-of-a-long-name-1"}, 4096),
            ),
            histogram(
                "hmm_migration_duration_seconds",
                Size.seconds,
                {"class": "prefetch"},
                {5: 3, 6: 120000, 8: 3390, 24: 6, 25: 1},
                3.7,
            ),
            histogram("hmm_migration_moved_size_bytes", Size.bytes, {"class": "prefetch"}, {0: 1, 9: 512}, 1 << 30),
            counter("hmm_process_migrations", ({**one, "class": "prefetch"}, 123000), ({**two, "class": "evict"}, 1)),
            counter("hmm_process_fault_stall_seconds", (one, 0.0312)),
            counter("hmm_range_faults", ({"driver": "amdgpu", "function": "hmm_range_fault", "intent": "write"}, 4000)),
            counter(
                "hmm_range_fault_failures",
                ({"driver": "amdgpu", "function": "hmm_range_fault", "errno": "EBUSY"}, 12),
            ),
            counter("hmm_huge_faults", ({}, 7)),
            counter("hmm_exporter_probe_missed", ({"probe": "migrate_vma_pages"}, 2)),
            books,
        ]
    )


def everything(value: int = 1) -> Snapshot:
    """Each metric of the catalogue has counted something, with a label set of its own names."""
    families = []
    for metric in METRICS:
        labels = {label: f"{label}-value" for label in metric.labels}
        if metric.per_process:
            labels = {"pid": "4194304", **labels}
        if metric.type is Type.COUNTER:
            families.append(counter(metric.name, (labels, value)))
        else:
            slots = dict.fromkeys(range(HISTOGRAM_SLOTS), value)
            families.append(histogram(metric.name, Size.bytes, labels, slots, value))
    return snapshot(families)
