# SPDX-License-Identifier: Apache-2.0
"""The kernel's clock, from what a time namespace shows of it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hmm_exporter.kernel import clock


@pytest.mark.parametrize(
    ("offsets", "ahead"),
    [
        ("monotonic           0         0\nboottime            0         0\n", 0.0),
        ("monotonic      100000         0\nboottime       200000         0\n", 100_000.0),
        ("monotonic         -11 500000000\nboottime            0         0\n", -10.5),
    ],
)
def test_the_offset_of_the_namespace_is_taken_away(tmp_path: Path, offsets: str, ahead: float) -> None:
    file = tmp_path / "timens_offsets"
    file.write_text(offsets)
    before = time.monotonic()
    now = clock.monotonic(file)()
    assert before <= now + ahead <= time.monotonic()


def test_without_time_namespaces_there_is_one_clock(tmp_path: Path) -> None:
    before = time.monotonic()
    assert before <= clock.monotonic(tmp_path / "none")() <= time.monotonic()
