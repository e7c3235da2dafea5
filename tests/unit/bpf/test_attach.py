# SPDX-License-Identifier: Apache-2.0
"""Loading and attaching, probe by probe, in a kernel of the tests' own that refuses what it is told to.

Nothing is compiled: each program's code is its name. What the kernel then makes of real code is the
affair of tests/bpf.
"""

from __future__ import annotations

import errno
import os
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from hmm_exporter.bpf import attach as attach_module
from hmm_exporter.bpf import source, syscall
from hmm_exporter.bpf.attach import Attachments, _paranoid, attach, wanted_programs
from hmm_exporter.bpf.compiler import Compiled
from hmm_exporter.bpf.plan import ATTACHED, DENIED, ERROR, Outcome, choose
from hmm_exporter.bpf.resource_walk import PROGRAM, ResourceWalk
from hmm_exporter.catalog.probe import Probe
from hmm_exporter.catalog.probes import GROUPS, PROBES
from hmm_exporter.config import Config, Limits, Maps
from hmm_exporter.errors import StartError
from hmm_exporter.kernel.features import Kernel
from hmm_exporter.kernel.iomem import Iomem
from hmm_exporter.kernel.symbols import Symbols
from tests.unit.bpf import kernels
from tests.unit.bpf.c_text import preprocess
from tests.unit.bpf.in_memory import Bpf, layouts

BY_NAME = {probe.name: probe for probe in PROBES}
ALL_GROUPS = frozenset(group.name for group in GROUPS)


class Load(NamedTuple):
    """A program that was loaded."""

    type: int
    program: str
    attach_type: int
    btf_id: int


class Link(NamedTuple):
    """A program that was attached: how, to what, from where in the file, and as a return probe or not."""

    how: str
    program: str
    target: str = ""
    offset: int = 0
    retprobe: bool = False


def number(code: int) -> OSError:
    return OSError(code, os.strerror(code))


class Tracing:
    """The kernel's side. ``refuse_load`` and ``refuse_link`` are asked for an error, or None."""

    def __init__(self) -> None:
        self.loads: list[Load] = []
        self.links: list[Link] = []
        self.compiled: list[str] = []
        self.refuse_load: Callable[[Load], OSError | None] = lambda load: None
        self.refuse_link: Callable[[Link], OSError | None] = lambda link: None
        self.log = ""
        self.bpf = Bpf()
        self._programs: dict[int, str] = {}

    def compile_source(self, text: str, python: str, timeout: float) -> Compiled:
        source = preprocess(text)
        build = next(name for name in source.defined if name.startswith("BUILD_"))
        self.compiled.append(build.removeprefix("BUILD_").lower())
        programs = {}
        for macro, name in re.findall(r"^(ENTER|LEAVE|TRACEPOINT)\((\w+)\)", source.code, re.MULTILINE):
            program = f"{'leave' if macro == 'LEAVE' else 'enter'}_{name}"
            programs[program] = program.encode().ljust(64, b"\0")
        if PROGRAM in source.code:
            programs[PROGRAM] = PROGRAM.encode().ljust(64, b"\0")
        return Compiled(programs, layouts(1), "0.26.0")

    def prog_load(
        self,
        kind: int,
        code: bytes,
        name: str,
        attach_type: int = 0,
        btf_id: int = 0,
        log_bytes: int = 0,
        functions: Sequence[tuple[int, int]] = (),
        btf_fd: int = 0,
    ) -> tuple[int, str]:
        assert bool(functions) == bool(btf_fd)
        load = Load(kind, code.rstrip(b"\0").decode(), attach_type, btf_id)
        refusal = self.refuse_load(load)
        if refusal:
            raise OSError(refusal.errno, refusal.strerror, self.log if log_bytes else "")
        self.loads.append(load)
        return self._open(load.program), ""

    def prog_test_run(self, fd: int, context: bytes) -> int:
        """The walk of the resources, which finds none; 0 is that it is done."""
        assert self._programs[fd] == PROGRAM
        return 0

    def raw_tracepoint_open(self, prog_fd: int, name: str = "") -> int:
        return self._link(Link("tracepoint" if name else "tracing", self._programs[prog_fd], name))

    def probe_open(self, pmu: int, retprobe_bit: int | None, target: str, offset: int, prog_fd: int) -> int:
        assert retprobe_bit in (None, 0)
        how = {kernels.KPROBE.type: "kprobe", kernels.UPROBE.type: "uprobe"}[pmu]
        return self._link(Link(how, self._programs[prog_fd], target, offset, retprobe_bit is not None))

    def _link(self, link: Link) -> int:
        refusal = self.refuse_link(link)
        if refusal:
            raise refusal
        self.links.append(link)
        return self._open(link.program)

    def _open(self, program: str) -> int:
        fd = os.open(os.devnull, os.O_RDONLY)
        self._programs[fd] = program
        return fd


@pytest.fixture
def tracing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracing]:
    """A kernel; nothing may stay open in it when the test is over."""
    made = Tracing()
    before = os.listdir("/proc/self/fd")
    with made.bpf.installed():
        for name in ("prog_load", "prog_test_run", "raw_tracepoint_open", "probe_open"):
            monkeypatch.setattr(syscall, name, getattr(made, name))
        monkeypatch.setattr(attach_module, "compile_source", made.compile_source)
        yield made
    assert os.listdir("/proc/self/fd") == before


def attached(kernel: Kernel, config: Config) -> tuple[dict[str, Outcome], Attachments]:
    """Outcomes by probe. The attachments are closed already."""
    plan, _ = choose(kernel, config)
    attachments = attach(kernel, config, plan)
    attachments.close()
    return {outcome.probe.name: outcome for outcome in attachments.outcomes}, attachments


def on(function: str) -> Callable[[Link], bool]:
    return lambda link: link.program.endswith(function) and link.how != "tracepoint"


def test_the_newest_kernel_attaches_everything_by_fentry_fexit_and_tracepoint(tracing: Tracing) -> None:
    outcomes, _ = attached(kernels.kernel(), kernels.config())
    assert set(outcomes) == set(BY_NAME)
    assert {outcome.state for outcome in outcomes.values()} == {ATTACHED}
    assert {outcome.reason for outcome in outcomes.values()} == {""}
    kinds = {name: outcome.kind for name, outcome in outcomes.items()}
    assert kinds["migrate_vma_setup"] == "fentry"
    assert kinds["hmm_dma_map_pfn"] == "fexit"
    assert kinds["set_migration_pte"] == "tracepoint"
    assert tracing.compiled == ["fentry"]
    assert sorted(load.program for load in tracing.loads) == sorted(p for probe in PROBES for p in probe.programs)


def test_an_entry_and_an_exit_are_loaded_for_the_functions_type_in_btf(tracing: Tracing) -> None:
    kernel = kernels.kernel()
    attached(kernel, kernels.config(only=("hmm_range_fault",)))
    assert kernel.btf
    function = kernel.btf.function("hmm_range_fault")
    assert function
    assert tracing.loads == [
        Load(syscall.PROG_TRACING, "leave_hmm_range_fault", syscall.TRACE_FEXIT, function.type_id),
        Load(syscall.PROG_TRACING, "enter_hmm_range_fault", syscall.TRACE_FENTRY, function.type_id),
    ]
    assert tracing.links == [Link("tracing", "leave_hmm_range_fault"), Link("tracing", "enter_hmm_range_fault")]


def test_a_tracepoint_is_opened_by_its_name(tracing: Tracing) -> None:
    attached(kernels.kernel(), kernels.config(only=("remove_migration_pte",)))
    assert tracing.loads == [Load(syscall.PROG_RAW_TRACEPOINT, "enter_remove_migration_pte", 0, 0)]
    assert tracing.links == [Link("tracepoint", "enter_remove_migration_pte", "remove_migration_pte")]


def test_a_migration_is_watched_from_its_end_to_its_beginning(tracing: Tracing) -> None:
    attached(kernels.kernel(), kernels.config())
    order = [link.program for link in tracing.links if "migrate_vma" in link.program]
    assert order == [
        "leave_migrate_vma_finalize",
        "enter_migrate_vma_finalize",
        "leave_migrate_vma_pages",
        "enter_migrate_vma_pages",
        "leave_migrate_vma_setup",
        "enter_migrate_vma_setup",
    ]


def test_what_fentry_cannot_do_kprobes_do_for_both_ends_of_the_function(tracing: Tracing) -> None:
    refused = Link("tracing", "enter_migrate_vma_pages")
    tracing.refuse_link = lambda link: number(errno.EBUSY) if link == refused else None
    outcomes, _ = attached(kernels.kernel(), kernels.config())
    assert tracing.compiled == ["fentry", "kprobe"]
    assert {outcome.state for outcome in outcomes.values()} == {ATTACHED}
    assert (outcomes["migrate_vma_pages"].kind, outcomes["hmm_range_fault"].kind) == ("kprobe", "fentry")
    assert [link for link in tracing.links if link.how == "kprobe"] == [
        Link("kprobe", "leave_migrate_vma_pages", "migrate_vma_pages", retprobe=True),
        Link("kprobe", "enter_migrate_vma_pages", "migrate_vma_pages"),
    ]
    assert [load.type for load in tracing.loads[-2:]] == [syscall.PROG_KPROBE] * 2


def test_a_return_probe_alone_is_a_kretprobe(tracing: Tracing) -> None:
    config = replace(kernels.config(only=("hmm_dma_map_pfn",), attach="kprobe"))
    outcomes, _ = attached(kernels.kernel(), config)
    assert outcomes["hmm_dma_map_pfn"].kind == "kretprobe"


@pytest.mark.parametrize(
    ("wanted", "builds"), [("auto", ["fentry", "kprobe"]), ("fentry", ["fentry"]), ("kprobe", ["kprobe"])]
)
def test_the_kinds_that_the_configuration_allows_are_tried(tracing: Tracing, wanted: str, builds: list[str]) -> None:
    tracing.refuse_link = lambda link: number(errno.EBUSY)
    attached(kernels.kernel(), kernels.config(attach=wanted))
    assert tracing.compiled == builds


def test_when_neither_kind_can_both_reasons_are_told(tracing: Tracing) -> None:
    def refuse(link: Link) -> OSError | None:
        return number({"tracing": 524, "kprobe": errno.ENOENT}[link.how]) if on("hmm_range_fault")(link) else None

    tracing.refuse_link = refuse
    outcomes, _ = attached(kernels.kernel(), kernels.config())
    failed = outcomes["hmm_range_fault"]
    assert (failed.state, failed.kind) == (ERROR, "none")
    assert failed.reason == (
        "fentry: this kernel cannot trace the function so (CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS);"
        " kprobe: kretprobe: No such file or directory"
    )
    assert all(outcome.state == ATTACHED for name, outcome in outcomes.items() if name != "hmm_range_fault")


def test_a_refused_entry_takes_the_exit_with_it(tracing: Tracing) -> None:
    open_links: list[int] = []

    def refuse(link: Link) -> OSError | None:
        if link.program == "enter_hmm_range_fault":
            open_links.append(len(os.listdir("/proc/self/fd")))
            return number(errno.EBUSY)
        return None

    tracing.refuse_link = refuse
    config = kernels.config(only=("hmm_range_fault",), attach="fentry")
    kernel = kernels.kernel()
    before = len(os.listdir("/proc/self/fd"))
    attachments = attach(kernel, config, choose(kernel, config)[0])
    assert attachments.programs == []
    assert attachments.maps
    # The exit's program and link and the entry's program were open, and none of them is any more.
    assert open_links == [before + len(attachments.maps.fds) + 3]
    assert len(os.listdir("/proc/self/fd")) == before + len(attachments.maps.fds)
    attachments.close()


def test_without_a_kprobe_pmu_what_fentry_cannot_do_fails_by_the_option_that_is_missing(tracing: Tracing) -> None:
    tracing.refuse_link = lambda link: number(errno.EBUSY) if on("hmm_range_fault")(link) else None
    outcomes, _ = attached(kernels.kernel(kprobe=None), kernels.config())
    failed = outcomes["hmm_range_fault"]
    assert failed.state == ERROR
    assert failed.reason.endswith("; kprobe: this kernel has none (CONFIG_KPROBE_EVENTS)")
    assert tracing.compiled == ["fentry"]


def test_tracepoints_need_no_kprobe_pmu(tracing: Tracing) -> None:
    outcomes, _ = attached(kernels.kernel(kprobe=None), kernels.config(attach="kprobe"))
    assert {name for name, outcome in outcomes.items() if outcome.state == ATTACHED} == {
        "set_migration_pte",
        "remove_migration_pte",
        "set_migration_pmd",
        "remove_migration_pmd",
    }


def test_the_simulators_functions_are_attached_by_uprobes_at_their_place_in_the_file(tracing: Tracing) -> None:
    outcomes, _ = attached(kernels.kernel(simulated=True), kernels.config())
    assert tracing.compiled == ["uprobe"]
    assert {outcome.kind for outcome in outcomes.values()} == {"uprobe"}
    assert {(link.how, link.target, link.offset) for link in tracing.links} == {("uprobe", "/simulator", 16)}
    assert Link("uprobe", "enter_set_migration_pte", "/simulator", 16) in tracing.links
    assert Link("uprobe", "leave_hmm_range_fault", "/simulator", 16, retprobe=True) in tracing.links


def test_want_of_privilege_is_denied_and_says_what_would_help(
    tracing: Tracing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attach_module, "capable", lambda *capabilities: False)
    monkeypatch.setattr(attach_module, "_paranoid", lambda: 2)
    tracing.refuse_load = lambda load: number(errno.EPERM) if load.type == syscall.PROG_TRACING else None
    tracing.refuse_link = lambda link: number(errno.EACCES) if link.how == "kprobe" else None
    outcomes, _ = attached(kernels.kernel(), kernels.config(only=("hmm_range_fault",)))
    denied = outcomes["hmm_range_fault"]
    assert denied.state == DENIED
    assert denied.reason == (
        "fentry: not permitted: run as root, or with CAP_BPF and CAP_PERFMON;"
        " kprobe: perf_event_open is not permitted: give CAP_PERFMON, and a seccomp profile and lockdown that allow it"
    )


def test_a_refusal_in_spite_of_all_capabilities_is_a_security_modules(
    tracing: Tracing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attach_module, "capable", lambda *capabilities: True)
    tracing.refuse_load = lambda load: number(errno.EPERM)
    outcomes, _ = attached(kernels.kernel(), kernels.config(only=("hmm_range_fault",), attach="fentry"))
    denied = outcomes["hmm_range_fault"]
    assert denied.state == DENIED
    assert denied.reason == (
        "fentry: not permitted in spite of the capabilities: a security module or a seccomp profile forbids it"
    )


def test_a_paranoid_kernel_is_named_by_its_setting(tracing: Tracing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attach_module, "_paranoid", lambda: 3)
    tracing.refuse_link = lambda link: number(errno.EACCES)
    outcomes, _ = attached(kernels.kernel(), kernels.config(only=("hmm_range_fault",), attach="kprobe"))
    assert outcomes["hmm_range_fault"].reason == (
        "kprobe: perf_event_open is not permitted: kernel.perf_event_paranoid is 3; set it to 2, or give CAP_SYS_ADMIN"
    )


@pytest.mark.parametrize(("text", "level"), [("2\n", 2), ("-1\n", -1), ("3\n", 3), ("", 0)])
def test_the_paranoid_setting_is_read_from_its_file(tmp_path: Path, text: str, level: int) -> None:
    path = tmp_path / "perf_event_paranoid"
    path.write_text(text)
    assert _paranoid(path) == level
    assert _paranoid(tmp_path / "none") == 0


def test_a_program_that_the_verifier_refuses_is_told_by_the_end_of_its_log(tracing: Tracing) -> None:
    # The form of a real log: kernel/bpf/verifier.c prints statistics last.
    tracing.log = (
        "0: (79) r6 = *(u64 *)(r1 +0)\nR1 invalid mem access 'scalar'\n"
        "processed 12 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0\n"
    )
    tracing.refuse_load = lambda load: number(errno.EACCES)
    outcomes, _ = attached(kernels.kernel(), kernels.config(only=("hmm_range_fault",), attach="fentry"))
    assert outcomes["hmm_range_fault"].state == ERROR
    assert outcomes["hmm_range_fault"].reason == ("fentry: the verifier refuses it: R1 invalid mem access 'scalar'")


def test_a_program_that_is_refused_without_a_log_is_told_by_the_error(tracing: Tracing) -> None:
    tracing.refuse_load = lambda load: number(errno.ENOSPC)
    outcomes, _ = attached(kernels.kernel(), kernels.config(only=("hmm_range_fault",), attach="fentry"))
    assert outcomes["hmm_range_fault"].reason == "fentry: the verifier refuses it: No space left on device"


def test_a_program_that_is_too_complex_is_told_without_a_log_of_megabytes(tracing: Tracing) -> None:
    tracing.refuse_load = lambda load: number(errno.E2BIG)
    tracing.log = "0: (79) r6 = *(u64 *)(r1 +0)\n"
    outcomes, _ = attached(kernels.kernel(), kernels.config(only=("hmm_range_fault",), attach="fentry"))
    failed = outcomes["hmm_range_fault"]
    assert failed.reason == "fentry: too complex for this kernel's verifier (a million instructions)"


def test_no_migration_is_begun_whose_end_is_not_watched(tracing: Tracing) -> None:
    tracing.refuse_link = lambda link: number(errno.EBUSY) if on("migrate_vma_finalize")(link) else None
    outcomes, _ = attached(kernels.kernel(), kernels.config(attach="fentry"))
    assert outcomes["migrate_vma_setup"].state == ERROR
    assert outcomes["migrate_vma_setup"].reason == "fentry: needs migrate_vma_finalize"
    assert "enter_migrate_vma_setup" not in [link.program for link in tracing.links]


def test_a_compiler_that_fails_ends_the_start_and_leaves_nothing_attached(
    tracing: Tracing, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_source(text: str, python: str, timeout: float) -> Compiled:
        if "BUILD_KPROBE" in preprocess(text).defined:
            raise StartError("loader: killed by SIGKILL while compiling")
        return tracing.compile_source(text, python, timeout)

    monkeypatch.setattr(attach_module, "compile_source", compile_source)
    tracing.refuse_link = lambda link: number(errno.EBUSY) if on("migrate_vma_setup")(link) else None
    kernel, config = kernels.kernel(), kernels.config()
    with pytest.raises(StartError):
        attach(kernel, config, choose(kernel, config)[0])


def test_nothing_is_compiled_where_there_is_nothing_to_attach(tracing: Tracing) -> None:
    outcomes, attachments = attached(kernels.kernel(), kernels.config(only=()))
    assert (outcomes, tracing.compiled, attachments.maps) == ({}, [], None)


def test_closing_detaches_newest_first_and_may_be_done_twice(tracing: Tracing, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, config = kernels.kernel(), kernels.config(only=("hmm_range_fault",))
    attachments = attach(kernel, config, choose(kernel, config)[0])
    links = list(attachments._links)
    closed: list[int] = []
    close = os.close

    def note_and_close(fd: int) -> None:
        closed.append(fd)
        close(fd)

    monkeypatch.setattr(os, "close", note_and_close)
    attachments.close()
    assert closed[: len(links)] == links[::-1]
    attachments.close()
    assert len(closed) == len(set(closed))


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_all_programs_of_a_probe_are_wanted_when_every_group_is_on(probe: Probe) -> None:
    assert wanted_programs(probe, ALL_GROUPS) == probe.programs


def test_an_exit_that_only_another_group_needs_is_left_out_without_it() -> None:
    without = ALL_GROUPS - {"per_page"}
    assert wanted_programs(BY_NAME["migrate_device_range"], without) == ("enter_migrate_device_range",)
    assert wanted_programs(BY_NAME["migrate_vma_setup"], without) == (
        "enter_migrate_vma_setup",
        "leave_migrate_vma_setup",
    )
    assert wanted_programs(BY_NAME["hmm_dma_map_pfn"], ALL_GROUPS) == ("leave_hmm_dma_map_pfn",)


def test_the_limits_of_the_configuration_are_the_maps(tracing: Tracing) -> None:
    kernel = kernels.kernel()
    config = replace(kernels.config(only=("hmm_range_fault",)), limits=Limits(owners=2), maps=Maps(threads=100))
    attachments = attach(kernel, config, choose(kernel, config)[0])
    assert attachments.maps
    assert (len(attachments.maps.read_threads()), attachments.maps.threads) == (0, 100)
    assert attachments.bcc == "0.26.0"
    attachments.close()


def telling(
    folder: Path, kallsyms: str = "ffffffff82a4f3c0 D iomem_resource\n", iomem: str = "", **facts: str
) -> Kernel:
    """A kernel that tells its symbols, and no ranges, or those of a made /proc/iomem."""
    (folder / "kallsyms").write_text(kallsyms)
    if iomem:
        (folder / "iomem").write_text(iomem)
    return replace(
        kernels.kernel(),
        symbols=Symbols(folder / "kallsyms"),
        iomem=Iomem(folder / "iomem"),
        **facts,  # type: ignore[arg-type]
    )


def resources(kernel: Kernel, config: Config | None = None) -> tuple[type | None, str]:
    """What is to be asked for resources, and why it knows none."""
    plan, _ = choose(kernel, config or kernels.config())
    attachments = attach(kernel, config or kernels.config(), plan)
    found = type(attachments.resources), attachments.resources_problem
    attachments.close()
    kernel.iomem.close()
    kernel.symbols.close()
    return found


def test_the_walk_of_the_resources_is_loaded_once_and_attached_to_nothing(tracing: Tracing, tmp_path: Path) -> None:
    tracing.refuse_link = lambda link: number(errno.ENOTSUP) if link.how == "tracing" else None
    assert resources(telling(tmp_path)) == (ResourceWalk, "")
    assert tracing.compiled == ["fentry", "kprobe"]
    loads = [load for load in tracing.loads if load.program == PROGRAM]
    assert loads == [Load(syscall.PROG_RAW_TRACEPOINT, PROGRAM, 0, 0)]
    assert PROGRAM not in [link.program for link in tracing.links]


def test_where_no_walk_is_possible_the_file_is_asked_if_it_tells_anything(tracing: Tracing, tmp_path: Path) -> None:
    tracing.refuse_load = lambda load: number(errno.EPERM) if load.program == PROGRAM else None
    assert resources(telling(tmp_path, iomem="1000-1fff : System RAM\n")) == (Iomem, "")


def test_lockdown_is_the_reason_before_the_kernel_is_asked(tracing: Tracing, tmp_path: Path) -> None:
    reason = "lockdown is confidentiality: BPF programs may not read the kernel's memory"
    assert resources(telling(tmp_path, lockdown="confidentiality")) == (Iomem, reason)
    assert PROGRAM not in [load.program for load in tracing.loads]


def test_a_kernel_whose_symbols_lack_the_root_has_no_walk(tracing: Tracing, tmp_path: Path) -> None:
    reason = "kallsyms has no iomem_resource: the kernel needs CONFIG_KALLSYMS_ALL"
    assert resources(telling(tmp_path, kallsyms="ffffffff81000000 T _text\n")) == (Iomem, reason)


def test_hidden_symbols_are_the_reason_for_no_walk(tracing: Tracing, tmp_path: Path) -> None:
    _, problem = resources(telling(tmp_path, kallsyms="0000000000000000 D iomem_resource\n"))
    assert "shows no addresses: give CAP_SYSLOG" in problem


def test_what_the_verifier_says_of_the_walk_is_the_reason(tracing: Tracing, tmp_path: Path) -> None:
    tracing.log = "0: (85) call bpf_probe_read_kernel#113\nprogram of this type cannot use helper\nprocessed 1 insns"
    tracing.refuse_load = lambda load: number(errno.EINVAL) if load.program == PROGRAM else None
    _, problem = resources(telling(tmp_path))
    assert problem == "the verifier refuses it: program of this type cannot use helper"


def test_a_simulator_has_its_file_only(tracing: Tracing, tmp_path: Path) -> None:
    (tmp_path / "simulator.iomem").write_text("1000-1fff : hmm_dmirror\n")
    kernel = replace(kernels.kernel(simulated=True), iomem=Iomem(tmp_path / "simulator.iomem"))
    assert resources(kernel) == (Iomem, "")
    assert PROGRAM not in [load.program for load in tracing.loads]


def test_no_reason_and_no_representation_tells_the_address_of_the_root(tracing: Tracing, tmp_path: Path) -> None:
    kernel = telling(tmp_path)
    plan, _ = choose(kernel, kernels.config())
    attachments = attach(kernel, kernels.config(), plan)
    attachments.close()
    kernel.symbols.close()
    kernel.iomem.close()
    told = [repr(attachments.resources), attachments.resources_problem, source.text(plan, "fentry")]
    assert not [each for each in told if "82a4f3c0" in each or str(0xFFFFFFFF82A4F3C0) in each]


IOMEM = "00001000-0fffffffff : System RAM\n3ffe00000000-3fffffffffff : hmm_dmirror\n"


def test_the_programs_are_told_whose_frames_are_whose_before_the_first_one_is_attached(
    tracing: Tracing, tmp_path: Path
) -> None:
    knew: list[bytes] = []
    kernel = telling(tmp_path, iomem=IOMEM, lockdown="confidentiality")
    config = kernels.config(only=("hmm_range_fault",))
    bpf = tracing.bpf
    tracing.refuse_link = lambda link: knew.extend(bpf.maps["devices_map"].rows.values())
    attachments = attach(kernel, config, choose(kernel, config)[0])
    attachments.close()
    kernel.symbols.close()
    assert attachments.knows_devices
    assert attachments.devices.name(0) == "hmm_dmirror-0"
    first = struct.unpack_from("<QQQQQ", knew[0])
    assert first == (0x1000000, 1, 0x3FFE00000000 >> 12, 0x3FFFFFFFFFFF >> 12, 0)


def test_nothing_is_written_while_devices_stay_what_they_are(tracing: Tracing, tmp_path: Path) -> None:
    kernel = telling(tmp_path, iomem=IOMEM, lockdown="confidentiality")
    config = kernels.config(only=("hmm_range_fault",))
    attachments = attach(kernel, config, choose(kernel, config)[0])
    rows = tracing.bpf.maps["devices_map"].rows
    rows.update(dict.fromkeys(rows, b"as it was"))
    attachments.learn_devices(kernel.page_size)
    assert set(rows.values()) == {b"as it was"}
    (tmp_path / "iomem").write_text(IOMEM.replace("3ffe0", "3ffd0"))
    attachments.learn_devices(kernel.page_size)
    assert b"as it was" not in rows.values()
    attachments.close()
    kernel.symbols.close()


def test_a_kernel_that_tells_no_ranges_has_no_devices(tracing: Tracing) -> None:
    _, attachments = attached(kernels.kernel(), kernels.config(only=("hmm_range_fault",)))
    assert not attachments.knows_devices
    assert attachments.resources_problem
