# SPDX-License-Identifier: Apache-2.0
"""A scrape as a whole, over maps in memory: what is in it, what never is, and that names hold still."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmm_exporter.bpf.attach import Attachments
from hmm_exporter.bpf.link import Program
from hmm_exporter.bpf.maps import MapSet
from hmm_exporter.bpf.plan import ABSENT, ATTACHED, DISABLED, ERROR, Outcome
from hmm_exporter.catalog import tables, values
from hmm_exporter.catalog.metrics import METRICS
from hmm_exporter.catalog.probes import GROUPS, PROBES
from hmm_exporter.catalog.values import DEVICE_NONE, Class, Failure, Trigger
from hmm_exporter.config import Config, Histograms, Host, Kubernetes, Probes, Seconds
from hmm_exporter.kernel.features import Kernel
from hmm_exporter.kernel.iomem import Iomem
from hmm_exporter.kernel.symbols import Symbols
from hmm_exporter.metrics.books import IN_MIGRATION
from hmm_exporter.metrics.idle import OVER_SECONDS, Idle
from hmm_exporter.metrics.scrape import Scrape
from tests.bench import node
from tests.host_files import LLAMA, VLLM, HostFiles
from tests.unit.bpf import kernels
from tests.unit.bpf.in_memory import Bpf, map_set
from tests.unit.metrics.exposed import KALLSYMS, openmetrics, samples, text

OWNER, SECOND = 0xFFFF888104A30000, 0xFFFF888104A31000
OPS = 0xFFFFFFFFC0110000
AMDGPU_FRAME = 0xFFFFFFFFC0100040
COMM = b"python3".ljust(24, b"\0")
TTL = 3600.0

GAUGES = {
    "hmm_pgmap_owner_info": {"pgmap_owner", "driver"},
    "hmm_device_info": {"device", "driver", "pci_bus_id"},
    "hmm_exporter_build_info": {"version", "python", "bcc"},
    "hmm_exporter_kernel_info": {"release", "btf", "lockdown", "device_private"},
    "hmm_exporter_probe_attached": {"probe"},
    "hmm_exporter_probe_info": {"probe", "function", "kind", "state"},
    "hmm_exporter_map_entries": {"map"},
    "hmm_exporter_map_capacity": {"map"},
    "hmm_exporter_series": set[str](),
    "hmm_exporter_series_limit": set[str](),
    "hmm_exporter_migrations_in_flight": set[str](),
    "hmm_exporter_books_balanced": set[str](),
    "hmm_exporter_collect_duration_seconds": set[str](),
    "hmm_exporter_ready_duration_seconds": set[str](),
}
COUNTERS = {
    "hmm_exporter_probe_missed": {"probe"},
    "hmm_exporter_label_overflow_events": {"map"},
    "hmm_exporter_residency_misses": set[str](),
    "hmm_exporter_migrations_abandoned": set[str](),
}
"""The contract, without what is there only while BPF statistics are on."""


IOMEM = """\
00001000-07ffffffff : System RAM
3ffe00000000-3fffffffffff : 0000:c1:00.0
"""
"""Written, in the form of /proc/iomem. With the first GPU's memory, as amdgpu makes it."""


class World:
    """A scrape over maps that programs of the test's fill."""

    def __init__(
        self,
        bpf: Bpf,
        maps: MapSet | None,
        folder: Path,
        config: Config | None = None,
        kernel: Kernel | None = None,
        iomem: str = IOMEM,
        states: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """The programs' descriptors are the maps': what the kernel says of them is that they never ran."""
        self.bpf = bpf
        self.config = replace(config or Config(), series_from_zero=Seconds(0.0))
        path = folder / "kallsyms"
        path.write_text(KALLSYMS)
        self.kernel = replace(kernel or kernels.kernel(), symbols=Symbols(path))
        self.attachments = Attachments()
        self.attachments.maps = maps
        self.attachments.bcc = "0.26.0"
        self.iomem = folder / "iomem"
        self.iomem.write_text(iomem)
        self.attachments.resources = Iomem(self.iomem)
        self.attachments.learn_devices(self.kernel.page_size)
        for probe in PROBES:
            on = self.config.probes.groups[probe.group]
            kind = ("fentry" if probe.entry else "fexit") if on else "none"
            state = states.get(probe.name, ATTACHED if on else DISABLED)
            self.attachments.outcomes.append(Outcome(probe, probe.name, state, kind))
            if on and maps:
                program = Program(probe.name, probe.programs[0], kind, maps.fds["owner_map"], probe.functions[0])
                self.attachments.programs.append(program)
        self.scrape = Scrape(self.kernel, self.config, self.attachments, ready_seconds=2.5)

    def close(self) -> None:
        """The maps are another's."""
        assert self.attachments.resources
        self.attachments.resources.close()

    def owner_with_rows(self, owner: int) -> None:
        self.bpf.keep_stack(5, 0xFFFFFFFF81220123, AMDGPU_FRAME)
        self.bpf.book(tables.OWNER, (owner,), stack=5)
        self.bpf.book(tables.MIGRATION, (owner, Class.evict, Trigger.kthread, DEVICE_NONE), started=3, empty=3)

    def owners(self) -> dict[str, float]:
        """Migrations started, by owner."""
        sums: dict[str, float] = {}
        for (name, labels), value in samples(self.scrape.collect()).items():
            if name == "hmm_migrations_started_total":
                owner = dict(labels)["pgmap_owner"]
                sums[owner] = sums.get(owner, 0) + value
        return sums


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with map_set() as (bpf, maps):
        made = World(bpf, maps, tmp_path)
        yield made
        made.close()


@pytest.fixture
def everything(tmp_path: Path) -> Iterator[World]:
    """All groups and histograms are on."""
    groups = {group.name: True for group in GROUPS}
    config = Config(probes=Probes(groups=groups), histograms=Histograms(migration_phases=True))
    with map_set() as (bpf, maps):
        made = World(bpf, maps, tmp_path, config)
        yield made
        made.close()


def test_the_exposition_has_the_metrics_of_the_contract_and_no_others(everything: World) -> None:
    everything.owner_with_rows(OWNER)
    families = {family.name: family for family in everything.scrape.collect()}
    of_the_kernel = {metric.name.removesuffix("_total") for metric in METRICS}
    assert set(families) == of_the_kernel | set(GAUGES) | set(COUNTERS)
    for name, labels in (GAUGES | COUNTERS).items():
        assert families[name].type == ("counter" if name in COUNTERS else "gauge")
        assert {frozenset(sample.labels) for sample in families[name].samples} == {frozenset(labels)}, name


def test_no_name_and_no_series_stands_twice(everything: World) -> None:
    everything.owner_with_rows(OWNER)
    families = list(everything.scrape.collect())
    assert len({family.name for family in families}) == len(families)
    samples(families)


def test_every_family_has_a_help_text_of_one_line(everything: World) -> None:
    for family in everything.scrape.collect():
        assert family.documentation.isprintable()
        assert len(family.documentation) > 10


def test_a_histogram_that_is_not_kept_is_absent_and_not_zero(world: World) -> None:
    """histograms.migration_phases is off by default, and nothing is counted there."""
    assert "hmm_migration_phase_duration_seconds" not in {family.name for family in world.scrape.collect()}


def test_a_histogram_that_is_kept_is_there(everything: World) -> None:
    key = (Class.evict, values.PHASES.index("commit"))
    everything.bpf.book(tables.MIGRATION_PHASE, key, ns=3_000_000, duration=[0] * 12 + [1])
    found = samples(everything.scrape.collect())
    labels = frozenset({("class", "evict"), ("phase", "commit")})
    assert found[("hmm_migration_phase_duration_seconds_sum", labels)] == 0.003
    assert found[("hmm_migration_phase_duration_seconds_count", labels)] == 1


def test_the_series_of_hmm_metrics_are_counted(world: World) -> None:
    world.owner_with_rows(OWNER)
    families = list(world.scrape.collect())
    own = ("hmm_exporter_", "hmm_pgmap_owner_info", "hmm_device_info")
    series = sum(len(family.samples) for family in families if not family.name.startswith(own))
    assert samples(families)[("hmm_exporter_series", frozenset())] == series


def test_a_node_with_8_gpus_and_50_processes_has_1500_series_at_most(tmp_path: Path) -> None:
    """The rows of the benchmark's node."""
    with map_set() as (bpf, maps):
        large = World(bpf, maps, tmp_path, iomem=node.iomem())
        for table, key, columns in node.rows(50):
            words = node.words(table, columns)
            bpf.book(table, key, 0, **{each.name: list(itertools.islice(words, each.words)) for each in table.values})
        families = list(large.scrape.collect())
        large.close()
    devices = {sample.labels.get("device") for family in families for sample in family.samples}
    assert len(devices - {None, "none", "other"}) == node.GPUS
    processes = {sample.labels.get("comm") for family in families for sample in family.samples}
    assert len(processes - {None}) == 50
    # 7 are what prometheus_client tells about the process and Python.
    assert sum(len(family.samples) for family in families) <= 1500 - 7


def test_without_maps_there_are_the_facts_alone(tmp_path: Path) -> None:
    names = {family.name for family in World(Bpf(), None, tmp_path).scrape.collect()}
    assert names == {
        "hmm_exporter_build_info",
        "hmm_exporter_kernel_info",
        "hmm_exporter_probe_attached",
        "hmm_exporter_probe_info",
        "hmm_exporter_series",
        "hmm_exporter_series_limit",
        "hmm_exporter_collect_duration_seconds",
        "hmm_exporter_ready_duration_seconds",
    }


def test_the_books_are_told(world: World) -> None:
    world.owner_with_rows(OWNER)
    world.bpf.book(tables.MIGRATION, (OWNER, Class.evict, Trigger.kthread, DEVICE_NONE), started=2)
    world.bpf.enter(1, IN_MIGRATION, 1 << 62)
    world.bpf.book(tables.LOSS, (0,), events=1)
    found = samples(world.scrape.collect())
    assert [found[(f"hmm_exporter_{name}", frozenset())] for name in ("migrations_in_flight", "books_balanced")] == [
        1,
        1,
    ]
    assert found[("hmm_exporter_migrations_abandoned_total", frozenset())] == 1
    world.bpf.leave(1)
    assert samples(world.scrape.collect())[("hmm_exporter_books_balanced", frozenset())] == 0


def test_an_owner_keeps_its_name_from_scrape_to_scrape(world: World) -> None:
    world.owner_with_rows(OWNER)
    assert world.owners() == {"other": 0, "amdgpu-1": 3}
    world.owner_with_rows(SECOND)
    world.bpf.book(tables.MIGRATION, (OWNER, Class.evict, Trigger.kthread, DEVICE_NONE), started=1, empty=1)
    assert {name: count for name, count in world.owners().items() if count} == {"amdgpu-1": 4, "amdgpu-2": 3}


def test_an_owner_that_is_admitted_while_the_maps_are_read_is_not_called_unknown_for_once(world: World) -> None:
    """Its row would be in one series in this scrape and in another one from the next on."""

    def first_migration(name: str) -> None:
        if name == "migration_map":
            world.bpf.before_read = lambda name: None
            world.owner_with_rows(OWNER)

    world.owners()
    world.bpf.before_read = first_migration
    during = {name: count for name, count in world.owners().items() if count}
    assert during in ({}, {"amdgpu-1": 3})
    assert {name: count for name, count in world.owners().items() if count} == {"amdgpu-1": 3}


def test_a_driver_that_is_admitted_while_the_maps_are_read_is_not_called_unknown_for_once(world: World) -> None:
    def first_insert(name: str) -> None:
        if name == "interval_notifier_map":
            world.bpf.before_read = lambda name: None
            world.bpf.book(tables.DRIVER, (OPS,))
            world.bpf.book(tables.INTERVAL_NOTIFIER, (OPS,), inserts=3)

    world.bpf.before_read = first_insert
    found = samples(world.scrape.collect())
    assert ("hmm_interval_notifier_inserts_total", frozenset({("driver", "unknown")})) not in found


def with_clock(world: World) -> list[float]:
    """The time that idleness is measured by, to be moved by the test."""
    now = [5000.0]
    assert world.attachments.maps
    world.scrape._idle = Idle(world.attachments.maps, TTL, lambda: now[0])
    return now


def test_an_owner_that_was_swept_is_gone_from_all_series_and_a_later_one_has_another_name(world: World) -> None:
    now = with_clock(world)
    world.owner_with_rows(OWNER)
    world.bpf.book(tables.FAILURE, (OWNER, 22, Failure.migration, Class.evict, Trigger.kthread), calls=0)
    world.scrape.sweep()
    assert '"amdgpu-1"' in text(world.scrape.collect())
    now[0] += TTL
    world.scrape.sweep()
    after = text(world.scrape.collect())
    assert '"amdgpu' not in after
    assert "hmm_exporter_books_balanced 1.0" in after
    world.owner_with_rows(OWNER)
    assert world.owners()["amdgpu-2"] == 3


def test_what_was_swept_stays_in_the_counts_of_abandoned_migrations(world: World) -> None:
    with_clock(world)
    world.owner_with_rows(OWNER)
    world.bpf.book(tables.MIGRATION, (OWNER, Class.evict, Trigger.kthread, DEVICE_NONE), started=1)
    world.bpf.enter(1, IN_MIGRATION, 0)
    world.scrape.sweep()
    found = samples(world.scrape.collect())
    assert found[("hmm_exporter_migrations_abandoned_total", frozenset())] == 1
    assert found[("hmm_exporter_books_balanced", frozenset())] == 1


def test_a_scrape_without_maps_has_nothing_to_sweep(tmp_path: Path) -> None:
    World(Bpf(), None, tmp_path).scrape.sweep()


def test_a_read_that_fails_leaves_no_half_exposition(world: World) -> None:
    def fail(name: str) -> None:
        if name == "overflow_map":
            raise OSError(12, "Cannot allocate memory")

    world.bpf.before_read = fail
    with pytest.raises(OSError, match="Cannot allocate"):
        world.scrape.collect()
    world.bpf.before_read = lambda name: None
    assert list(world.scrape.collect())


_pointers = st.integers(0xFFFF_8000_0000_0000, 0xFFFF_FFFF_FFFF_FFF0)


@settings(max_examples=40)
@given(
    owners=st.lists(_pointers, max_size=4, unique=True),
    drivers=st.lists(_pointers, max_size=4, unique=True),
    frames=st.lists(st.one_of(_pointers, st.sampled_from([AMDGPU_FRAME, 0xFFFFFFFF81210123])), max_size=5),
    near=st.sampled_from([0xFFFFFFFFC0510000, 0xFFFFFFFFC0480000, 0xFFFFFFFF82E00000, 0xFFFFFFFFC0600000]),
    offset=st.integers(0, 0xFFFF),
)
def test_no_pointer_is_ever_in_the_output(
    tmp_path_factory: pytest.TempPathFactory,
    owners: list[int],
    drivers: list[int],
    frames: list[int],
    near: int,
    offset: int,
) -> None:
    owners = [*owners, near + offset]
    with map_set() as (bpf, maps):
        world = World(bpf, maps, tmp_path_factory.getbasetemp())
        bpf.keep_stack(5, *frames)
        for owner in owners:
            bpf.book(tables.OWNER, (owner,), stack=5)
            bpf.book(tables.MIGRATION, (owner, Class.evict, Trigger.kthread, DEVICE_NONE), started=1)
            bpf.book(tables.FAILURE, (owner, 22, Failure.migration, Class.evict, Trigger.kthread), calls=1)
            bpf.book(tables.PROCESS_MIGRATION, (COMM, owner, Class.evict), started=1)
        for ops in drivers:
            bpf.book(tables.DRIVER, (ops,))
            bpf.book(tables.RANGE_FAULT, (ops, 0, 0), calls=1)
            bpf.book(tables.EBUSY, (ops, 5, 0), calls=1)
            bpf.book(tables.FAILURE, (ops, 16, Failure.range_fault, 0, 0), calls=1)
        families = list(world.scrape.collect())
        world.close()
        shown = (text(families) + openmetrics(families) + repr(families)).lower()
    for pointer in {*owners, *drivers, *frames}:
        for form in (f"{pointer:x}", str(pointer), repr(float(pointer)), f"{pointer:o}", str(pointer - (1 << 64))):
            assert form not in shown
    assert "0xffff" not in shown


def test_a_device_that_comes_is_told_at_the_next_scrape_and_one_that_goes_keeps_its_counts(world: World) -> None:
    assert '{device="0000:c1:00.0",' in text(world.scrape.collect())
    world.bpf.book(tables.DEVICE, (0,), range_moved_bytes=4096)
    world.iomem.write_text("00001000-07ffffffff : System RAM\n3ffd00000000-3ffdffffffff : hmm_dmirror\n")
    shown = text(world.scrape.collect())
    assert 'hmm_device_info{device="hmm_dmirror-0",driver="test_hmm",pci_bus_id=""} 1.0' in shown
    assert 'hmm_device_info{device="0000:c1:00.0"' not in shown
    assert 'hmm_device_range_moved_bytes_total{device="0000:c1:00.0"} 4096.0' in shown
    assert 'hmm_device_range_moved_bytes_total{device="hmm_dmirror-0"} 0.0' in shown


def test_a_sweep_learns_devices_where_nobody_scrapes(world: World) -> None:
    world.iomem.write_text("00001000-0fffffffff : System RAM\n")
    world.scrape.sweep()
    (row,) = world.bpf.maps["devices_map"].rows.values()
    assert int.from_bytes(row[:8], "little") == 0x1000000
    assert int.from_bytes(row[8:16], "little") == 0


def test_regions_that_arrived_are_counted_from_the_sweep_on(world: World) -> None:
    world.bpf.arrive(0xFFFF888105A00000, 1, 1 << 62)
    world.scrape.sweep()
    found = samples(world.scrape.collect())
    assert found[("hmm_exporter_map_entries", frozenset({("map", "arrival")}))] == 1


def test_bytes_that_nobody_explains_unbalance_the_books(world: World) -> None:
    world.bpf.book(tables.MIGRATION, (OWNER, Class.evict, Trigger.kthread, 0), requested_bytes=8192, busy_bytes=4096)
    assert samples(world.scrape.collect())[("hmm_exporter_books_balanced", frozenset())] == 0


BY_PAGES = {metric.name.removesuffix("_total") for metric in METRICS for s in metric.sources if "pages" in s.options}
BY_DEVICES = {
    metric.name.removesuffix("_total") for metric in METRICS for s in metric.sources if "devices" in s.options
}


def names_in(folder: Path, kernel: Kernel | None = None, iomem: str = IOMEM) -> set[str]:
    """Families of a scrape that has been made for such a kernel; the bytes of its books are unexplained."""
    with map_set() as (bpf, maps):
        world = World(bpf, maps, folder, kernel=kernel, iomem=iomem)
        bpf.book(tables.MIGRATION, (0, Class.evict, Trigger.kthread, DEVICE_NONE), requested_bytes=4096)
        families = list(world.scrape.collect())
        world.close()
    balanced = samples(families)[("hmm_exporter_books_balanced", frozenset())]
    names = {family.name for family in families}
    assert bool(balanced) is not bool(names & BY_PAGES)
    return names


def test_where_no_page_can_be_read_what_moved_is_absent_and_the_books_do_without(tmp_path: Path) -> None:
    names = names_in(tmp_path, replace(kernels.kernel(), lockdown="confidentiality"))
    assert not names & BY_PAGES
    assert "hmm_migration_requested_bytes" in names


def test_where_devices_are_not_known_there_is_no_direction_and_all_else_is_there(tmp_path: Path) -> None:
    names = names_in(tmp_path, iomem="00000000-00000000 : System RAM\n")
    assert not names & BY_DEVICES
    assert BY_PAGES - BY_DEVICES <= names


@pytest.mark.parametrize(
    ("states", "there"),
    [
        ((ATTACHED, ATTACHED), True),  # 7.3
        ((ABSENT, ABSENT), True),  # to 7.2: every call is one attempt
        ((ABSENT, ATTACHED), False),  # 7.3, inlined: a call is any number of attempts
        ((ERROR, ATTACHED), False),
        ((ERROR, ABSENT), False),
    ],
)
def test_attempts_are_told_only_where_they_are_told_apart(tmp_path: Path, states: tuple[str, str], there: bool) -> None:
    of = dict(zip(("hmm_range_fault_locked", "hmm_range_fault_unlocked_timeout"), states))
    with map_set() as (bpf, maps):
        world = World(bpf, maps, tmp_path, states=of)
        names = {family.name for family in world.scrape.collect()}
        world.close()
    assert ({"hmm_range_fault_attempts", "hmm_range_fault_ebusy"} <= names) is there


def _returned(world: World) -> dict[tuple[str, str], float]:
    """Calls of hmm_range_fault by namespace and pod."""
    return {
        (dict(its)["namespace"], dict(its)["pod"]): value
        for (name, its), value in samples(world.scrape.collect()).items()
        if name == "hmm_process_range_faults_total"
    }


def test_a_restarted_container_goes_on_where_it_was_and_a_dead_pod_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = HostFiles(tmp_path)
    restarted = replace(LLAMA, id="d4" * 32)
    for container in (LLAMA, restarted, VLLM):
        files.link(container)
    host = Host(str(files.cgroup), str(files.container_logs))
    config = Config(host=host, kubernetes=Kubernetes(enabled=True))
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    first, second, other = (files.make(container.systemd()) for container in (LLAMA, restarted, VLLM))
    with map_set() as (bpf, maps):
        world = World(bpf, maps, tmp_path, config, kernels.kernel(simulated=True))
        for number, calls in ((first, 5), (second, 2), (other, 9)):
            bpf.book(tables.PROCESS, (b"python3".ljust(16, b"\0") + number.to_bytes(8, "little"),), range_faults=calls)
        whole = {("inference", LLAMA.pod): 7, ("inference", VLLM.pod): 9}
        assert _returned(world) == whole
        world.scrape.sweep()
        for container in (LLAMA, VLLM):
            (files.cgroup / container.systemd()).rmdir()
        now += OVER_SECONDS
        world.scrape.sweep()
        assert len(maps.read(tables.PROCESS)) == 2  # and `other`
        assert _returned(world) == {("inference", LLAMA.pod): 7}
        world.close()
