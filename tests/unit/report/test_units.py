# SPDX-License-Identifier: Apache-2.0
"""Figures for people are short, and right to three digits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmm_exporter.report.units import Unit, figure


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, Unit.count, "0"),
        (1, Unit.count, "1"),
        (12345678, Unit.count, "12,345,678"),
        (99999999, Unit.count, "99,999,999"),
        (100000000, Unit.count, "100 M"),
        (2500000000, Unit.count, "2.50 G"),
        (0, Unit.bytes, "0"),
        (512, Unit.bytes, "512 B"),
        (1024, Unit.bytes, "1 KiB"),
        (1536, Unit.bytes, "1.50 KiB"),
        (1023 * 1024, Unit.bytes, "1023 KiB"),
        ((1 << 20) - 1, Unit.bytes, "1 MiB"),
        (5 << 40, Unit.bytes, "5 TiB"),
        (0, Unit.seconds, "0"),
        (1e-9, Unit.seconds, "1 ns"),
        (2.0**-20, Unit.seconds, "954 ns"),
        (2.0**-5, Unit.seconds, "31.2 ms"),
        (0.9999999, Unit.seconds, "1 s"),
        (59.94, Unit.seconds, "59.9 s"),
        (90, Unit.seconds, "1.50 min"),
        (86400 * 400, Unit.seconds, "400 d"),
    ],
)
def test_a_figure_is_written_in_its_largest_unit(value: float, unit: Unit, text: str) -> None:
    assert figure(value, unit) == text


@given(st.floats(min_value=1e-9, max_value=1e9), st.sampled_from(Unit), st.sampled_from((1, 1 << 30)))
def test_a_figure_is_ten_characters_at_most(value: float, unit: Unit, times: int) -> None:
    assert len(figure(value if unit is Unit.seconds else value * times, unit)) <= 10
