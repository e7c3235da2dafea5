# SPDX-License-Identifier: Apache-2.0
"""A daemon as it is by default: to Prometheus a series begins at 0, to a person it shows what there is."""

from __future__ import annotations

import re
from pathlib import Path

from hmm_exporter.config import Config
from tests.exposition import Samples
from tests.process import Exporter, issue_exactly

DEFAULT = {"series_from_zero": f"{Config().series_from_zero:g}s"}
#: Of label sets that are new with the first events, some and all.
NEW = ("hmm_process_migrations_total", "hmm_migration_failures_total", "hmm_range_faults_total")


def migrations_on_the_page(exporter: Exporter) -> str:
    text = " ".join(re.sub("<[^>]*>", " ", exporter.get("/")).split())
    found = re.search(r" Migrations (\S+) in all ", text)
    return found[1] if found else text


def counted(samples: Samples) -> list[float]:
    return [samples.sum("hmm_migrations_started_total"), *(samples.sum(name) for name in NEW)]


def test_a_scrape_shows_what_is_new_at_0_then_all_of_it_and_the_page_all_of_it_at_once(tmp_path: Path) -> None:
    with Exporter(tmp_path, DEFAULT) as exporter:
        issued = issue_exactly(300)
        assert migrations_on_the_page(exporter) == "300"
        first, second = exporter.scrape(), exporter.scrape()
        for name in NEW:
            assert len(first.named(name)) > 5
        assert counted(first) == counted(second) == [0] * 4
        # The longer time does not have to pass: it is live.
        exporter.reload({"series_from_zero": "1s"})
        while not any(seen := counted(exporter.scrape())):
            assert exporter.process.poll() is None
        started, of_processes, failed, faults = seen
        assert started == of_processes == issued["events"] == 300
        assert failed == sum(each["count"] for each in issued["migrations"] if each["errno"])
        assert faults == sum(each["count"] for each in issued["range_faults"])
        issue_exactly(300)  # of the same processes, which are known by now
        assert exporter.scrape().sum("hmm_process_migrations_total") == 600
