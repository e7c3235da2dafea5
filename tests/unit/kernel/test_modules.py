# SPDX-License-Identifier: Apache-2.0
"""Which modules use which. The text is written, in the form of kernel/module/procfs.c's m_show."""

from __future__ import annotations

from pathlib import Path

import pytest

from hmm_exporter.kernel.modules import users

PROC_MODULES = """\
drm_gpusvm_helper 61440 1 xe, Live 0x0000000000000000
xe 4333568 12 - Live 0x0000000000000000
drm_ttm_helper 16384 2 xe,nouveau, Live 0x0000000000000000
nvidia_uvm 4071424 4 - Live 0x0000000000000000 (OE)
drm_pagemap 24576 0 - Live 0x0000000000000000
ipv6 720896 46 [permanent], Live 0x0000000000000000
drm_buddy 24576 2 xe,[permanent], Loading 0x0000000000000000
odd 4096 - - Live 0x0000000000000000
"""


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("drm_gpusvm_helper", ("xe",)),
        ("drm_ttm_helper", ("xe", "nouveau")),
        ("xe", ()),
        ("nvidia_uvm", ()),
        ("ipv6", ()),
        ("drm_buddy", ("xe",)),
        ("odd", ()),
        ("drm", ()),
        ("amdgpu", ()),
    ],
)
def test_a_module_has_the_users_that_the_kernel_names(tmp_path: Path, module: str, expected: tuple[str, ...]) -> None:
    path = tmp_path / "modules"
    path.write_text(PROC_MODULES)
    assert users(module, path) == expected


def test_a_kernel_without_modules_has_no_users(tmp_path: Path) -> None:
    assert users("xe", tmp_path / "modules") == ()
    (tmp_path / "modules").write_text("")
    assert users("xe", tmp_path / "modules") == ()


def test_lines_that_are_not_the_kernels_are_passed_over(tmp_path: Path) -> None:
    """Found by fuzzing."""
    path = tmp_path / "modules"
    path.write_bytes(b"xe\nxe 1 2\n\n\xff\xfe 1 2 3\nxe 1 1 drm_ttm, Live\n")
    assert users("xe", path) == ("drm_ttm",)
