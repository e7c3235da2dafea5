# SPDX-License-Identifier: Apache-2.0
"""What a kernel can do, from the files in which it says so. The texts are those of the kernel's own formats."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hmm_exporter.kernel import features
from hmm_exporter.kernel.btf import Btf
from hmm_exporter.kernel.features import (
    Pmu,
    has_device_private,
    lockdown,
    pmu,
    possible_cpus,
    running_kernel,
)
from tests.unit.kernel.btf_encoder import VOID, Encoder


def functions(*names: str) -> bytes:
    btf = Encoder()
    prototype = btf.prototype(VOID, [])
    for name in names:
        btf.function(name, prototype)
    return btf.blob()


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("[none] integrity confidentiality\n", "none"),
        ("none [integrity] confidentiality\n", "integrity"),
        ("none integrity [confidentiality]\n", "confidentiality"),
        ("", "unknown"),
        ("none integrity confidentiality\n", "unknown"),
        ("[]\n", "unknown"),
    ],
)
def test_lockdown_is_the_word_in_brackets(tmp_path: Path, text: str, state: str) -> None:
    path = tmp_path / "lockdown"
    path.write_text(text)
    assert lockdown(path) == state


def test_lockdown_is_unknown_where_securityfs_is_missing_or_hidden(tmp_path: Path) -> None:
    assert lockdown(tmp_path / "lockdown") == "unknown"
    assert lockdown(tmp_path) == "unknown"


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("0\n", 1),
        ("0-1\n", 2),
        ("0-255\n", 256),
        ("0-3,8-11\n", 12),
        ("0-1,4\n", 5),
        ("0,2\n", 3),
        ("0-63", 64),
    ],
)
def test_possible_cpus_is_one_more_than_the_highest_number(tmp_path: Path, text: str, cpus: int) -> None:
    path = tmp_path / "possible"
    path.write_text(text)
    assert possible_cpus(path) == cpus


@pytest.mark.parametrize("text", ["", "\n", "many", "0-"])
def test_possible_cpus_are_pythons_where_the_file_says_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "possible"
    path.write_text(text)
    assert possible_cpus(path) == possible_cpus(tmp_path / "none") == os.cpu_count()


def make_pmu(folder: Path, kind: str, retprobe: str) -> None:
    (folder / "kprobe/format").mkdir(parents=True)
    (folder / "kprobe/type").write_text(kind)
    (folder / "kprobe/format/retprobe").write_text(retprobe)


def test_a_pmu_has_a_type_and_the_bit_for_return_probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "_PMUS", tmp_path)
    make_pmu(tmp_path, "6\n", "config:0\n")
    assert pmu("kprobe") == Pmu(type=6, retprobe_bit=0)


def test_a_kernel_without_the_pmu_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "_PMUS", tmp_path)
    assert pmu("kprobe") is None
    make_pmu(tmp_path, "6\n", "config:0\n")
    (tmp_path / "kprobe/format/retprobe").unlink()
    assert pmu("kprobe") is None


@pytest.mark.parametrize(
    ("names", "there"),
    [
        (("make_device_exclusive", "migrate_vma_setup"), True),
        (("make_device_exclusive_range",), True),
        (("migrate_vma_setup", "remove_device_exclusive_entry"), False),
    ],
)
def test_device_private_shows_by_a_function_of_either_name(names: tuple[str, ...], there: bool) -> None:
    assert has_device_private(Btf(functions(*names))) is there


def test_a_kernel_with_btf_has_no_problem(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(functions("make_device_exclusive"))
    kernel = running_kernel(path)
    kernel.symbols.close()
    assert kernel.btf
    assert (kernel.btf_problem, kernel.device_private, kernel.simulated) == ("", True, None)
    assert (kernel.release, kernel.page_size) == (os.uname().release, os.sysconf("SC_PAGE_SIZE"))
    assert kernel.possible_cpus >= (os.cpu_count() or 1)


@pytest.mark.parametrize("size", [4096, 65536])
def test_a_page_is_as_large_as_the_machine_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": size}.__getitem__)
    kernel = running_kernel(tmp_path / "vmlinux")
    kernel.symbols.close()
    assert kernel.page_size == size


@pytest.mark.parametrize("content", [None, b"", b"no BTF at all, and yet longer than a header"])
def test_a_kernel_without_btf_is_a_kernel_with_a_problem_and_its_remedy(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "vmlinux"
    if content is not None:
        path.write_bytes(content)
    kernel = running_kernel(path)
    kernel.symbols.close()
    assert kernel.btf is None
    assert kernel.device_private is False
    assert kernel.btf_problem.startswith(f"no BTF ({path}: ")
    assert kernel.btf_problem.endswith("): the kernel needs CONFIG_DEBUG_INFO_BTF")
    assert kernel.btf_problem.isprintable()


@pytest.mark.parametrize(
    ("release", "at_least"),
    [
        ("6.1.0-32-amd64", False),
        ("6.6.87.2", False),
        ("6.7", True),
        ("6.12.117", True),
        ("7.3.4+deb13", True),
        ("", False),
    ],
)
def test_a_release_is_compared_by_its_numbers(release: str, at_least: bool) -> None:
    assert features.release_at_least(6, 7, release) == at_least


def test_lockdown_is_read_from_any_bytes(tmp_path: Path) -> None:
    """Found by fuzzing."""
    path = tmp_path / "lockdown"
    path.write_bytes(b"\xff [integrity] \xfe")
    assert lockdown(path) == "integrity"


def test_btf_that_contradicts_itself_is_a_problem_and_no_error(tmp_path: Path) -> None:
    """Found by fuzzing."""
    btf = Encoder()
    btf.function("make_device_exclusive", 99)
    path = tmp_path / "vmlinux"
    path.write_bytes(btf.blob())
    kernel = running_kernel(path)
    assert kernel.btf is None
    assert "refers to number 99" in kernel.btf_problem
