# SPDX-License-Identifier: Apache-2.0
"""The C text that bcc compiles: constants, structs and row functions from the catalogue, then programs.

What belongs here is how a declaration of ``catalog.tables`` becomes C. What a program does stands
in ``program/*.c``; which probes are wanted, and what the kernel has for them, comes as a `Plan`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from hmm_exporter.catalog import tables, values
from hmm_exporter.catalog.probes import PROBES
from hmm_exporter.catalog.tables import Key, Kind, Table
from hmm_exporter.catalog.values import CONSTANTS

PROGRAMS = Path(__file__).parent / "program"
THREAD_WORDS = 192
"""At least as many as program/thread.c's row has; the compiler's layout is checked against it."""
HEADERS = Path(__file__).parent
"""Taken by bcc for a kernel's source tree: it looks in `include` below it."""

_ENUMERATIONS: Mapping[str, type[IntEnum]] = {
    "CLASS": values.Class,
    "TRIGGER": values.Trigger,
    "INTENT": values.Intent,
    "DEVICE_FUNCTION": values.DeviceFunction,
    "DIRECTION": values.Direction,
    "RANGE_FUNCTION": values.RangeFunction,
    "INVALIDATION": values.Invalidation,
    "ENTRY": values.Entry,
    "CONTEXT": values.Context,
    "EVENT": values.Event,
    "FAILURE": values.Failure,
    "LOSS": values.Loss,
}
_OTHER = {"u64": "OTHER_POINTER", "u32": "OTHER_STACK", "u16": "OTHER_ERRNO", "u8": "OTHER_DEVICE"}
WALK_BLOCK = 0x77616C6B_626C6F63
"""Stands in the programs for the address of `walk_block`, until ``bpf.code`` has joined them."""
# C has no room for two meanings of one name: this struct is the process that acts.
_STRUCT_NAMES = {"process": "process_counters"}


@dataclass(frozen=True)
class Target:
    """A probe that shall be compiled: the function chosen for it, and its number of parameters."""

    probe: str
    function: str
    parameters: int


@dataclass(frozen=True)
class Plan:
    """All that the text depends on. Offsets and sizes are in bytes, by ``"struct.field"`` and ``"struct"``."""

    targets: tuple[Target, ...]
    offsets: Mapping[str, int]
    sizes: Mapping[str, int]
    enumerators: Mapping[str, int]
    groups: frozenset[str]
    shards: int
    page_size: int
    tgids: tuple[int, ...] = ()
    comms: tuple[bytes, ...] = ()
    migration_phases: bool = False
    pages: bool = True
    """Whether bpf_probe_read_kernel may be used: for all that lies behind a second pointer."""
    pids: bool = False
    """Whether processes are told apart by their ids, too."""
    cgroups: bool = False
    """Whether they are told apart by their cgroups, too; not beside ``pids``."""
    thrash_window: float = 10.0
    """Seconds."""
    attempts_in_locked: bool = False
    """Whether hmm_range_fault_locked is watched, in this build or in another: each attempt goes through it."""
    resources: bool = False
    """With the program that reads the kernel's tree of physical ranges, which is no probe's."""


def text(plan: Plan, build: str) -> str:
    """The whole program for ``build``: ``fentry``, ``kprobe`` or ``uprobe``."""
    wanted = {target.probe for target in plan.targets}
    subjects = dict.fromkeys(itertools.chain(*(probe.sources for probe in PROBES if probe.name in wanted)))
    parts = [
        f"#define BUILD_{build.upper()} 1",
        "#include <uapi/linux/ptrace.h>",
        *_defines(plan),
        _program("glue.c"),
        _program("histogram.c"),
        _program("process.c"),
        *(_layout(table, plan.shards) for table in tables.TABLES),
        *_blank_and_shard(plan.shards),
        *(_array_row(table) for table in tables.TABLES if table.kind is Kind.ARRAY),
        _program("rows.c"),
        *(
            _hash_row(number, table)
            for number, table in enumerate(tables.ROW_TABLES)
            if table.kind is Kind.HASH and table not in (tables.OWNER, tables.DRIVER)
        ),
        _program("book.c"),
        _program("device.c"),
        _program("arrival.c"),
        _program("pages.c"),
        _program("thread.c"),
        *(_program(subject) for subject in subjects),
        *(_program("iomem.c") for _ in range(plan.resources)),
    ]
    return "\n".join(parts)


def stride(table: Table, shards: int) -> int:
    """u64 words from one shard of a row to the next: whole cache lines where there are several."""
    if shards == 1 or not table.sharded:
        return table.words
    return -(-table.words // 8) * 8


def row_words(table: Table, shards: int) -> int:
    """u64 words of a row with all its shards."""
    return stride(table, shards) * (shards if table.sharded else 1)


def _program(name: str) -> str:
    return f'#line 1 "{name}"\n{(PROGRAMS / name).read_text()}'


def _defines(plan: Plan) -> Iterator[str]:
    def define(name: str, value: object) -> str:
        return f"#define {name} {value}"

    for constants in (CONSTANTS, plan.enumerators):
        yield from (define(name, f"{value:#x}ULL") for name, value in constants.items())
    for prefix, enumeration in _ENUMERATIONS.items():
        yield from (define(f"{prefix}_{member.name}", member.value) for member in enumeration)
    yield from (define(f"PHASE_{phase}", number) for number, phase in enumerate(values.PHASES))
    yield from (define(f"PROBE_{probe.name}", number) for number, probe in enumerate(PROBES))
    yield from (define(f"OFFSET_{name.replace('.', '_')}", value) for name, value in plan.offsets.items())
    yield from (define(f"SIZE_{name}", value) for name, value in plan.sizes.items())
    yield from (define(f"GROUP_{name}", 1) for name in sorted(plan.groups))
    for target in plan.targets:
        yield define(f"TARGET_{target.probe}", 1)
        yield define(f"FUNCTION_{target.function}", 1)
        yield define(f"PARAMETERS_{target.probe}", target.parameters)
    yield define("OTHER_POINTER", f"{values.OTHER_POINTER:#x}ULL")
    yield define("OTHER_STACK", f"{values.OTHER_STACK:#x}U")
    yield define("OTHER_ERRNO", f"{values.OTHER_ERRNO:#x}")
    yield define("OTHER_DEVICE", f"{values.OTHER_DEVICE:#x}")
    yield define("DEVICE_none", values.DEVICE_NONE)
    yield define("DEVICE_unknown", values.DEVICE_UNKNOWN)
    yield define("DEVICE_REGIONS", values.DEVICE_REGIONS)
    yield define("DIRECTION_COUNT", len(values.Direction))
    yield define("WALK_BLOCK", f"{WALK_BLOCK:#x}ULL")
    yield define("THRASH_WINDOW_NS", f"{int(plan.thrash_window * 1e9)}ULL")
    yield define("PAGES", int(plan.pages))
    yield define("WITH_PIDS", int(plan.pids))
    yield define("WITH_CGROUPS", int(plan.cgroups))
    yield define("ATTEMPTS_IN_LOCKED", int(plan.attempts_in_locked))
    yield define("HISTOGRAM_SLOTS", values.HISTOGRAM_SLOTS)
    yield define("BYTES_SHIFT", values.Size.bytes.shift)
    yield define("SECONDS_SHIFT", values.Size.seconds.shift)
    yield define("PTE_ORDERS", values.PTE_ORDERS)
    yield define("PAGE_SIZE", f"{plan.page_size}ULL")
    # What one entry of a page table's second level maps: 2 MiB, and 512 MiB where pages have 64 KiB.
    yield define("REGION_SHIFT", 2 * plan.page_size.bit_length() - 5)
    yield define("PAGE_MASK", f"(~({plan.page_size}ULL - 1))")
    yield from (define("MIGRATION_PHASES", 1) for _ in range(plan.migration_phases))
    yield from _filter(plan)


def _filter(plan: Plan) -> Iterator[str]:
    tgids = [f"(process)->tgid == {tgid}" for tgid in plan.tgids]
    comms = []
    for comm in plan.comms:
        low, high = (int.from_bytes(comm.ljust(16, b"\0")[at : at + 8], "little") for at in (0, 8))
        comms.append(f"((process)->comm[0] == {low:#x}ULL && (process)->comm[1] == {high:#x}ULL)")
    conditions = [f"({' || '.join(each)})" for each in (tgids, comms) if each]
    yield f"#define FILTER_TGIDS {len(tgids)}"
    yield f"#define FILTER_COMMS {len(comms)}"
    yield f"#define FILTER_BODY(process) if ({' && '.join(conditions) or '1'}) return 1;"


def _struct(table: Table) -> str:
    return _STRUCT_NAMES.get(table.name, table.name)


def _fields(keys: Iterable[Key]) -> Iterator[str]:
    for key in keys:
        yield f"u64 {key.name}[3];" if key.c_type == "comm" else f"{key.c_type} {key.name};"


def key_bytes(table: Table) -> tuple[int, int]:
    """(bytes of the fields, bytes of padding after them) of a HASH's key struct."""
    sizes = {"u64": 8, "comm": 24, "u32": 4, "u16": 2, "u8": 1}
    used = sum(sizes[key.c_type] for key in table.keys)
    return used, -used % 8


def _layout(table: Table, shards: int) -> str:
    """Structs of key and value, and the map. The daemon makes the map that is used, in its real size."""
    name, struct = table.name, _struct(table)
    values = "".join(f"\tu64 {value.name}{f'[{value.words}]' if value.is_array else ''};\n" for value in table.values)
    padding = stride(table, shards) - table.words
    copies = shards if table.sharded else 1
    lines = [
        f"struct {struct} {{\n{values}" + (f"\tu64 padding[{padding}];\n" if padding else "") + "};",
        f"struct {name}_row {{ struct {struct} shard[{copies}]; }};",
    ]
    if table.kind is Kind.HASH:
        _, pad = key_bytes(table)
        padded = f" u8 padding[{pad}];" if pad else ""
        lines.append(f"struct {name}_key {{ {' '.join(_fields(table.keys))}{padded} }};")
    key_type = f"struct {name}_key" if table.kind is Kind.HASH else "u32"
    lines.append(f'BPF_TABLE("{table.kind.value}", {key_type}, struct {name}_row, {name}_map, 1);')
    return "\n".join(lines)


def _blank_and_shard(shards: int) -> Iterator[str]:
    words = max(row_words(table, shards) for table in tables.TABLES)
    # thread.c has its row from here, too.
    yield f"struct zero {{ u64 words[{max(words, THREAD_WORDS)}]; }};"
    yield 'BPF_TABLE("array", u32, struct zero, zero_map, 1);'
    yield "INLINE struct zero *zero_row(void) { u32 index = 0; return zero_map.lookup(&index); }"
    # One shard for 32 CPUs.
    yield f"INLINE u32 shard(void) {{ return (get_smp_processor_id() >> 5) & {shards - 1}; }}"


def _at_shard(table: Table) -> str:
    return "&row->shard[shard()]" if table.sharded else "&row->shard[0]"


def _array_row(table: Table) -> str:
    """``struct T *T_row(digit, ...)``: NULL only for digits out of range."""
    index = "0"
    for key in table.keys:
        index = f"({index}) * {key.values} + {key.name}"
    parameters = ", ".join(f"u32 {key.name}" for key in table.keys)
    return (
        f"INLINE struct {_struct(table)} *{table.name}_row({parameters})\n{{\n"
        f"\tu32 index = {index};\n"
        f"\tstruct {table.name}_row *row = {table.name}_map.lookup(&index);\n\n"
        f"\treturn row ? {_at_shard(table)} : NULL;\n}}"
    )


def _hash_row(number: int, table: Table) -> str:
    """``struct T *T_row(ctx, &key)``: finds the row, or admits it, or finds `other`'s.

    Fields that are not admitted are overwritten in ``key``, so that the caller books later parts
    of the same event to the same row.
    """
    name = table.name
    checks = "".join(
        f"\tif (!{key.admitted_by}_admits(ctx, key->{key.name})) {{ {_become_other(key)} other = 1; }}\n"
        for key in table.keys
        if key.admitted_by
    )
    all_other = " ".join(_become_other(key) for key in table.open_keys)
    return f"""INLINE struct {name}_row *{name}_admit(void *ctx, struct {name}_key *key)
{{
	struct zero *blank = zero_row();
	int other = 0;

	if (!blank)
		return NULL;
{checks}	{name}_map.insert(key, (struct {name}_row *)blank);
	struct {name}_row *row = {name}_map.lookup(key);
	if (!row) {{
		{all_other}
		other = 1;
		row = {name}_map.lookup(key);
	}}
	if (other) {{
		struct overflow *lost = overflow_row({number});
		if (lost)
			add(&lost->events, 1);
	}}
	return row;
}}
INLINE struct {_struct(table)} *{name}_row(void *ctx, struct {name}_key *key)
{{
	struct {name}_row *row = {name}_map.lookup(key);

	if (!row)
		row = {name}_admit(ctx, key);
	return row ? {_at_shard(table)} : NULL;
}}"""


def _become_other(key: Key) -> str:
    if key.c_type == "comm":
        return "".join(f"key->{key.name}[{at}] = OTHER_POINTER; " for at in range(3))
    return f"key->{key.name} = {_OTHER[key.c_type]};"
