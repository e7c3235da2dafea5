# SPDX-License-Identifier: Apache-2.0
"""The BTF reader, against blobs that an encoder of the tests' own writes, and against this machine's kernel."""

from __future__ import annotations

import signal
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmm_exporter.kernel.btf import Btf, BtfError
from tests.unit.kernel.btf_encoder import CONST, RESTRICT, TYPE_TAG, TYPEDEF, VOID, VOLATILE, Encoder, Member

VMLINUX = Path("/sys/kernel/btf/vmlinux")


@contextmanager
def no_longer_than(seconds: float) -> Iterator[None]:
    """An endless loop becomes a failure instead of a test run that hangs."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise AssertionError(f"still running after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def sample() -> bytes:
    """A small kernel: one type of every kind, in the order in which pahole might write them."""
    btf = Encoder()
    u64 = btf.integer("long unsigned int", 8)
    u32 = btf.integer("unsigned int", 4)
    char = btf.integer("char", 1)
    btf.forward("task_struct")
    task = btf.struct("task_struct", 64, [Member("flags", u32, 64), Member("comm", btf.array(char, u32, 16), 256)])
    pointer = btf.pointer(task)
    inner = btf.struct("", 16, [Member("lru", u64, 0), Member("private", u64, 64)])
    either = btf.struct("", 16, [Member("", inner, 0), Member("mapping", u64, 64)], union=True)
    btf.struct("page", 32, [Member("flags", u64, 0), Member("", either, 64), Member("_refcount", u32, 192)])
    btf.struct("bits", 8, [Member("low", u32, 0, 3), Member("high", u32, 17, 5), Member("next", u32, 32)])
    btf.enum("zone", {"ZONE_DMA": 0, "ZONE_DEVICE": 4, "ZONE_NONE": -1})
    btf.enum64("hmm_pfn_flags", {"HMM_PFN_VALID": 1 << 63, "HMM_PFN_WRITE": 1 << 62})
    btf.enum("mmu_notifier_event", {"MMU_NOTIFY_UNMAP": 0, "MMU_NOTIFY_MIGRATE": 5})
    handle = btf.refer(TYPEDEF, btf.refer(CONST, btf.refer(VOLATILE, pointer)), "handle_t")
    btf.function("make_page", btf.prototype(handle, [("at", u64), ("order", u32)]), linkage=1)
    btf.function("forget_page", btf.prototype(VOID, [("page", pointer)]), linkage=1)
    btf.function("boot", btf.prototype(u32, []))
    btf.section(".data", [btf.variable("jiffies", u64)])
    btf.floating("double", 8)
    btf.declaration_tag("kfunc", btf.refer(TYPE_TAG, u64, "user"))
    btf.refer(TYPEDEF, btf.refer(RESTRICT, pointer), "btf_trace_set_migration_pte")
    return btf.blob()


SAMPLE = sample()
PATHS = ("task_struct.comm", "page.mapping", "page.private", "bits.high", "page.nothing", "nothing.flags", "zone.flags")
FUNCTIONS = ("make_page", "forget_page", "boot", "page", "nothing")
ENUMERATORS = ("ZONE_DEVICE", "HMM_PFN_VALID", "MMU_NOTIFY_MIGRATE", "flags", "nothing")


def ask_everything(btf: Btf) -> None:
    """Every look-up there is, of names that the sample has and of others."""
    for path in PATHS:
        btf.offset(path)
        btf.size(path.partition(".")[0])
    for name in FUNCTIONS:
        btf.function(name)
        btf.has_typedef(name)
    for name in ENUMERATORS:
        btf.enumerator(name)


def is_told(blob: bytes) -> bool:
    """Whether the reader refuses ``blob`` by a BtfError of one line; anything but that or an answer fails."""
    with no_longer_than(5):
        try:
            ask_everything(Btf(blob))
            return False
        except BtfError as error:
            text = str(error)
    assert text
    assert text.isprintable()
    return True


@pytest.mark.parametrize(
    ("path", "offset"),
    [
        ("task_struct.flags", 8),
        ("task_struct.comm", 32),
        ("page.flags", 0),
        ("page.lru", 8),
        ("page.private", 16),
        ("page.mapping", 16),
        ("page._refcount", 24),
        ("bits.low", 0),
        ("bits.high", 2),
        ("bits.next", 4),
    ],
)
def test_a_field_has_its_byte_offset_through_anonymous_members_and_beside_bit_fields(path: str, offset: int) -> None:
    assert Btf(SAMPLE).offset(path) == offset


@pytest.mark.parametrize("path", ["task_struct.lru", "page.nothing", "nothing.flags", "handle_t.flags", "zone.flags"])
def test_a_field_that_is_not_there_has_no_offset(path: str) -> None:
    assert Btf(SAMPLE).offset(path) is None


def test_a_struct_without_the_field_does_not_answer_for_another_that_has_it() -> None:
    btf = Btf(SAMPLE)
    assert btf.offset("task_struct.mapping") is None
    assert btf.offset("page.comm") is None


def test_a_struct_has_its_size_and_what_is_none_has_not() -> None:
    btf = Btf(SAMPLE)
    assert (btf.size("task_struct"), btf.size("page"), btf.size("bits")) == (64, 32, 8)
    assert btf.size("zone") is btf.size("make_page") is btf.size("nothing") is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ZONE_DMA", 0),
        ("ZONE_DEVICE", 4),
        ("ZONE_NONE", 0xFFFF_FFFF),
        ("HMM_PFN_VALID", 1 << 63),
        ("HMM_PFN_WRITE", 1 << 62),
        ("MMU_NOTIFY_MIGRATE", 5),
    ],
)
def test_an_enumerator_has_its_value_of_32_or_64_bits_as_an_unsigned_number(name: str, value: int) -> None:
    assert Btf(SAMPLE).enumerator(name) == value


@pytest.mark.parametrize("name", ["zone", "flags", "boot", "nothing"])
def test_a_name_that_is_no_enumerator_has_no_value(name: str) -> None:
    assert Btf(SAMPLE).enumerator(name) is None


def test_an_enumerators_value_is_not_taken_for_a_name() -> None:
    btf = Encoder()
    at = btf.string("WANTED")
    btf.enum("first", {"A": at, "B": at << 8})
    btf.enum("second", {"WANTED": 7})
    assert Btf(btf.blob()).enumerator("WANTED") == 7


def test_a_function_has_its_number_of_parameters_and_says_whether_it_returns_a_pointer() -> None:
    btf = Btf(SAMPLE)
    found = [btf.function(name) for name in ("make_page", "forget_page", "boot")]
    assert [(each.parameters, each.returns_pointer) for each in found if each] == [(2, True), (1, False), (0, False)]


def test_a_functions_type_id_is_its_place_in_the_type_section() -> None:
    btf = Encoder()
    prototype = btf.prototype(VOID, [])
    first, second = btf.function("first", prototype), btf.function("second", prototype)
    read = Btf(btf.blob())
    assert [found.type_id for name in ("first", "second") if (found := read.function(name))] == [first, second]


def test_only_a_typedef_is_a_typedef() -> None:
    btf = Btf(SAMPLE)
    assert btf.has_typedef("handle_t")
    assert btf.has_typedef("btf_trace_set_migration_pte")
    assert not any(btf.has_typedef(name) for name in ("task_struct", "make_page", "zone", "user", "nothing"))


def test_a_struct_is_told_from_a_function_a_typedef_and_a_forward_declaration_of_its_name() -> None:
    btf = Encoder()
    u64 = btf.integer("u64", 8)
    btf.forward("process")
    btf.refer(TYPEDEF, btf.forward("process"), "process")
    btf.struct("process", 8, [Member("wrong", u64, 0)], union=True)
    function = btf.function("process", btf.prototype(u64, [("a", u64), ("b", u64), ("c", u64)]))
    btf.enum("process", {"process": 9})
    btf.struct("process", 24, [Member("right", u64, 128)])
    read = Btf(btf.blob())
    assert (read.size("process"), read.offset("process.right"), read.offset("process.wrong")) == (24, 16, None)
    assert read.has_typedef("process")
    assert read.enumerator("process") == 9
    found = read.function("process")
    assert found
    assert (found.type_id, found.parameters) == (function, 3)


def test_a_struct_that_is_only_declared_is_not_there() -> None:
    btf = Encoder()
    btf.forward("secret")
    read = Btf(btf.blob())
    assert read.size("secret") is None
    assert read.offset("secret.field") is None


def test_a_name_is_found_whole_and_not_as_the_end_or_the_beginning_of_another() -> None:
    btf = Encoder()
    prototype = btf.prototype(VOID, [])
    btf.function("x_hmm_range_fault", prototype)
    btf.function("hmm_range_fault_unlocked", prototype)
    read = Btf(btf.blob())
    assert read.function("hmm_range_fault") is None
    assert read.function("x_hmm_range_fault")


def test_an_anonymous_member_is_followed_through_typedefs_and_qualifiers() -> None:
    btf = Encoder()
    u64 = btf.integer("u64", 8)
    inner = btf.refer(CONST, btf.refer(TYPEDEF, btf.struct("named", 16, [Member("deep", u64, 64)]), "named_t"))
    btf.struct("outer", 32, [Member("", inner, 128)])
    assert Btf(btf.blob()).offset("outer.deep") == 24


def test_a_named_members_own_fields_are_not_the_structs() -> None:
    btf = Encoder()
    u64 = btf.integer("u64", 8)
    btf.struct("outer", 16, [Member("inner", btf.struct("", 8, [Member("deep", u64, 0)]), 64)])
    assert Btf(btf.blob()).offset("outer.deep") is None


@dataclass(frozen=True)
class Field:
    """A field of the model: a plain one, or an anonymous struct or union with ``inner`` fields."""

    name: str
    bits: int
    width: int = 0
    inner: tuple[Field, ...] = ()
    union: bool = False
    wrapped: int = 0

    def offsets(self, base: int = 0) -> Iterator[tuple[str, int]]:
        """(name, byte offset) of this field, or of all inside it."""
        if not self.inner:
            yield self.name, (base + self.bits) // 8
        for field in self.inner:
            yield from field.offsets(base + self.bits)


def _fields(depth: int) -> st.SearchStrategy[Field]:
    plain = st.builds(Field, st.just("x"), st.integers(0, (1 << 24) - 1), st.sampled_from((0, 0, 1, 7, 32)))
    if not depth:
        return plain
    anonymous = st.builds(
        Field,
        st.just(""),
        st.integers(0, 1 << 9).map(lambda octets: 8 * octets),
        inner=st.lists(_fields(depth - 1), min_size=1, max_size=4).map(tuple),
        union=st.booleans(),
        wrapped=st.integers(0, 3),
    )
    return plain | anonymous


def _named(field: Field, names: Iterator[str]) -> Field:
    inner = tuple(_named(each, names) for each in field.inner)
    return Field("" if inner else next(names), field.bits, field.width, inner, field.union, field.wrapped)


def _write(btf: Encoder, scalar: int, field: Field) -> Member:
    if not field.inner:
        return Member(field.name, scalar, field.bits, field.width)
    target = btf.struct("", 8, [_write(btf, scalar, each) for each in field.inner], field.union)
    for kind in (TYPEDEF, CONST, VOLATILE)[: field.wrapped]:
        target = btf.refer(kind, target, "wrapped_t" if kind == TYPEDEF else "")
    return Member("", target, field.bits)


@given(st.lists(st.lists(_fields(3), max_size=6), min_size=1, max_size=4))
def test_whatever_the_encoder_nests_the_reader_finds_at_its_offset(structs: list[list[Field]]) -> None:
    btf = Encoder()
    scalar = btf.integer("u64", 8)
    expected: dict[str, int] = {}
    for number, fields in enumerate(structs):
        # The same names in every struct: an answer from the wrong one would differ.
        names = (f"f{at}" for at in range(1000))
        named = [_named(field, names) for field in fields]
        btf.struct(f"s{number}", 8 * number, [_write(btf, scalar, field) for field in named])
        expected |= {f"s{number}.{name}": offset for field in named for name, offset in field.offsets()}
    read = Btf(btf.blob())
    assert {path: read.offset(path) for path in expected} == expected
    assert [read.size(f"s{number}") for number in range(len(structs))] == [8 * at for at in range(len(structs))]


@given(
    st.dictionaries(st.text("abcE_", min_size=1), st.integers(-(1 << 31), (1 << 32) - 1), max_size=8),
    st.dictionaries(st.text("xyzE_", min_size=1), st.integers(0, (1 << 64) - 1), max_size=8),
)
def test_every_enumerator_that_was_written_is_read(narrow: dict[str, int], wide: dict[str, int]) -> None:
    btf = Encoder()
    btf.enum("narrow", narrow)
    btf.enum64("wide", {name: value for name, value in wide.items() if name not in narrow})
    expected = wide | {name: value & 0xFFFF_FFFF for name, value in narrow.items()}
    read = Btf(btf.blob())
    assert {name: read.enumerator(name) for name in expected} == expected


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12), st.integers(0, 5)), min_size=1, max_size=12))
def test_every_function_that_was_written_is_read(functions: list[tuple[int, int, int]]) -> None:
    btf = Encoder()
    u64 = btf.integer("u64", 8)
    for number, (linkage, parameters, qualifiers) in enumerate(functions):
        returns = btf.pointer(u64) if qualifiers % 2 else u64
        for kind in (CONST, TYPEDEF, VOLATILE, TYPEDEF, CONST)[:qualifiers]:
            returns = btf.refer(kind, returns, "alias" if kind == TYPEDEF else "")
        prototype = btf.prototype(returns, [(f"p{at}", u64) for at in range(parameters)])
        btf.function(f"f{number}", prototype, linkage)
    read = Btf(btf.blob())
    found = [read.function(f"f{number}") for number in range(len(functions))]
    assert [(each.parameters, each.returns_pointer) for each in found if each] == [
        (parameters, bool(qualifiers % 2)) for _, parameters, qualifiers in functions
    ]


@pytest.mark.parametrize("size", range(24))
def test_less_than_a_header_is_refused(size: int) -> None:
    with pytest.raises(BtfError, match="header"):
        Btf(SAMPLE[:size])


def test_a_blob_without_types_has_nothing() -> None:
    read = Btf(Encoder().blob())
    assert (read.function("f"), read.size("s"), read.offset("s.f"), read.enumerator("E")) == (None,) * 4


def test_every_truncation_is_refused() -> None:
    assert [size for size in range(len(SAMPLE)) if not is_told(SAMPLE[:size])] == []


@pytest.mark.skipif(sys.byteorder != "little", reason="the package reads the running machine's order: little here")
def test_another_machines_byte_order_is_refused_and_named() -> None:
    btf = Encoder(order=">")
    btf.integer("int", 4)
    with pytest.raises(BtfError, match="byte order"):
        Btf(btf.blob())


@pytest.mark.parametrize("magic", [b"\x7fELF", b"\0\0\0\0", b"\x9e\xeb\x01\x00"])
def test_a_wrong_magic_number_is_refused(magic: bytes) -> None:
    with pytest.raises(BtfError, match="magic"):
        Btf(magic + SAMPLE[4:])


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(blob: bytes) -> None:
    assert is_told(blob)


@given(st.data())
def test_a_blob_with_some_bytes_changed_is_refused_or_answered_and_never_loops(data: st.DataObject) -> None:
    blob = bytearray(SAMPLE)
    places = st.integers(4, len(blob) - 1)
    for at, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=6)):
        blob[at] = value
    is_told(bytes(blob))


@given(st.binary(max_size=160), st.integers(0, 200), st.integers(0, 200))
def test_random_types_behind_a_good_header_are_refused_or_answered(types: bytes, cut: int, strings: int) -> None:
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, cut, cut, strings)
    is_told(header + types)


def _in_a_circle() -> bytes:
    btf = Encoder()
    btf.function("make_page", btf.prototype(3, []))
    btf.refer(TYPEDEF, 4, "round")
    btf.refer(CONST, 3)
    return btf.blob()


def _nested_without_end() -> bytes:
    btf = Encoder()
    inner = btf.struct("", 8, [])
    for _ in range(2000):
        inner = btf.struct("", 8, [Member("", inner, 0)])
    btf.struct("page", 8, [Member("", inner, 0)])
    btf.string("flags")
    return btf.blob()


def _beyond_the_last() -> bytes:
    btf = Encoder()
    btf.function("make_page", 99)
    return btf.blob()


@pytest.mark.parametrize(
    "blob", [_in_a_circle, _nested_without_end, _beyond_the_last], ids=lambda make: make.__name__[1:]
)
def test_types_that_refer_to_themselves_or_to_nothing_are_refused(blob: Callable[[], bytes]) -> None:
    assert is_told(blob())


def test_a_struct_that_contains_itself_has_the_fields_that_it_has() -> None:
    btf = Encoder()
    u64 = btf.integer("u64", 8)
    btf.struct("page", 8, [Member("", 2, 0), Member("flags", u64, 64)])
    btf.string("missing")
    assert Btf(btf.blob()).offset("page.flags") == 8
    assert Btf(btf.blob()).offset("page.missing") is None


def test_structs_that_contain_each_other_twice_are_looked_through_once() -> None:
    """Each level would else take twice as long as the one above."""
    btf = Encoder()
    inner = btf.struct("", 8, [])
    for _ in range(200):
        inner = btf.struct("", 8, [Member("", inner, 0), Member("", inner, 64)])
    btf.struct("page", 8, [Member("", inner, 0)])
    btf.string("missing")
    assert Btf(btf.blob()).offset("page.missing") is None


def test_a_missing_file_is_named_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(BtfError) as refused:
        Btf.load(tmp_path / "vmlinux")
    assert str(refused.value) == f"{tmp_path}/vmlinux: No such file or directory"


def test_a_file_that_is_no_btf_is_named_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(b"")
    with pytest.raises(BtfError) as refused:
        Btf.load(path)
    assert str(refused.value) == f"{path}: shorter than a BTF header"


@pytest.fixture(scope="module")
def running() -> Btf:
    if not VMLINUX.exists():
        pytest.skip(f"this kernel has no {VMLINUX} (CONFIG_DEBUG_INFO_BTF)")
    return Btf.load(VMLINUX)


def test_the_running_kernel_has_a_task_with_a_comm(running: Btf) -> None:
    offset, size = running.offset("task_struct.comm"), running.size("task_struct")
    assert offset
    assert size
    assert offset + 16 <= size


def test_the_running_kernels_list_head_is_two_pointers(running: Btf) -> None:
    assert (running.size("list_head"), running.offset("list_head.next"), running.offset("list_head.prev")) == (16, 0, 8)


def test_the_running_kernels_page_has_its_lru_behind_the_flags_inside_anonymous_members(running: Btf) -> None:
    # include/linux/mm_types.h: `unsigned long flags; union { struct { union { struct list_head lru;`
    assert running.offset("page.lru") == struct.calcsize("P")


def test_the_running_kernels_enumerators_have_the_values_of_its_abi(running: Btf) -> None:
    # include/uapi/linux/bpf.h
    assert (running.enumerator("BPF_MAP_TYPE_HASH"), running.enumerator("BPF_PROG_TYPE_TRACING")) == (1, 26)


def test_the_running_kernels_functions_have_the_parameters_of_its_source(running: Btf) -> None:
    read, path = running.function("vfs_read"), running.function("d_path")
    assert read
    assert path
    # ssize_t vfs_read(file, buf, count, pos); char *d_path(path, buf, buflen)
    assert (read.parameters, read.returns_pointer) == (4, False)
    assert (path.parameters, path.returns_pointer) == (3, True)


def test_the_running_kernel_has_no_function_of_a_structs_name(running: Btf) -> None:
    assert running.function("task_struct") is None
    assert running.size("vfs_read") is None
