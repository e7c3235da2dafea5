# SPDX-License-Identifier: Apache-2.0
"""The sections say all that the catalogue has, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from hmm_exporter.catalog.metric import Metric, Type
from hmm_exporter.catalog.metrics import METRICS
from hmm_exporter.report.blocks import Drawing, Section, Table
from hmm_exporter.report.sections import FINAL
from hmm_exporter.report.summary_sections import SUMMARY


def samples(metric: Metric) -> tuple[str, ...]:
    return (metric.name,) if metric.type is Type.COUNTER else (f"{metric.name}_sum", f"{metric.name}_count")


BY_SAMPLE = {sample: metric for metric in METRICS for sample in samples(metric)}


def tables(sections: tuple[Section, ...]) -> Iterator[Table]:
    return (block for section in sections for block in section.blocks if isinstance(block, Table))


def drawings() -> list[Drawing]:
    return [block for section in FINAL for block in section.blocks if isinstance(block, Drawing)]


def test_every_metric_of_the_catalogue_is_in_the_final_report() -> None:
    shown = {BY_SAMPLE[column.sample].name for table in tables(FINAL) for column in table.columns}
    shown |= {drawing.histogram for drawing in drawings()}
    assert {metric.name for metric in METRICS} == shown


def test_every_histogram_is_drawn() -> None:
    assert {drawing.histogram for drawing in drawings()} == {
        metric.name for metric in METRICS if metric.type is Type.HISTOGRAM
    }


def test_figures_are_asked_for_by_labels_that_their_metrics_have() -> None:
    compared = 0
    for table in (*tables(FINAL), *tables(SUMMARY)):
        for column in table.columns:
            metric = BY_SAMPLE[column.sample]
            labels = {"pid", *metric.labels} if metric.per_process else set(metric.labels)
            wanted = {*table.by, *column.where}
            # A failure's errno is a row of its own; of one without, the column stays empty.
            assert wanted <= labels, (table.title, column)
            assert not column.per or BY_SAMPLE[column.per] is metric
            compared += 1
    for drawing in drawings():
        (metric,) = (each for each in METRICS if each.name == drawing.histogram)
        assert set(drawing.by) <= set(metric.labels)
        compared += 1
    assert compared > 100
