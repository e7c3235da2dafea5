# SPDX-License-Identifier: Apache-2.0
"""What is served passes parsers and promtool, in both formats, with every kind of series in it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from hmm_exporter.catalog.metrics import METRICS
from tests.exposition import Samples, buckets
from tests.process import Exporter, issue_exactly

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
ALL_ON = {"probes": {"groups": {"per_page": True}}, "histograms": {"migration_phases": True}}


@pytest.fixture(scope="module")
def exporter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    with Exporter(tmp_path_factory.mktemp("exposition"), ALL_ON) as running:
        issue_exactly(2000)
        yield running


def openmetrics_families(exporter: Exporter) -> list[Metric]:
    return list(parse_openmetrics(exporter.get("/metrics", OPENMETRICS)))  # type: ignore[no-untyped-call]


def test_every_metric_of_the_catalogue_is_exposed(exporter: Exporter) -> None:
    exposed = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in parse_text(exporter.get("/metrics"))
        if list(family.samples)
    }
    assert {metric.name for metric in METRICS} <= exposed


def test_both_formats_say_the_same(exporter: Exporter) -> None:
    def values(families: Iterable[Metric]) -> dict[object, float]:
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
            # What the exporter's own scrape changes from one to the next.
            if not family.name.startswith(("process_", "hmm_exporter_"))
        }

    text = values(parse_text(exporter.get("/metrics")))
    openmetrics = values(openmetrics_families(exporter))
    assert len(text) > 1500
    assert openmetrics == text


def test_no_series_stands_twice_and_buckets_are_cumulative_up_to_the_count(exporter: Exporter) -> None:
    samples = Samples.parse(exporter.get("/metrics"))
    histograms = {name.removesuffix("_bucket") for name in samples.names() if name.endswith("_bucket")}
    assert len(histograms) == 9
    for name in histograms:
        for its, les in buckets(samples, name).items():
            assert len(les) == 26
            assert list(les)[-1] == "+Inf"
            assert list(les.values()) == sorted(les.values())
            assert les["+Inf"] == samples.get(f"{name}_count", **dict(its))


def test_promtool_has_nothing_to_complain_about(exporter: Exporter) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian's package prometheus)")
    done = subprocess.run(
        [promtool, "check", "metrics"], input=exporter.get("/metrics"), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_label_that_needs_escaping_survives_both_formats(exporter: Exporter) -> None:
    for families in (parse_text(exporter.get("/metrics")), openmetrics_families(exporter)):
        comms = {sample.labels.get("comm") for family in families for sample in family.samples}
        assert 'caf\\xe9 "a\\b"' in comms


def test_no_address_of_the_simulator_is_in_the_exposition(exporter: Exporter) -> None:
    text = exporter.get("/metrics")
    # Whole numbers and hexadecimal words, not digits in the middle of a figure.
    words = set(re.findall(r"(?<![\w.])\w+(?![\w.])", text))
    for line in Path(f"{Path(__file__).parents[1]}/simulator/build/hmm-simulator.kallsyms").read_text().splitlines():
        address = line.split()[0].lstrip("0")
        assert not words & {address, f"0x{address}", line.split()[0]}
        assert f" {float(int(address, 16))}\n" not in text
