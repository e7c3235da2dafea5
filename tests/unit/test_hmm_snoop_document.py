# SPDX-License-Identifier: Apache-2.0
"""docs/hmm-snoop.md says what the referee's table says: of all maps that the script prints, of metrics that exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from hmm_exporter.catalog.metric import Type
from hmm_exporter.catalog.metrics import METRICS
from tests.lab import hmm_snoop, referee
from tests.lab.referee_row import Verdict

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs/hmm-snoop.md"
COMPARED = ROOT / "tests/lab/test_referee.py"

# Written, in the script's manner.
SCRIPT = """\
BEGIN
{
/* @commented = 1; */
@constant = (uint64)6;
}
kprobe:a
{
@scratch[tid] = nsecs;
@counted++;
@shown[pid] = count();
@summed = sum(1);
}
interval:s:5
{
if (@constant > 0) {
printf("%s %d", "(all):", @constant);
}
print(@summed);
}
END
{
print(@shown, 10);
clear(@scratch); clear(@constant);
clear(@shown);
clear(@summed);
}
"""


def test_maps_are_printed_by_name_in_a_summary_or_at_the_end_or_left_uncleared() -> None:
    assert hmm_snoop.printed(SCRIPT) == {"counted", "shown", "summed"}


def test_the_documents_table_is_the_referees() -> None:
    lines = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("|")]
    assert lines == referee.table(), "write the lines that `python3 -m tests.lab.referee` prints"


def test_the_table_has_every_map_that_the_script_prints_once() -> None:
    script = hmm_snoop.find()
    if script is None:
        pytest.skip("no hmm-snoop.bt: name it in HMM_SNOOP to compare with it")
    assert sorted(row.script for row in referee.ROWS) == sorted(hmm_snoop.printed(script.read_text()))


def test_the_table_names_metrics_and_labels_of_the_catalogue() -> None:
    catalogue = {metric.name: metric for metric in METRICS}
    for row in referee.ROWS:
        assert bool(row.ours) == (row.verdict is not Verdict.not_shown), row.script
        by = {row.key.label} - {""}
        for figure in (*row.ours, *row.counts):
            metric = catalogue[figure.sample.removesuffix("_count")]
            assert (metric.type is Type.HISTOGRAM) == figure.sample.endswith("_count"), row.script
            assert set(figure.labels) | by <= set(metric.labels), row.script


def test_what_is_the_same_needs_no_other_figures() -> None:
    for row in referee.ROWS:
        assert row.verdict is not Verdict.same or (not row.counts and row.times == 1), row.script


def test_a_map_that_is_not_compared_as_a_sum_has_a_test_that_names_it() -> None:
    text = COMPARED.read_text()
    for row in referee.ROWS:
        assert not row.own_test or f'"{row.script}"' in text, row.script
