# SPDX-License-Identifier: Apache-2.0
"""The kernel's tree of physical ranges, read by program/iomem.c: this kernel's own, and trees made by the tests.

A made tree lies in the value of a BPF map, which is kernel memory like any other.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import random
import struct
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from hmm_exporter.bpf import syscall
from hmm_exporter.bpf.code import Code, link
from hmm_exporter.bpf.compiler import Compiled, compile_source
from hmm_exporter.bpf.load import load
from hmm_exporter.bpf.plan import choose
from hmm_exporter.bpf.resource_walk import MAP, PROGRAM, ResourceWalk
from hmm_exporter.bpf.source import text
from hmm_exporter.config import Config
from hmm_exporter.kernel.btf import Btf
from hmm_exporter.kernel.features import Kernel, running_kernel
from hmm_exporter.kernel.iomem import Iomem, Resource
from tests.bpf.resource_root import iomem_resource

CONFIG = Config()
NOBODY = 65534
CAP_SYSLOG, CAP_PERFMON, CAP_BPF = 34, 38, 39
MOST_LEVELS = 5
"""/proc/iomem indents no deeper than this (MAX_IORES_LEVEL, kernel/resource.c)."""

TREE_BYTES = 1 << 17
TREE_SOURCE = f"""
#include <uapi/linux/ptrace.h>
struct tree {{ u64 address; char bytes[{TREE_BYTES - 8}]; }};
BPF_TABLE("array", u32, struct tree, tree_map, 1);
int where(u64 *ctx)
{{
	u32 index = 0;
	struct tree *tree = tree_map.lookup(&index);

	if (tree)
		tree->address = (u64)tree;
	return 0;
}}
"""


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    return running_kernel()


@pytest.fixture(scope="module")
def btf(kernel: Kernel) -> Btf:
    assert kernel.btf, kernel.btf_problem
    return kernel.btf


def compile_walk(kernel: Kernel, build: str, rows: int = 64, steps: int = 128) -> Compiled:
    plan, _ = choose(kernel, CONFIG)
    source = text(dataclasses.replace(plan, targets=()), build)
    for usual, wanted in (("row[64];", f"row[{rows}];"), ("RESOURCE_STEPS 128 ", f"RESOURCE_STEPS {steps} ")):
        assert source.count(usual) == 1
        source = source.replace(usual, wanted)
    return compile_source(source, CONFIG.loader.python, 60)


@pytest.fixture(scope="module")
def compiled(kernel: Kernel) -> Compiled:
    return compile_walk(kernel, "kprobe")


@pytest.fixture(scope="module")
def small(kernel: Kernel) -> Compiled:
    """Three rows and four steps a run, so that every position comes to be the one where a run goes on."""
    return compile_walk(kernel, "fentry", rows=3, steps=4)


@dataclass
class Walk:
    """A walk with a program and a map of its own."""

    compiled: Compiled
    root: int

    def __enter__(self) -> Walk:
        value_bytes = self.compiled.maps[MAP].value_bytes
        self.map = syscall.map_create(syscall.MAP_ARRAY, 4, value_bytes, 1, MAP, syscall.BPF_F_RDONLY)
        code = linked(self.compiled, PROGRAM, {MAP: self.map})
        self.program = load(syscall.PROG_RAW_TRACEPOINT, code, PROGRAM)
        self._walk = ResourceWalk(self.program, self.map, value_bytes, self.root)
        return self

    def __exit__(self, *_: object) -> None:
        self._walk.close()
        os.close(self.map)

    def read(self) -> list[Resource]:
        return self._walk.read()


def linked(compiled: Compiled, program: str, maps: dict[str, int]) -> Code:
    only = dataclasses.replace(compiled, programs={program: compiled.programs[program]})
    return link(only, dict.fromkeys(compiled.maps, -1) | maps)[program]


@pytest.fixture(scope="module")
def root(kernel: Kernel, btf: Btf) -> int:
    address = iomem_resource(kernel.symbols, btf, CONFIG.loader.python)
    if address is None:
        pytest.skip("this kernel's kallsyms has no iomem_resource, and no function was found that uses it")
    return address


def as_text(resources: Sequence[Resource]) -> list[Resource]:
    """What /proc/iomem would show of them."""
    return [dataclasses.replace(r, depth=min(r.depth, MOST_LEVELS), device_private=None) for r in resources]


# This kernel's own tree.


@pytest.mark.parametrize("build", ["fentry", "kprobe"])
def test_the_walk_reads_what_proc_iomem_shows_to_root(kernel: Kernel, root: int, build: str) -> None:
    shown = Iomem()
    assert shown.problem == ""
    with Walk(compile_walk(kernel, build), root) as walk:
        assert as_text(walk.read()) == shown.read()
        assert as_text(walk.read()) == shown.read()


def test_a_walk_in_many_runs_reads_the_same(small: Compiled, root: int) -> None:
    with Walk(small, root) as walk:
        assert as_text(walk.read()) == Iomem().read()


def test_three_capabilities_are_enough_to_load_it_and_none_to_run_it(compiled: Compiled, root: int) -> None:
    shown = Iomem().read()

    def in_child() -> None:
        become_nobody_with(CAP_SYSLOG, CAP_PERFMON, CAP_BPF)
        assert Iomem().problem == "/proc/iomem shows no addresses: give CAP_SYS_ADMIN"
        with Walk(compiled, root) as walk:
            assert as_text(walk.read()) == shown
            keep_only()
            with pytest.raises(PermissionError):
                syscall.map_create(syscall.MAP_HASH, 4, 4, 1, "refused")
            assert as_text(walk.read()) == shown

    run_in_child(in_child)


def test_an_iomem_file_that_was_opened_with_the_rights_goes_on_to_show_addresses() -> None:
    opened = Iomem()
    shown = opened.read()
    assert shown

    def in_child() -> None:
        become_nobody_with()
        assert opened.read() == shown

    run_in_child(in_child)


def test_user_space_can_neither_write_the_position_nor_choose_another_root(compiled: Compiled, root: int) -> None:
    with Walk(compiled, root) as walk:
        found = walk.read()
        with pytest.raises(PermissionError):
            syscall.map_update(walk.map, struct.pack("<I", 0), bytes(compiled.maps[MAP].value_bytes))
        assert syscall.prog_test_run(walk.program, struct.pack("<QQ", root + 8, 1)) in (0, 1)
        assert walk.read() == found


def become_nobody_with(*capabilities: int) -> None:
    """Another user, with exactly these capabilities."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(8, 1, 0, 0, 0) == 0  # PR_SET_KEEPCAPS
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    keep_only(*capabilities)


def keep_only(*capabilities: int) -> None:
    low, high = (
        sum(1 << number - start for number in capabilities if start <= number < start + 32) for start in (0, 32)
    )
    header = struct.pack("<Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3
    assert ctypes.CDLL(None).capset(header, struct.pack("<6I", low, low, 0, high, high, 0)) == 0
    effective = next(line for line in open("/proc/self/status") if line.startswith("CapEff:"))
    assert int(effective.split()[1], 16) == high << 32 | low


def run_in_child(body: Callable[[], None]) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        problem = ""
        try:
            body()
        except BaseException:
            problem = traceback.format_exc()
        os.write(writing, json.dumps(problem).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        problem = json.load(answer)
    os.waitpid(child, 0)
    assert not problem, problem


# Trees made by the tests.


@dataclass
class Node:
    """A struct resource. ``links`` are put in place of those that the tree gives it."""

    name: bytes | None
    private: bool = False
    children: list[Node] = field(default_factory=list)
    links: dict[str, Node | int] = field(default_factory=dict)


class Tree:
    """Room for nodes in a map's value."""

    def __init__(self, btf: Btf, compiled: Compiled) -> None:
        self._offsets = {
            name: btf.offset(f"resource.{name}") or 0
            for name in ("start", "end", "name", "desc", "parent", "sibling", "child")
        }
        self._node_bytes = btf.size("resource") or 0
        self._private = btf.enumerator("IORES_DESC_DEVICE_PRIVATE_MEMORY") or 0
        self._map = syscall.map_create(syscall.MAP_ARRAY, 4, TREE_BYTES, 1, "tree_map")
        code = linked(compiled, "where", {"tree_map": self._map})
        program = load(syscall.PROG_RAW_TRACEPOINT, code, "where")
        syscall.prog_test_run(program, struct.pack("<Q", 0))
        os.close(program)
        key = struct.pack("<I", 0)
        self._base = struct.unpack_from("<Q", syscall.map_lookup(self._map, key, TREE_BYTES))[0] + 8

    def put(self, root: Node) -> int:
        """Write the tree; the address of its root."""
        nodes = list(walk_nodes(root))
        room = bytearray(TREE_BYTES - 8)
        names = len(nodes) * self._node_bytes
        at = {id(node): number * self._node_bytes for number, node in enumerate(nodes)}

        def address(node: Node | int | None) -> int:
            return node if isinstance(node, int) else 0 if node is None else self._base + at[id(node)]

        for number, node in enumerate(nodes):
            for child, sibling in zip(node.children, [*node.children[1:], None]):
                child.links = {"parent": node, "sibling": sibling or 0} | child.links
            links = {"child": node.children[0] if node.children else 0} | node.links
            values = {name: address(target) for name, target in links.items()}
            values |= {"start": number << 12, "end": (number << 12) + 0xFFF, "desc": self._private * node.private}
            if node.name is not None:
                values["name"] = self._base + names
                room[names : names + len(node.name) + 1] = node.name + b"\0"
                names += len(node.name) + 1
            for name, value in values.items():
                struct.pack_into("<Q", room, at[id(node)] + self._offsets[name], value)
        syscall.map_update(self._map, struct.pack("<I", 0), struct.pack("<Q", self._base - 8) + bytes(room))
        return address(root)

    def close(self) -> None:
        os.close(self._map)


def walk_nodes(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from walk_nodes(child)


def expected(root: Node) -> list[Resource]:
    """The tree in pre-order, without its root."""
    numbers = {id(node): number for number, node in enumerate(walk_nodes(root))}

    def below(node: Node, depth: int) -> Iterator[Resource]:
        for child in node.children:
            start = numbers[id(child)] << 12
            yield Resource(start, start + 0xFFF, (child.name or b"")[:31].decode(), depth, child.private)
            yield from below(child, depth + 1)

    return list(below(root, 0))


@pytest.fixture(scope="module")
def tree(btf: Btf) -> Iterator[Tree]:
    made = Tree(btf, compile_source(TREE_SOURCE, CONFIG.loader.python, 60))
    yield made
    made.close()


def random_node(chance: random.Random, levels: int) -> Node:
    name = chance.choice([None, b"", b"0000:c1:00.0", b"hmm_dmirror", b"a name that is longer than thirty-one bytes"])
    children = [random_node(chance, levels - 1) for _ in range(chance.randrange(5) if levels else 0)]
    return Node(name, chance.random() < 0.3, children)


@pytest.mark.parametrize("seed", range(20))
def test_any_tree_is_read_in_its_order_however_many_runs_it_takes(
    compiled: Compiled, small: Compiled, tree: Tree, seed: int
) -> None:
    root = random_node(random.Random(seed), levels=seed % 7)
    address = tree.put(root)
    for program in (compiled, small):
        with Walk(program, address) as walk:
            assert walk.read() == expected(root)


def test_a_long_list_and_a_deep_tree_are_read_whole(compiled: Compiled, tree: Tree) -> None:
    deep = Node(b"bottom")
    for _ in range(300):
        deep = Node(b"level", children=[deep])
    root = Node(b"root", children=[*(Node(b"flat") for _ in range(500)), deep, Node(b"last")])
    address = tree.put(root)
    with Walk(compiled, address) as walk:
        assert walk.read() == expected(root)


def chain() -> tuple[Node, Node, Node, Node]:
    first, second, inner = Node(b"first"), Node(b"second"), Node(b"inner")
    second.children = [inner]
    return Node(b"root", children=[first, second]), first, second, inner


def circle_of_siblings() -> Node:
    root, first, second, _ = chain()
    second.children, second.links = [], {"sibling": first}
    return root


def child_that_is_its_own_child() -> Node:
    root, _, _, inner = chain()
    inner.links = {"child": inner}
    return root


def child_of_another() -> Node:
    root, first, _, inner = chain()
    inner.links = {"parent": first}
    return root


def released_child() -> Node:
    root, _, _, inner = chain()
    inner.links = {"parent": 0}
    return root


def sibling_that_is_nowhere() -> Node:
    root, first, _, _ = chain()
    first.links = {"sibling": 0xDEAD_0000_0000_0100}
    return root


BROKEN = [
    circle_of_siblings,
    child_that_is_its_own_child,
    child_of_another,
    released_child,
    sibling_that_is_nowhere,
]


@pytest.mark.parametrize("broken", BROKEN)
def test_a_tree_that_does_not_fit_together_gives_what_was_read_last(
    compiled: Compiled, tree: Tree, broken: Callable[[], Node]
) -> None:
    whole, *_ = chain()
    address = tree.put(whole)
    with Walk(compiled, address) as walk:
        before = walk.read()
        assert before == expected(whole)
        assert tree.put(broken()) == address
        assert walk.read() == before
        assert tree.put(whole) == address
        assert walk.read() == before


@pytest.mark.parametrize("broken", BROKEN)
def test_a_tree_that_never_fitted_together_gives_nothing(
    compiled: Compiled, tree: Tree, broken: Callable[[], Node]
) -> None:
    with Walk(compiled, tree.put(broken())) as walk:
        assert walk.read() == []


def test_an_address_at_which_there_is_nothing_gives_nothing(compiled: Compiled) -> None:
    with Walk(compiled, 0xDEAD_0000_0000_0000) as walk:
        assert walk.read() == []


def test_a_walk_that_the_kernel_refuses_tells_what_it_told_before_and_why() -> None:
    with tempfile.TemporaryFile() as no_program:
        walk = ResourceWalk(no_program.fileno(), no_program.fileno(), 64, 0)
        assert walk.read() == []
    assert walk.problem == "the kernel's tree of physical ranges cannot be walked: Invalid argument"
