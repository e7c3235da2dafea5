# SPDX-License-Identifier: Apache-2.0
"""Loading and attaching, probe by probe, in a kernel of the tests' own that refuses what it is told to."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hmm_exporter import capabilities
from hmm_exporter.bpf import attach as attach_module
from hmm_exporter.bpf import load as load_module
from hmm_exporter.bpf import syscall
from hmm_exporter.bpf.attach import attach, wanted_programs
from hmm_exporter.bpf.compiler import Compiled
from hmm_exporter.bpf.load import _paranoid
from hmm_exporter.bpf.plan import ATTACHED, DENIED, ERROR, choose
from hmm_exporter.catalog.probe import Probe
from hmm_exporter.catalog.probes import GROUPS, PROBES
from hmm_exporter.config import Limits, Maps
from hmm_exporter.errors import StartError
from tests.unit.bpf import kernels
from tests.unit.bpf.c_text import preprocess
from tests.unit.bpf.tracing import Link, Load, Tracing, attached, number

BY_NAME = {probe.name: probe for probe in PROBES}
ALL_GROUPS = frozenset(group.name for group in GROUPS)


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


@pytest.mark.parametrize("multi", [True, False])
@pytest.mark.parametrize("preemptible", [True, False])
@pytest.mark.parametrize("counts", [True, False])
def test_kprobes_come_first_where_programs_can_be_preempted_no_return_is_lost_and_what_is_skipped_is_counted(
    tracing: Tracing, multi: bool, preemptible: bool, counts: bool
) -> None:
    first = "kprobe" if multi and preemptible and counts else "fentry"
    kernel = kernels.kernel(kprobe_multi=multi, preemptible=preemptible, counts_missed_kprobes=counts)
    outcomes, _ = attached(kernel, kernels.config())
    assert tracing.compiled == [first]
    assert {outcome.state for outcome in outcomes.values()} == {ATTACHED}


def test_one_kind_of_link_serves_entries_and_returns_and_needs_no_pmu(tracing: Tracing) -> None:
    kernel = kernels.kernel(kprobe=None, kprobe_multi=True)
    outcomes, _ = attached(kernel, kernels.config(only=("hmm_range_fault",), attach="kprobe"))
    assert outcomes["hmm_range_fault"].kind == "kprobe"
    assert tracing.links == [
        Link("kprobe-multi", "leave_hmm_range_fault", "hmm_range_fault", retprobe=True),
        Link("kprobe-multi", "enter_hmm_range_fault", "hmm_range_fault"),
    ]
    assert {load.attach_type for load in tracing.loads if load.type == syscall.PROG_KPROBE} == {
        syscall.TRACE_KPROBE_MULTI
    }


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
    monkeypatch.setattr(capabilities, "why_refused", lambda: "CAP_PERFMON is missing")
    monkeypatch.setattr(load_module, "_paranoid", lambda: 2)
    tracing.refuse_load = lambda load: number(errno.EPERM) if load.type == syscall.PROG_TRACING else None
    tracing.refuse_link = lambda link: number(errno.EACCES) if link.how == "kprobe" else None
    outcomes, _ = attached(kernels.kernel(), kernels.config(only=("hmm_range_fault",)))
    denied = outcomes["hmm_range_fault"]
    assert denied.state == DENIED
    assert denied.reason == (
        "fentry: not permitted: CAP_PERFMON is missing;"
        " kprobe: perf_event_open is not permitted: give CAP_PERFMON, and a seccomp profile and lockdown that allow it"
    )


def test_a_paranoid_kernel_is_named_by_its_setting(tracing: Tracing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "_paranoid", lambda: 3)
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
    links = [fd for _, fd in attachments.links]
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
