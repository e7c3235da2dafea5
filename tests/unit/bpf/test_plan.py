# SPDX-License-Identifier: Apache-2.0
"""Which probes a kernel can have, and why not the others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmm_exporter.bpf.plan import ABSENT, DENIED, DISABLED, ERROR, Outcome, choose, reads_pages
from hmm_exporter.bpf.source import Target
from hmm_exporter.catalog.probes import GROUPS, PROBES
from hmm_exporter.config import Config, Filter, Kubernetes, Probes, Slurm
from hmm_exporter.kernel.btf import Function
from hmm_exporter.kernel.features import Kernel
from tests.unit.bpf import kernels
from tests.unit.bpf.kernels import PARAMETERS, Known

NAMES = [probe.name for probe in PROBES]


def outcome(outcomes: list[Outcome], probe: str) -> Outcome:
    (found,) = (each for each in outcomes if each.probe.name == probe)
    return found


def test_the_newest_kernel_has_every_probe() -> None:
    plan, left_out = choose(kernels.kernel(), kernels.config())
    assert left_out == []
    assert [target.probe for target in plan.targets] == NAMES
    assert plan.groups == {group.name for group in GROUPS}


def test_a_target_has_its_function_and_its_number_of_parameters() -> None:
    plan, _ = choose(kernels.kernel(), kernels.config(only=("hmm_range_fault", "set_migration_pte")))
    assert plan.targets == (
        Target("hmm_range_fault", "hmm_range_fault", PARAMETERS),
        Target("set_migration_pte", "set_migration_pte", 0),
    )


def test_a_probe_of_a_group_that_is_off_is_disabled_by_the_option_that_says_so() -> None:
    plan, left_out = choose(kernels.kernel(), Config())
    assert {each.probe.group for each in left_out} == {"per_page"}
    first = outcome(left_out, "set_migration_pte")
    assert (first.state, first.kind, first.reason) == (DISABLED, "none", "probes.groups.per_page is false")
    assert "per_page" not in plan.groups


def test_an_excluded_probe_is_disabled() -> None:
    plan, left_out = choose(kernels.kernel(), Config(probes=Probes(exclude=("hmm_range_fault",))))
    excluded = outcome(left_out, "hmm_range_fault")
    assert (excluded.state, excluded.function, excluded.reason) == (
        DISABLED,
        "hmm_range_fault",
        "named in probes.exclude",
    )
    assert "hmm_range_fault" not in [target.probe for target in plan.targets]


def test_a_function_that_the_kernel_has_not_is_absent_and_the_releases_are_named() -> None:
    without = {"do_huge_pmd_device_private", "migrate_device_pfns"}
    _, left_out = choose(kernels.kernel(without), kernels.config())
    assert [each.probe.name for each in left_out] == ["migrate_device_pfns", "do_huge_pmd_device_private"]
    assert [(each.state, each.reason) for each in left_out] == [
        (ABSENT, "not in this kernel (it is in releases: 6.15 and newer)"),
        (ABSENT, "not in this kernel (it is in releases: 6.19 and newer, with CONFIG_TRANSPARENT_HUGEPAGE)"),
    ]


@pytest.mark.parametrize(
    ("without", "function"),
    [
        ({"make_device_exclusive_range"}, "make_device_exclusive"),
        ({"make_device_exclusive"}, "make_device_exclusive_range"),
        (set[str](), "make_device_exclusive"),
    ],
)
def test_the_first_function_that_the_kernel_has_is_taken(without: set[str], function: str) -> None:
    plan, _ = choose(kernels.kernel(without), kernels.config(only=("make_device_exclusive",)))
    assert [target.function for target in plan.targets] == [function]


def test_a_missing_field_turns_the_probes_off_that_need_it_and_is_named() -> None:
    plan, left_out = choose(kernels.kernel({"migrate_vma.fault_page", "migrate_vma.pgmap_owner"}), kernels.config())
    setup = outcome(left_out, "migrate_vma_setup")
    assert (setup.state, setup.reason) == (
        ABSENT,
        "this kernel's BTF has no migrate_vma.pgmap_owner, migrate_vma.fault_page",
    )
    assert "hmm_range_fault" in [target.probe for target in plan.targets]


def test_a_missing_struct_is_a_missing_field() -> None:
    _, left_out = choose(kernels.kernel({"mmu_notifier_range"}), kernels.config())
    missing = outcome(left_out, "__mmu_notifier_invalidate_range_start")
    assert missing.reason.startswith("this kernel's BTF has no mmu_notifier_range.mm, mmu_notifier_range.start")


@pytest.mark.parametrize(
    ("without", "config", "state", "reason"),
    [
        (
            {"migrate_vma.fault_page"},
            kernels.config(),
            ABSENT,
            "needs migrate_vma_setup: this kernel's BTF has no migrate_vma.fault_page",
        ),
        (
            kernels.RENAMED,
            Config(probes=Probes(exclude=("migrate_vma_setup",))),
            DISABLED,
            "needs migrate_vma_setup: named in probes.exclude",
        ),
    ],
    ids=["absent", "excluded"],
)
def test_a_probe_that_says_nothing_alone_goes_with_the_one_it_requires(
    without: set[str], config: Config, state: str, reason: str
) -> None:
    plan, left_out = choose(kernels.kernel(without), config)
    for name in ("migrate_vma_pages", "migrate_vma_finalize"):
        alone = outcome(left_out, name)
        assert (alone.function, alone.state, alone.reason) == (name, state, reason)
    assert not {target.probe for target in plan.targets} & {"migrate_vma_pages", "migrate_vma_finalize"}


def test_a_probe_that_another_one_requires_needs_it_not() -> None:
    excluded = Config(probes=Probes(exclude=("migrate_vma_pages", "hmm_range_fault_locked")))
    plan, _ = choose(kernels.kernel(), excluded)
    there = {target.probe for target in plan.targets}
    assert {"migrate_vma_setup", "migrate_vma_finalize", "hmm_range_fault"} <= there


def test_without_a_migrations_end_there_is_no_beginning_and_nothing_in_between() -> None:
    plan, left_out = choose(kernels.kernel(), Config(probes=Probes(exclude=("migrate_vma_finalize",))))
    assert outcome(left_out, "migrate_vma_setup").reason == "needs migrate_vma_finalize: named in probes.exclude"
    for name in ("migrate_vma_pages", "migrate_device_unmap"):
        between = outcome(left_out, name)
        assert between.state == DISABLED
        assert between.reason == "needs migrate_vma_setup: needs migrate_vma_finalize: named in probes.exclude"
    assert "migrate_vma_setup" not in {target.probe for target in plan.targets}


def test_under_lockdown_what_only_looks_at_arrays_is_denied_and_all_else_is_there() -> None:
    plan, left_out = choose(kernels.kernel(lockdown="confidentiality"), kernels.config())
    assert {(each.probe.name, each.state, each.reason) for each in left_out} == {
        (name, DENIED, "lockdown is confidentiality: what moved cannot be read, calls and times can")
        for name in ("migrate_device_unmap", "migrate_device_pages")
    }
    assert not plan.pages


@pytest.mark.parametrize(
    ("kernel", "reads"),
    [
        (kernels.kernel(), True),
        (kernels.kernel(lockdown="integrity"), True),
        (kernels.kernel(lockdown="confidentiality"), False),
        # The simulator's memory is a process's.
        (kernels.kernel(lockdown="confidentiality", simulated=True), True),
    ],
    ids=["none", "integrity", "confidentiality", "simulator"],
)
def test_pages_are_read_unless_lockdown_is_confidentiality(kernel: Kernel, reads: bool) -> None:
    assert reads_pages(kernel) is reads
    assert choose(kernel, kernels.config())[0].pages is reads


def test_an_option_that_has_a_substitute_is_0_where_the_kernel_has_it_not() -> None:
    plan, left_out = choose(kernels.kernel({"MIGRATE_VMA_SELECT_COMPOUND"} | kernels.RENAMED), kernels.config())
    assert left_out == []
    assert plan.enumerators["MIGRATE_VMA_SELECT_COMPOUND"] == 0


def test_a_kernel_whose_tasks_cannot_be_read_has_no_probes() -> None:
    """Whoever acts is read by every program (program/process.c)."""
    plan, left_out = choose(kernels.kernel({"task_struct.tgid"}), kernels.config())
    assert plan.targets == ()
    assert {each.state for each in left_out} == {ABSENT}
    assert all(each.reason.endswith("this kernel's BTF has no task_struct.tgid") for each in left_out)


def test_a_missing_field_with_a_substitute_turns_nothing_off() -> None:
    plan, left_out = choose(kernels.kernel({"mm_struct.owner"} | kernels.RENAMED), kernels.config())
    assert left_out == []
    assert "mm_struct.owner" not in plan.offsets


def test_an_enumerator_that_is_missing_or_cut_to_zero_turns_the_probe_off() -> None:
    class Cut(Known):
        def enumerator(self, name: str) -> int | None:
            return 0 if name == "HMM_PFN_REQ_WRITE" else super().enumerator(name)

    for btf in (Known({"HMM_PFN_REQ_WRITE"}), Cut(())):
        _, left_out = choose(replace(kernels.kernel(), btf=btf), kernels.config())
        without = outcome(left_out, "hmm_range_fault")
        assert (without.state, without.reason) == (ABSENT, "this kernel's BTF has no HMM_PFN_REQ_WRITE")


def test_without_btf_every_probe_that_is_wanted_fails_for_that_reason() -> None:
    problem = "no BTF (/sys/kernel/btf/vmlinux: No such file or directory): the kernel needs CONFIG_DEBUG_INFO_BTF"
    plan, left_out = choose(kernels.kernel(btf_problem=problem), Config())
    assert plan.targets == ()
    assert {each.state for each in left_out} == {ERROR, DISABLED}
    assert {each.reason for each in left_out if each.state == ERROR} == {problem}


def test_a_tracepoint_is_known_by_its_typedef_and_on_the_simulator_by_its_function() -> None:
    wanted = kernels.config(only=("set_migration_pte",))
    assert choose(kernels.kernel({"btf_trace_set_migration_pte"}), wanted)[0].targets == ()
    assert choose(kernels.kernel({"set_migration_pte"}), wanted)[0].targets == (
        Target("set_migration_pte", "set_migration_pte", 0),
    )
    simulated = choose(kernels.kernel({"btf_trace_set_migration_pte"}, simulated=True), wanted)[0]
    assert simulated.targets == (Target("set_migration_pte", "set_migration_pte", PARAMETERS),)
    assert choose(kernels.kernel({"set_migration_pte"}, simulated=True), wanted)[0].targets == ()


@pytest.mark.parametrize("page_size", kernels.PAGE_SIZES)
def test_the_plan_carries_what_the_kernel_and_the_configuration_say(page_size: int) -> None:
    config = replace(kernels.config(phases=True), filter=Filter(tgids=(7,), comms=("é",)))
    plan, _ = choose(kernels.kernel(possible_cpus=256, page_size=page_size), config)
    assert (plan.shards, plan.page_size, plan.migration_phases) == (8, page_size, True)
    assert (plan.tgids, plan.comms) == ((7,), ("é".encode(),))
    btf = Known(())
    assert plan.offsets["migrate_vma.start"] == btf.offset("migrate_vma.start")
    assert plan.sizes["migrate_vma"] == btf.size("migrate_vma")
    assert plan.enumerators["HMM_PFN_REQ_FAULT"] == btf.enumerator("HMM_PFN_REQ_FAULT")


@given(
    st.sets(st.sampled_from(NAMES)),
    st.sets(st.sampled_from([*NAMES, "btf_trace_set_migration_pte", "hmm_range", "task_struct", "VM", "mm_struct"])),
    st.sets(st.sampled_from([group.name for group in GROUPS])),
)
def test_every_probe_is_either_planned_or_left_out_with_a_reason(
    excluded: set[str], without: set[str], off: set[str]
) -> None:
    groups = {group.name: group.name not in off for group in GROUPS}
    plan, left_out = choose(kernels.kernel(without), Config(probes=Probes(exclude=tuple(excluded), groups=groups)))
    planned = [target.probe for target in plan.targets]
    assert sorted(planned + [each.probe.name for each in left_out]) == sorted(NAMES)
    assert all(each.reason and each.reason.isprintable() and each.kind == "none" for each in left_out)
    for probe in PROBES:
        if probe.name in planned:
            assert not set(probe.fields) - set(plan.offsets)
            assert not set(probe.enumerators) - set(plan.enumerators)


def test_the_stand_in_btf_answers_like_one() -> None:
    assert Known({"f"}).function("f") is None
    assert isinstance(Known({"f"}).function("g"), Function)


def test_the_kernels_tree_of_resources_is_read_where_btf_describes_it() -> None:
    plan, _ = choose(kernels.kernel(), kernels.config(only=("hmm_range_fault",)))
    assert plan.resources
    assert {"resource.child", "resource.desc"} <= plan.offsets.keys()
    assert plan.sizes["resource"]
    assert "IORES_DESC_DEVICE_PRIVATE_MEMORY" in plan.enumerators


@pytest.mark.parametrize(
    "kernel",
    [
        kernels.kernel(without={"resource.sibling"}),
        kernels.kernel(without={"IORES_DESC_DEVICE_PRIVATE_MEMORY"}),
        kernels.kernel(btf_problem="no BTF"),
        kernels.kernel(simulated=True),
    ],
    ids=["field", "enumerator", "btf", "simulator"],
)
def test_it_is_not_where_btf_does_not_or_where_a_simulator_has_a_file(kernel: Kernel) -> None:
    plan, _ = choose(kernel, kernels.config())
    assert not plan.resources
    assert not [path for path in plan.offsets if path.startswith("resource.")]


def test_processes_are_told_apart_by_their_ids_only_for_who_asks() -> None:
    assert not choose(kernels.kernel(), kernels.config())[0].pids
    assert choose(kernels.kernel(), kernels.config(), pids=True)[0].pids


def test_processes_are_told_apart_by_their_cgroups_only_where_these_are_labels() -> None:
    config = kernels.config()
    asked = replace(config, kubernetes=Kubernetes(enabled=True))
    assert not choose(kernels.kernel(), config)[0].cgroups
    assert choose(kernels.kernel(), asked)[0].cgroups
    assert choose(kernels.kernel(), replace(config, slurm=Slurm(enabled=True)))[0].cgroups
    # A process id says more; and without CONFIG_CGROUPS there is nothing to read.
    assert not choose(kernels.kernel(), asked, pids=True)[0].cgroups
    assert not choose(kernels.kernel(without={"css_set"}), asked)[0].cgroups
