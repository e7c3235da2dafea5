# SPDX-License-Identifier: Apache-2.0
"""The probes as declared: names, groups, what each of them needs."""

from __future__ import annotations

import re

import pytest

from hmm_exporter.catalog.fields import (
    CGROUP_FIELDS,
    OPTIONAL_FIELDS,
    PROCESS_FIELDS,
)
from hmm_exporter.catalog.probe import Probe
from hmm_exporter.catalog.probes import GROUPS, PROBES

each_probe = pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)

# The groups are options of the configuration, and the probes are named in it.
CONTRACT = {
    "migration": ("migrate_vma_setup", "migrate_vma_pages", "migrate_vma_finalize", "migrate_device_unmap"),
    "device_range": ("migrate_device_range", "migrate_device_pfns", "migrate_device_pages"),
    "range_fault": ("hmm_range_fault", "hmm_range_fault_unlocked_timeout", "hmm_range_fault_locked"),
    "device_exclusive": ("make_device_exclusive", "restore_exclusive_pte"),
    "interval_notifier": (
        "mmu_interval_notifier_insert",
        "mmu_interval_notifier_insert_locked",
        "mmu_interval_notifier_remove",
    ),
    "huge_fault": ("do_huge_pmd_device_private",),
    "per_page": (
        "hmm_dma_map_pfn",
        "hmm_dma_unmap_pfn",
        "__mmu_notifier_invalidate_range_start",
        "migrate_device_finalize",
        "set_migration_pte",
        "remove_migration_pte",
        "set_migration_pmd",
        "remove_migration_pmd",
    ),
}


def test_the_probes_are_in_the_groups_of_the_contract() -> None:
    found = {group.name: tuple(probe.name for probe in PROBES if probe.group == group.name) for group in GROUPS}
    assert found == CONTRACT


def test_only_what_fires_once_a_page_or_for_other_peoples_memory_is_off_by_default() -> None:
    assert [group.name for group in GROUPS if not group.default] == ["per_page"]


@each_probe
def test_a_probes_group_exists(probe: Probe) -> None:
    names = {group.name for group in GROUPS}
    assert probe.group in names
    assert probe.exit_only_with in names | {""}


def test_names_are_unique() -> None:
    assert len({probe.name for probe in PROBES}) == len(PROBES)
    assert len({group.name for group in GROUPS}) == len(GROUPS)
    functions = [function for probe in PROBES for function in probe.functions]
    assert len(set(functions)) == len(functions)


@each_probe
def test_a_probe_is_named_after_its_newest_function_and_says_where_it_exists(probe: Probe) -> None:
    assert probe.functions[0] == probe.name
    assert probe.versions.isprintable()
    assert re.match(r"all\b|[67]\.\d+ and newer\b", probe.versions)
    assert re.fullmatch(r"(CONFIG_[A-Z_]+)?", probe.needs)


@each_probe
def test_a_probe_watches_something_and_a_tracepoint_has_no_return(probe: Probe) -> None:
    assert probe.entry or probe.exit
    assert not (probe.tracepoint and probe.exit)
    assert not probe.exit_only_with or (probe.entry and probe.exit)


@each_probe
def test_programs_are_named_entry_first(probe: Probe) -> None:
    expected = [f"enter_{probe.name}"] * probe.entry + [f"leave_{probe.name}"] * probe.exit
    assert list(probe.programs) == expected


@each_probe
def test_fields_are_paths_and_none_stands_twice(probe: Probe) -> None:
    paths = PROCESS_FIELDS + OPTIONAL_FIELDS + CGROUP_FIELDS + probe.fields
    assert all(re.fullmatch(r"[a-z_]+\.[a-z_]+", path) for path in paths)
    assert len(set(paths)) == len(paths)
    assert all(re.fullmatch(r"[A-Z_]+", name) for name in probe.enumerators)


def test_groups_are_described_in_one_line() -> None:
    assert all(group.help.isprintable() and group.help for group in GROUPS)


@each_probe
def test_a_probe_that_says_nothing_alone_requires_one_that_does(probe: Probe) -> None:
    required = {each.name: each for each in PROBES}.get(probe.requires)
    assert bool(required) == bool(probe.requires) == (probe.name in SAY_NOTHING_ALONE)
    if required:
        assert (required.group, required.sources) == (probe.group, probe.sources)


SAY_NOTHING_ALONE = {
    "migrate_vma_setup",  # without its end, it would be abandoned
    "migrate_vma_pages",
    "migrate_vma_finalize",
    "migrate_device_unmap",
    "hmm_range_fault_locked",
}


def test_only_what_looks_at_arrays_and_at_nothing_else_goes_where_they_cannot_be_read() -> None:
    assert {probe.name for probe in PROBES if probe.reads_pages} == {"migrate_device_unmap", "migrate_device_pages"}
