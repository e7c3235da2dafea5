# SPDX-License-Identifier: Apache-2.0
"""The C text: layouts, constants, the filter, and that a program uses nothing that is not there."""

from __future__ import annotations

import ctypes
import itertools
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmm_exporter.bpf import source
from hmm_exporter.bpf.code import CALLBACK
from hmm_exporter.bpf.plan import choose
from hmm_exporter.catalog import tables
from hmm_exporter.catalog.fields import (
    CGROUP_FIELDS,
    OPTIONAL_FIELDS,
    PROCESS_FIELDS,
    RESOURCE_ENUMERATORS,
    RESOURCE_FIELDS,
)
from hmm_exporter.catalog.probe import Probe
from hmm_exporter.catalog.probes import PROBES
from hmm_exporter.catalog.tables import TABLES, Kind, Table
from hmm_exporter.catalog.values import CONSTANTS, OTHER_DEVICE
from hmm_exporter.config import Filter, Seconds, Slurm
from tests.unit.bpf import in_memory, kernels
from tests.unit.bpf.c_text import Source, preprocess, uses

HASHES = [table for table in TABLES if table.kind is Kind.HASH]
ARRAYS = [table for table in TABLES if table.kind is Kind.ARRAY]
BUILDS = ("fentry", "kprobe", "uprobe")
SOURCES = sorted({name for probe in PROBES for name in probe.sources})
SHARED = ("glue.c", "histogram.c", "process.c", "rows.c", "book.c", "device.c", "arrival.c", "pages.c", "thread.c")
"""Files that are part of every program, whatever the probes."""

_names = st.sampled_from([probe.name for probe in PROBES])


def program(
    only: tuple[str, ...] | None = None,
    build: str = "fentry",
    filter: Filter | None = None,
    without: frozenset[str] = kernels.RENAMED,
    phases: bool = True,
    slurm: bool = False,
) -> Source:
    """The text for a kernel with ``only`` these probes, preprocessed."""
    made = kernels.kernel(without=without, simulated=build == "uprobe")
    plan, _ = choose(made, replace(kernels.config(only, filter, phases), slurm=Slurm(slurm)))
    return preprocess(source.text(plan, build))


def of_table(table: Table) -> str:
    return table.name


# Bytes of the key's fields, and of the padding behind them. The kernel compares all of a key's
# bytes, so that padding must be there and must be known.
KEYS = {
    "owner": (8, 0),
    "driver": (8, 0),
    "migration": (11, 5),
    "migration_histogram": (9, 7),
    "range_fault": (10, 6),
    "range_attempt": (8, 0),
    "ebusy": (13, 3),
    "interval_notifier": (8, 0),
    "failure": (13, 3),
    "process": (24, 0),
    "process_migration": (33, 7),
    "process_failure": (28, 4),
}


def test_every_hash_has_a_key_of_this_size_and_padding() -> None:
    assert {table.name: source.key_bytes(table) for table in HASHES} == KEYS


@pytest.mark.parametrize("table", HASHES, ids=of_table)
def test_the_compiler_lays_out_a_key_without_a_hole_between_its_fields(table: Table) -> None:
    key = in_memory.c_structs(1)[f"{table.name}_key"]
    sizes = {"u64": 8, "comm": 24, "u32": 4, "u16": 2, "u8": 1}
    expected = itertools.accumulate((sizes[each.c_type] for each in table.keys), initial=0)
    offsets = [getattr(key, each.name).offset for each in table.keys]
    assert offsets == list(expected)[:-1]
    assert ctypes.sizeof(key) == sum(KEYS[table.name])


@pytest.mark.parametrize("shards", [1, 2, 4, 8])
@pytest.mark.parametrize("table", TABLES, ids=of_table)
def test_the_compiler_lays_out_a_row_as_the_reader_takes_it(table: Table, shards: int) -> None:
    row = in_memory.c_structs(shards)[f"{table.name}_row"]
    one = in_memory.c_structs(shards)["process_counters" if table.name == "process" else table.name]
    assert ctypes.sizeof(row) == 8 * source.row_words(table, shards)
    assert ctypes.sizeof(one) == 8 * (source.stride(table, shards) if table.sharded else table.words)
    at = 0
    for value in table.values:
        column = getattr(one, value.name)
        assert (column.offset, column.size) == (at, 8 * value.words)
        at += 8 * value.words


@given(st.sampled_from(TABLES), st.sampled_from((2, 4, 8)))
def test_shards_begin_at_whole_cache_lines_and_waste_less_than_one(table: Table, shards: int) -> None:
    step = source.stride(table, shards)
    if table.sharded:
        assert step % 8 == 0
        assert table.words <= step < table.words + 8
        assert source.row_words(table, shards) == shards * step
    else:
        assert step == source.row_words(table, shards) == table.words


@pytest.mark.parametrize("table", TABLES, ids=of_table)
def test_one_shard_needs_no_padding(table: Table) -> None:
    assert source.stride(table, 1) == source.row_words(table, 1) == table.words


@pytest.mark.parametrize("shards", [1, 2, 4, 8])
def test_every_row_fits_into_the_zero_row_that_initialises_it(shards: int) -> None:
    laid_out = in_memory.c_structs(shards)
    rows = {name: ctypes.sizeof(each) for name, each in laid_out.items() if name.endswith("_row") or name == "thread"}
    assert len(rows) == len(TABLES) + 1
    zero = ctypes.sizeof(laid_out["zero"])
    assert {name: size for name, size in rows.items() if size > zero} == {}


@pytest.mark.parametrize("shards", [1, 2, 4, 8])
def test_the_program_makes_a_map_for_every_table_and_seven_of_its_own(shards: int) -> None:
    own = {"thread_map", "arrival_map", "resident_map", "devices_map", "zero_map", "stack_map", "resource_map"}
    assert set(in_memory.layouts(shards)) == {f"{table.name}_map" for table in TABLES} | own


@pytest.mark.parametrize("shards", [1, 2, 4, 8])
def test_a_cpu_writes_to_a_shard_that_exists(shards: int) -> None:
    plan, _ = choose(kernels.kernel(possible_cpus=32 * shards), kernels.config())
    body = re.search(r"INLINE u32 shard\(void\) \{ return (.*?); \}", source.text(plan, "fentry"))
    assert body
    expression = body[1].replace("get_smp_processor_id()", "cpu")
    used = [eval(expression, {"cpu": cpu}) for cpu in range(32 * shards)]
    assert used == [cpu // 32 for cpu in range(32 * shards)]
    assert {eval(expression, {"cpu": cpu}) for cpu in range(4096)} == set(range(shards))


@pytest.mark.parametrize("table", ARRAYS, ids=of_table)
def test_the_program_numbers_an_arrays_rows_as_the_reader_does(table: Table) -> None:
    code = program().code
    formula = re.search(rf"\*{table.name}_row\((.*?)\)\n\{{\n\tu32 index = (.*?);", code)
    assert formula
    parameters = re.findall(r"u32 (\w+)", formula[1])
    expression = re.sub(r"[a-z]+", r"_\g<0>", formula[2])  # `class` is Python's
    digits = list(itertools.product(*(range(key.values) for key in table.keys)))
    named = [{f"_{name}": digit for name, digit in zip(parameters, each)} for each in digits]
    assert [eval(expression, each) for each in named] == list(range(len(digits)))


@pytest.mark.parametrize("table", [t for t in HASHES if t.name not in ("owner", "driver")], ids=of_table)
def test_a_full_table_books_every_unknown_field_as_other_and_counts_it(table: Table) -> None:
    code = program().code
    body = re.search(rf"\*{table.name}_admit\(.*?\n\}}\n", code, re.DOTALL)
    assert body
    full = body[0].partition("if (!row) {")[2].partition("}")[0]
    assert set(re.findall(r"key->(\w+)", full)) == {key.name for key in table.open_keys}
    assert f"overflow_row({tables.ROW_TABLES.index(table)})" in body[0]
    admitted = {key.name for key in table.keys if key.admitted_by}
    assert set(re.findall(r"_admits\(ctx, key->(\w+)\)", body[0])) == admitted


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_a_probes_source_files_exist(probe: Probe) -> None:
    assert probe.sources
    for name in probe.sources:
        assert (source.PROGRAMS / name).is_file()
        assert name not in SHARED


def defined_in(name: str) -> list[tuple[str, str]]:
    """The programs in a file: (macro, probe)."""
    text = (source.PROGRAMS / name).read_text()
    return re.findall(r"^(ENTER|LEAVE|TRACEPOINT)\((\w+)\)", text, re.MULTILINE)


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_a_probes_source_files_define_the_programs_that_it_declares_each_once(probe: Probe) -> None:
    entry = "TRACEPOINT" if probe.tracepoint else "ENTER"
    declared = [(entry, probe.name)] * probe.entry + [("LEAVE", probe.name)] * probe.exit
    defined = [found for name in probe.sources for found in defined_in(name) if found[1] == probe.name]
    assert defined == declared


def test_files_define_no_program_that_nobody_declares() -> None:
    defined = [(name, probe) for name in SOURCES for _, probe in defined_in(name)]
    assert {probe for _, probe in defined} == {probe.name for probe in PROBES}
    assert {(name, probe.name) for probe in PROBES for name in probe.sources} >= set(defined)
    assert [found for name in SHARED for found in defined_in(name) if found[1] != "function"] == []


def test_every_file_of_the_program_is_shared_or_some_probes_or_walks_the_resources() -> None:
    files = {path.name for path in source.PROGRAMS.glob("*.c")}
    assert files == set(SHARED) | set(SOURCES) | {"iomem.c"}


def test_the_walk_of_the_resources_uses_what_is_declared_for_it() -> None:
    made = program(("hmm_range_fault",))
    text = (source.PROGRAMS / "iomem.c").read_text()
    used = {field for _, field in uses(made.code, "RESOURCE_FIELD")} | set(re.findall(r"OFFSET_resource_(\w+)", text))
    assert used - {"field"} == {path.partition(".")[2] for path in RESOURCE_FIELDS}
    assert set(re.findall(r"IORES_\w+", text)) == set(RESOURCE_ENUMERATORS)
    assert {f"OFFSET_{path.replace('.', '_')}" for path in RESOURCE_FIELDS} <= made.defined
    assert {*RESOURCE_ENUMERATORS, "SIZE_resource"} <= made.defined


def test_a_simulators_program_does_not_walk_the_resources() -> None:
    assert "walk_resources" not in program(build="uprobe").code
    assert "walk_resources" in program(build="kprobe").code


def fields_used(code: str) -> set[str]:
    """``struct_field`` of every read in C text."""
    found = {argument[-1] for macro in ("READ_64", "READ_32", "FIELD_64", "FIELD_32") for argument in uses(code, macro)}
    return found | {"task_struct_comm" for _ in uses(code, "READ_COMM")}


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_file_reads_only_fields_that_its_probes_declare(name: str) -> None:
    declared = {
        path.replace(".", "_")
        for probe in PROBES
        if name in probe.sources
        for path in PROCESS_FIELDS + OPTIONAL_FIELDS + CGROUP_FIELDS + probe.fields
    }
    assert fields_used((source.PROGRAMS / name).read_text()) <= declared


def test_shared_files_read_only_what_every_reading_probe_declares() -> None:
    used = set().union(*(fields_used((source.PROGRAMS / name).read_text()) for name in SHARED if name != "glue.c"))
    assert used <= {path.replace(".", "_") for path in PROCESS_FIELDS + OPTIONAL_FIELDS + CGROUP_FIELDS}
    assert "mm_struct_owner" in used


@pytest.mark.parametrize("build", BUILDS)
def test_cgroups_are_read_only_for_who_asks(build: str) -> None:
    with_them, without = program(build=build, slurm=True), program(build=build)
    assert {path.replace(".", "_") for path in CGROUP_FIELDS} <= fields_used(with_them.code)
    assert undefined(with_them, build) == set()
    assert not {path.replace(".", "_") for path in CGROUP_FIELDS} & fields_used(without.code)


def undefined(made: Source, build: str) -> set[str]:
    """What the code uses and nobody defined: fields, sizes, parameters, constants, as the build would expand them."""
    needed = {f"OFFSET_{field}" for field in fields_used(made.code)}
    if build == "fentry":
        needed |= {f"PARAMETERS_{arguments[1]}" for arguments in uses(made.code, "RESULT")}
    else:
        needed |= {f"SIZE_{arguments[1]}" for arguments in uses(made.code, "SNAPSHOT")}
    # Constants are in capitals at least at their beginning: MIGRATE_VMA_SELECT_SYSTEM, PROBE_hmm_range_fault.
    bodies = "\n".join(body for name, body in made.macros.items() if "##" not in body)
    domains = "PROBE|CLASS|TRIGGER|INTENT|EVENT|FAILURE|PHASE|LOSS|ENTRY|CONTEXT|DEVICE|DIRECTION"
    constant = rf"\b(?:[A-Z]{{3,}}_[A-Z_]+|(?:{domains})_[a-z_]+)\b"
    needed |= set(re.findall(constant, made.code + bodies))
    return needed - made.defined - _BCC


_BCC = {"BPF_TABLE", "BPF_STACK_TRACE", "PT_REGS_RC"} | {f"PT_REGS_PARM{number}" for number in range(1, 7)}


def test_the_whole_program_uses_nothing_that_is_not_defined() -> None:
    assert {build: undefined(program(build=build), build) for build in BUILDS} == {build: set() for build in BUILDS}


@pytest.mark.parametrize("probe", [probe.name for probe in PROBES])
def test_a_kernel_that_has_one_probe_only_gets_a_program_that_compiles(probe: str) -> None:
    assert [undefined(program((probe,), build), build) for build in BUILDS] == [set()] * len(BUILDS)


@given(st.sets(_names), st.sampled_from(BUILDS), st.booleans())
def test_whatever_probes_are_left_out_the_program_compiles(excluded: set[str], build: str, filtered: bool) -> None:
    only = tuple(probe.name for probe in PROBES if probe.name not in excluded)
    made = program(only, build, Filter(tgids=(1,)) if filtered else None)
    assert undefined(made, build) == set()


@pytest.mark.parametrize(
    "without",
    [
        {"migrate_vma.fault_page", "migrate_device_range", "migrate_device_pfns", "make_device_exclusive"},
        {"make_device_exclusive", "hmm_range_fault_unlocked_timeout", "do_huge_pmd_device_private"},
        {"mm_struct.owner"},
        {"task_struct.cgroups", "css_set", "cgroup"},
        {"restore_exclusive_pte", "make_device_exclusive", "make_device_exclusive_range"},
    ],
    ids=["5.15", "6.12", "CONFIG_MEMCG=n", "CONFIG_CGROUPS=n", "CONFIG_DEVICE_PRIVATE=n"],
)
def test_an_older_or_smaller_kernel_gets_a_program_that_compiles(without: set[str]) -> None:
    made = [undefined(program(build=build, without=frozenset(without), slurm=True), build) for build in BUILDS]
    assert made == [set()] * len(BUILDS)


def test_a_program_holds_the_subjects_of_its_probes_and_no_others() -> None:
    plan, _ = choose(kernels.kernel(), kernels.config(only=("hmm_range_fault",)))
    files = re.findall(r'#line 1 "(\w+\.c)"', source.text(plan, "fentry"))
    assert files == [*SHARED, "range_attempt.c", "range_fault.c", "iomem.c"]


@pytest.mark.parametrize("build", BUILDS)
def test_a_build_defines_its_own_name_only(build: str) -> None:
    assert {name for name in program(build=build).defined if name.startswith("BUILD_")} == {f"BUILD_{build.upper()}"}


def test_enumerations_constants_and_offsets_reach_the_program_with_their_values() -> None:
    made = kernels.kernel()
    plan, _ = choose(made, kernels.config())
    macros = preprocess(source.text(plan, "fentry")).macros
    assert (macros["CLASS_prefetch"], macros["CLASS_unclassified"], macros["TRIGGER_syscall"]) == ("0", "3", "3")
    assert (macros["EVENT_dma_unmap_miss"], macros["FAILURE_huge_fault"], macros["LOSS_stack"]) == ("7", "5", "1")
    assert (macros["PHASE_setup"], macros["PHASE_finalize"], macros["CONTEXT_hmm"]) == ("0", "4", "1")
    assert macros["PF_KTHREAD"] == f"{CONSTANTS['PF_KTHREAD']:#x}ULL" == "0x200000ULL"
    assert [int(macros[f"PROBE_{probe.name}"]) for probe in PROBES] == list(range(len(PROBES)))
    assert macros["OFFSET_task_struct_comm"] == str(plan.offsets["task_struct.comm"])
    assert macros["SIZE_migrate_vma"] == "256"
    assert macros["MIGRATE_VMA_SELECT_SYSTEM"] == f"{plan.enumerators['MIGRATE_VMA_SELECT_SYSTEM']:#x}ULL"
    assert macros["PARAMETERS_hmm_range_fault"] == str(kernels.PARAMETERS)
    assert (macros["OTHER_POINTER"], macros["OTHER_STACK"], macros["OTHER_ERRNO"]) == (
        "0xffffffffffffffffULL",
        "0xffffffffU",
        "0xffff",
    )
    assert (macros["HISTOGRAM_SLOTS"], macros["BYTES_SHIFT"], macros["SECONDS_SHIFT"]) == ("26", "12", "10")


@pytest.mark.parametrize("page_size", kernels.PAGE_SIZES)
@given(st.integers(0, 2**64 - 1))
def test_the_mask_leaves_the_start_of_a_page_of_the_kernels_size(page_size: int, address: int) -> None:
    plan, _ = choose(kernels.kernel(page_size=page_size), kernels.config(only=("migrate_vma_setup",)))
    size, mask = (
        eval(preprocess(source.text(plan, "fentry")).macros[name].replace("ULL", ""))
        for name in ("PAGE_SIZE", "PAGE_MASK")
    )
    assert size == page_size
    assert address & mask == address // page_size * page_size


def test_no_program_knows_how_large_a_page_is_but_by_its_name() -> None:
    for path in source.PROGRAMS.glob("*.c"):
        code = re.sub(r"/\*.*?\*/", " ", path.read_text(), flags=re.DOTALL)
        assert re.findall(r"\b(?:4096|65536|0x1000|0xfff)[ul]*\b|(?:<<|>>) *12\b", code, re.IGNORECASE) == [], path.name


def test_the_older_name_of_a_function_is_told_to_the_program() -> None:
    without = frozenset({"make_device_exclusive"})
    assert "FUNCTION_make_device_exclusive_range" in program(without=without).defined
    assert "FUNCTION_make_device_exclusive" not in program(without=without).defined
    assert "FUNCTION_make_device_exclusive" in program().defined


def test_the_histogram_of_phases_is_built_only_when_asked_for() -> None:
    assert "MIGRATION_PHASES" in program(phases=True).defined
    assert "MIGRATION_PHASES" not in program(phases=False).defined


def test_a_probes_bit_never_meets_the_bit_of_a_migration_in_flight() -> None:
    in_migration = re.search(r"#define IN_MIGRATION \(1ULL << (\d+)\)", (source.PROGRAMS / "thread.c").read_text())
    assert in_migration
    assert len(PROBES) <= int(in_migration[1]) == 63


@pytest.mark.parametrize(
    ("filter", "condition"),
    [
        (Filter(), "if (1) return 1;"),
        (Filter(tgids=(42,)), "if (((process)->tgid == 42)) return 1;"),
        (Filter(tgids=(42, 7)), "if (((process)->tgid == 42 || (process)->tgid == 7)) return 1;"),
        (
            Filter(comms=("python3",)),
            "if ((((process)->comm[0] == 0x336e6f68747970ULL && (process)->comm[1] == 0x0ULL))) return 1;",
        ),
        (
            Filter(tgids=(42,), comms=("abcdefghijklmno", "é")),
            "if (((process)->tgid == 42) && (((process)->comm[0] == 0x6867666564636261ULL"
            " && (process)->comm[1] == 0x6f6e6d6c6b6a69ULL) || ((process)->comm[0] == 0xa9c3ULL"
            " && (process)->comm[1] == 0x0ULL))) return 1;",
        ),
    ],
    ids=["nobody", "tgid", "tgids", "comm", "both"],
)
def test_the_filter_is_one_condition_on_numbers(filter: Filter, condition: str) -> None:
    macros = program(filter=filter).macros
    assert macros["FILTER_BODY(process)"] == condition
    assert (macros["FILTER_TGIDS"], macros["FILTER_COMMS"]) == (str(len(filter.tgids)), str(len(filter.comms)))


def passes(filter: Filter, tgid: int, comm: bytes) -> bool:
    """What the filter's condition says of a process, read as a Python expression."""
    body = program(("hmm_range_fault",), filter=filter).macros["FILTER_BODY(process)"]
    condition = re.fullmatch(r"if \((.*)\) return 1;", body)
    assert condition
    words = comm.ljust(16, b"\0")
    python = condition[1].replace("(process)->", "").replace("||", "or").replace("&&", "and").replace("ULL", "")
    comm_words = [int.from_bytes(words[at : at + 8], "little") for at in (0, 8)]
    return bool(eval(python, {"tgid": tgid, "comm": comm_words}))


_comms = st.text(min_size=1).filter(lambda text: len(text.encode()) <= 15 and "\0" not in text)


@given(
    st.lists(st.integers(1, 5), max_size=2),
    st.lists(_comms, max_size=2),
    st.integers(1, 5),
    st.data(),
)
def test_a_process_passes_if_its_tgid_and_its_comm_are_listed_where_there_is_a_list(
    tgids: list[int], comms: list[str], tgid: int, data: st.DataObject
) -> None:
    comm = data.draw(st.sampled_from(comms) | _comms if comms else _comms)
    expected = (not tgids or tgid in tgids) and (not comms or comm in comms)
    assert passes(Filter(tgids=tuple(tgids), comms=tuple(comms)), tgid, comm.encode()) is expected


def test_lockdown_gets_a_program_that_reads_no_array() -> None:
    """bpf_probe_read_kernel would be refused, and the whole program with it."""
    made = {pages: kernels.kernel(lockdown="none" if pages else "confidentiality") for pages in (True, False)}
    texts = {pages: source.text(choose(kernel, kernels.config())[0], "fentry") for pages, kernel in made.items()}
    read = {pages: preprocess(text) for pages, text in texts.items()}
    assert (read[True].macros["PAGES"], read[False].macros["PAGES"]) == ("1", "0")
    assert {name for name in PAGES_ONLY if f"({name})" in read[False].code} == set()
    assert {name for name in PAGES_ONLY if f"({name})" in read[True].code} == PAGES_ONLY
    assert [undefined(each, "fentry") for each in read.values()] == [set(), set()]
    # What walks the arrays is defined, and called by nobody.
    calls = [line for line in read[False].code.splitlines() if line.startswith("\t") and "walk_arrays(&" in line]
    assert calls == []


PAGES_ONLY = {"migrate_device_unmap", "migrate_device_pages"}


def test_the_callback_takes_the_constant_that_stands_for_its_address() -> None:
    made = program()
    assert int(made.macros["WALK_BLOCK"].removesuffix("ULL"), 16) == source.WALK_BLOCK
    assert re.search(rf"^int {CALLBACK}\(u64 \*context\)", made.code, re.MULTILINE)
    (call,) = (arguments for arguments in uses(made.code, "loop") if "WALK_BLOCK" in arguments[1])
    assert call[1] == "(void *)WALK_BLOCK"


@pytest.mark.parametrize(
    ("seconds", "text"), [(10.0, "10000000000ULL"), (0.001, "1000000ULL"), (3600, "3600000000000ULL")]
)
def test_the_thrash_window_reaches_the_program_in_nanoseconds(seconds: float, text: str) -> None:
    config = replace(kernels.config(), thrash_window=Seconds(seconds))
    plan, _ = choose(kernels.kernel(), config)
    assert preprocess(source.text(plan, "fentry")).macros["THRASH_WINDOW_NS"] == text


def test_devices_and_directions_reach_the_program_with_their_numbers() -> None:
    macros = program().macros
    assert (macros["DEVICE_none"], macros["DEVICE_unknown"], macros["DEVICE_REGIONS"]) == ("64", "65", "64")
    assert (macros["DIRECTION_host_to_device"], macros["DIRECTION_device_to_host"]) == ("1", "2")
    assert macros["DIRECTION_COUNT"] == "4"
    assert int(macros["OTHER_DEVICE"], 16) == OTHER_DEVICE


@pytest.mark.parametrize(("page_size", "region"), [(4096, 2 << 20), (65536, 512 << 20)])
def test_a_region_is_as_large_as_a_huge_page(page_size: int, region: int) -> None:
    plan, _ = choose(kernels.kernel(page_size=page_size), kernels.config())
    assert 1 << int(preprocess(source.text(plan, "fentry")).macros["REGION_SHIFT"]) == region


def test_a_kernel_without_huge_migrations_has_no_bit_for_them() -> None:
    """An enumerator of 0 turns probes off, but this one is not needed: 0 is what the conditionals want."""
    older = program(without=frozenset({"MIGRATE_VMA_SELECT_COMPOUND", *kernels.RENAMED}))
    assert older.macros["MIGRATE_VMA_SELECT_COMPOUND"] == "0x0ULL"
    assert older.macros["COMPOUND_OF(entry)"] == "0ULL"
    assert program().macros["COMPOUND_OF(entry)"] != "0ULL"
    assert undefined(older, "fentry") == set()


@pytest.mark.parametrize("release", ["7.3", "6.12"])
def test_what_an_attempt_is_depends_on_what_the_kernel_has_and_not_on_what_is_left_for_this_build(release: str) -> None:
    """One function alone can be left for kprobes: its calls are attempts only if no other probe counts those."""
    locked = release == "7.3"
    made = kernels.kernel(without=set() if locked else {"hmm_range_fault_locked"})
    plan, _ = choose(made, kernels.config())
    alone = replace(plan, targets=tuple(target for target in plan.targets if target.probe == "hmm_range_fault"))
    assert f"#define ATTEMPTS_IN_LOCKED {int(locked)}\n" in source.text(alone, "kprobe")
