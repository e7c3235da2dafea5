# SPDX-License-Identifier: Apache-2.0
"""From the number of a cgroup to its path, in a tree of real folders; where there is one, in the machine's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hmm_exporter.workload.cgroups import Cgroups
from tests.host_files import LLAMA, HostFiles

ADVICE = "host.cgroup must name the place where the host's cgroup file system is mounted"


def test_a_number_leads_to_its_path(tmp_path: Path) -> None:
    files = HostFiles(tmp_path)
    numbers = {files.make(path): f"/{path}" for path in (LLAMA.systemd(), "system.slice", "system.slice/a.service")}
    found = Cgroups(files.cgroup).paths(numbers.keys() | {1 << 40})
    assert found == numbers


def test_the_root_has_a_path_too(tmp_path: Path) -> None:
    assert Cgroups(tmp_path).paths({tmp_path.stat().st_ino}) == {tmp_path.stat().st_ino: "/"}


def test_a_cgroup_that_was_removed_is_there_no_more(tmp_path: Path) -> None:
    files = HostFiles(tmp_path)
    number = files.make("a/b")
    cgroups = Cgroups(files.cgroup)
    assert cgroups.exists(number, "/a/b")
    (files.cgroup / "a/b").rmdir()
    assert not cgroups.exists(number, "/a/b")
    assert cgroups.paths({number}) == {}


def test_a_new_cgroup_of_an_old_path_is_another(tmp_path: Path) -> None:
    files = HostFiles(tmp_path)
    number = files.make("a")
    assert not Cgroups(files.cgroup).exists(number + 1, "/a")


def test_folders_that_nobody_may_read_hide_what_is_below_and_nothing_else(tmp_path: Path) -> None:
    files = HostFiles(tmp_path)
    number = files.make("open/below")
    (files.cgroup / "link").symlink_to(files.cgroup / "open")
    (files.cgroup / "file").write_text("")
    assert Cgroups(files.cgroup).paths({number}) == {number: "/open/below"}


def test_a_folder_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    cgroups = Cgroups(tmp_path / "nowhere")
    assert cgroups.problem == f"{tmp_path}/nowhere: No such file or directory: {ADVICE}"
    assert cgroups.paths({1}) == {}


def test_version_1_is_told_to_be_unsupported(tmp_path: Path) -> None:
    """There a folder holds one for each controller."""
    (tmp_path / "memory").mkdir()
    assert Cgroups(tmp_path).problem == (
        f"{tmp_path} is not a cgroup file system of version 2, and version 1 is not supported: {ADVICE}"
    )


def test_a_part_of_the_hierarchy_is_a_problem(tmp_path: Path) -> None:
    """As a container sees its own cgroup for the whole."""
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    assert Cgroups(tmp_path).problem == f"{tmp_path} is only a part of the host's cgroups: {ADVICE}"


def test_a_simulators_tree_may_be_any(tmp_path: Path) -> None:
    assert Cgroups(tmp_path, whole=False).problem == ""


def test_the_machines_own_hierarchy_is_read() -> None:
    root = next(
        (path for path in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")) if _is_version_2(path)), None
    )
    if root is None:
        pytest.skip("this machine has no cgroup file system of version 2 at /sys/fs/cgroup or below it")
    if os.stat(root).st_ino != 1:
        pytest.skip(f"{root} is a part of the hierarchy: this is a container")
    cgroups = Cgroups(root)
    assert cgroups.problem == ""
    mine = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))[3:]
    number = os.stat(f"{root}{mine}").st_ino
    assert cgroups.paths({number}) == {number: mine}


def _is_version_2(path: Path) -> bool:
    return (path / "cgroup.controllers").exists()
