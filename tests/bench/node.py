# SPDX-License-Identifier: Apache-2.0
"""A busy node as rows in the maps: what its exporter exposes, without the hardware or the hours that would cause it.

`python3 -m tests.bench.node PROCESSES CPUS` serves such a node until its stdin ends, and says at which port.
Belongs here: which rows a node of so many GPUs, processes and pods has. Does not belong here: what a scrape of them
costs (scrape.py).
"""

from __future__ import annotations

import dataclasses
import errno
import itertools
import struct
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

from hmm_exporter import memory
from hmm_exporter.bpf.attach import Attachments
from hmm_exporter.bpf.compiler import compile_source
from hmm_exporter.bpf.maps import KeyValues, MapSet, Row, shards_for
from hmm_exporter.bpf.plan import ATTACHED, Outcome, choose
from hmm_exporter.bpf.source import stride, text
from hmm_exporter.bpf.syscall import map_update
from hmm_exporter.catalog import tables, values
from hmm_exporter.catalog.probes import PROBES
from hmm_exporter.catalog.tables import Kind, Table
from hmm_exporter.catalog.values import Class, DeviceFunction, Failure, Intent, RangeFunction, Trigger
from hmm_exporter.config import Config, Host, Kubernetes, Limits, Seconds
from hmm_exporter.daemon import State
from hmm_exporter.kernel.iomem import Iomem
from hmm_exporter.kernel.simulated import simulated_kernel
from hmm_exporter.kernel.symbols import Symbols
from hmm_exporter.metrics.scrape import Scrape
from hmm_exporter.web.server import Server
from tests.host_files import Container, HostFiles
from tests.process import SIMULATOR

GPUS = 8
PODS = 30
#: Addresses of g_uvm_global and uvm_hmm_notifier_ops in nvidia_uvm. Made up: they are in no kernel.
OWNER, OPS = 0xFFFFFFFFC0500000, 0xFFFFFFFFC0501000
KALLSYMS = f"{OWNER:x} b g_uvm_global\t[nvidia_uvm]\n{OPS:x} d uvm_hmm_notifier_ops\t[nvidia_uvm]\n"
RAM_END, GPU_BYTES = 1 << 41, 96 << 30
#: What a driver of GPUs asks for: memory to the device, back by faults of CPUs, back by its own wish; and what each
#: then counts besides, an array's element after a dot.
REQUESTS = (
    (
        Class.prefetch,
        Trigger.kthread,
        ("moved_bytes.host_to_device", "zero_filled_bytes", "busy_bytes", "no_destination_bytes", "aborted", "partial"),
    ),
    (Class.fault_back, Trigger.cpu_fault, ("moved_bytes.device_to_host", "returned_bytes")),
    (Class.evict, Trigger.syscall, ("moved_bytes.device_to_host",)),
)
BEGUN = ("started", "empty", "requested_bytes", "not_selected_bytes")
ENDED = ("completed", "requested_bytes", "collected_bytes", "not_selected_bytes")
ASKED = ("started", "requested_bytes")
ALL = ("*",)
COUNT = 1 << 20
INTENTS = (Intent.read, Intent.write)


def iomem() -> str:
    """As /proc/iomem shows RAM, and a region for each GPU."""
    first = 0x3F0000000000
    regions = [f"{first + n * GPU_BYTES:x}-{first + (n + 1) * GPU_BYTES - 1:x} : nvidia-uvm-hmm" for n in range(GPUS)]
    return "\n".join([f"00100000-{RAM_END - 1:x} : System RAM", *regions, ""])


def pods(files: HostFiles) -> list[int]:
    """Numbers of the cgroups of so many pods, of one container each."""
    containers = [
        Container("training", f"resnet-worker-{n}", "pytorch", f"9e1d7c3b-0000-4c5d-8e9f-{n:012d}", f"{n:064x}")
        for n in range(PODS)
    ]
    for container in containers:
        files.link(container)
    return [files.make(container.systemd()) for container in containers]


def comms(processes: int, cgroups: Sequence[int]) -> list[bytes]:
    """Keys of processes, which are in these cgroups in turn."""
    names = [f"worker-{number}".encode().ljust(16, b"\0") for number in range(processes)]
    return [name + cgroup.to_bytes(8, "little") for name, cgroup in zip(names, itertools.cycle(cgroups))]


def rows(processes: int, cgroups: Sequence[int] = (0,)) -> Iterator[tuple[Table, KeyValues, tuple[str, ...]]]:
    """Each row that is there, and which of its columns count; what has no open label exists anyway."""
    yield tables.OWNER, (OWNER,), ()
    yield tables.DRIVER, (OPS,), ()
    for class_, trigger, moved in REQUESTS:
        yield tables.MIGRATION, (OWNER, class_, trigger, values.DEVICE_NONE), BEGUN
        for device in range(GPUS):
            yield tables.MIGRATION, (OWNER, class_, trigger, device), ENDED + moved
        yield tables.MIGRATION_HISTOGRAM, (OWNER, class_), ALL
    for device in range(GPUS):
        yield tables.DEVICE, (device,), ALL
        yield tables.DEVICE_RANGE, (DeviceFunction.migrate_device_range, device), ALL
    for intent in INTENTS:
        yield tables.RANGE_FAULT, (OPS, RangeFunction.hmm_range_fault, intent), ALL
    yield tables.RANGE_ATTEMPT, (OPS,), ALL
    yield tables.INTERVAL_NOTIFIER, (OPS,), ALL
    for number in (errno.EBUSY, errno.EFAULT):
        yield tables.FAILURE, (OPS, number, Failure.range_fault, 0, 0), ALL
    yield tables.FAILURE, (OWNER, errno.EINVAL, Failure.migration, Class.prefetch, Trigger.kthread), ALL
    for comm in comms(processes, cgroups):
        yield tables.PROCESS, (comm,), ("range_faults",)
        yield tables.PROCESS_MIGRATION, (comm, OWNER, Class.prefetch), (*ASKED, "moved_bytes.host_to_device")
        yield (
            tables.PROCESS_MIGRATION,
            (comm, OWNER, Class.fault_back),
            (*ASKED, "moved_bytes.device_to_host", "returned_bytes", "fault_stall_ns"),
        )
        yield tables.PROCESS_FAILURE, (comm, errno.EBUSY, Failure.range_fault, 0), ALL


def words(table: Table, columns: tuple[str, ...]) -> Iterator[int]:
    for value in table.values:
        names = [f"{value.name}.{each.name}" for each in value.by] if value.by else [value.name] * value.words
        yield from (COUNT * (columns == ALL or name in columns) for name in names)


def fill(maps: MapSet, shards: int, processes: int, cgroups: Sequence[int]) -> None:
    """All shards of each row have counted: on a busy node, every CPU has."""
    for table, key, columns in rows(processes, cgroups):
        counted = tuple(words(table, columns))
        shard = counted + (0,) * (stride(table, shards) - len(counted))
        row = shard * (shards if table.sharded else 1)
        if table.kind is Kind.HASH:
            if maps.put_back(table, Row(key, row)):
                raise AssertionError(f"{table.name} has no room for {key!r}")
        else:
            index = 0
            for digit, field in zip(key, table.keys):
                index = index * field.values + int(digit)
            map_update(maps.fds[f"{table.name}_map"], struct.pack("<I", index), struct.pack(f"<{len(row)}Q", *row))


def scrape_of(folder: Path, processes: int, shards: int) -> Scrape:
    """What the daemon asks at a scrape, for a node on which all probes of the default groups are attached."""
    (folder / "iomem").write_text(iomem())
    (folder / "kallsyms").write_text(KALLSYMS)
    files = HostFiles(folder)
    config = Config(
        limits=Limits(processes=max(processes, Limits().processes), series=100_000),
        series_from_zero=Seconds(0.0),  # as after the first minute: zeros are shorter
        kubernetes=Kubernetes(enabled=True),
        host=Host(str(files.cgroup), str(files.container_logs)),
    )
    kernel = dataclasses.replace(
        simulated_kernel(SIMULATOR), symbols=Symbols(folder / "kallsyms"), iomem=Iomem(folder / "iomem")
    )
    plan, left_out = choose(kernel, config)
    plan = dataclasses.replace(plan, shards=shards)
    compiled = compile_source(text(plan, "uprobe"), config.loader.python, config.loader.timeout)
    held = Attachments()
    held.bcc, held.resources = compiled.bcc, kernel.iomem
    held.maps = MapSet(config.limits, config.maps, shards, compiled.maps)
    names = {probe.name: probe for probe in PROBES}
    held.outcomes = [
        *(Outcome(names[target.probe], target.function, ATTACHED, "uprobe") for target in plan.targets),
        *left_out,
    ]
    held.learn_devices(kernel.page_size)
    fill(held.maps, shards, processes, pods(files))
    return Scrape(dataclasses.replace(kernel, btf=None), config, held, ready_seconds=0)


def main() -> None:
    processes, cpus = int(sys.argv[1]), int(sys.argv[2])
    registry, state = CollectorRegistry(), State()
    with tempfile.TemporaryDirectory() as folder:
        scrape = scrape_of(Path(folder), processes, shards_for(cpus))
        scrape.sweep()  # names the pods
    for collector in (scrape, ProcessCollector(registry=None), PlatformCollector(registry=None)):
        registry.register(collector)
    memory.trim()  # as the daemon does
    state.attached(())  # whoever is not ready is not scraped
    server = Server(("127.0.0.1:0",), "/metrics", registry, state)
    server.start()
    print(server.ports[0], flush=True)
    sys.stdin.read()
    server.close()


if __name__ == "__main__":
    main()
