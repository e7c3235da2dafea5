# SPDX-License-Identifier: Apache-2.0
"""The rules of Prometheus as Python reads them, and the labels that they can ask for.

Belongs here: what is in the files. Does not belong here: what is right about it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from hmm_exporter.catalog.metric import Type
from hmm_exporter.catalog.metrics import METRICS
from hmm_exporter.catalog.values import WORKLOAD_LABELS
from tests.fleet.promql import Labels, labels_of
from tests.fleet.tools import ROOT
from tests.unit import test_reload
from tests.unit.confinement import test_confine
from tests.unit.governor import test_governor
from tests.unit.metrics import test_scrape

RULES = ROOT / "deploy/prometheus"
Rule = dict[str, Any]
Rules = dict[str, Any]


def load(name: str) -> Rules:
    loaded: Rules = yaml.safe_load((RULES / name).read_text())
    return loaded


def each(loaded: Rules) -> Iterator[Rule]:
    return (rule for group in loaded["groups"] for rule in group["rules"])


ALERTS = list(each(load("alerts.yaml")))
RECORDS = list(each(load("recording.yaml")))
NAMES = sorted({alert["alert"] for alert in ALERTS})


def exposed() -> dict[str, Labels]:
    """Every metric of the exporter with its labels."""
    labels: dict[str, Labels] = {"up": Labels()}
    for metric in METRICS:
        its = Labels(metric.labels) | (Labels(WORKLOAD_LABELS) if metric.per_process else Labels())
        if metric.type is Type.HISTOGRAM:
            labels |= {f"{metric.name}_bucket": its | {"le"}, f"{metric.name}_sum": its, f"{metric.name}_count": its}
        else:
            labels[metric.name] = its
    for gauges in (test_scrape.GAUGES, test_governor.GAUGES, test_reload.GAUGES, test_confine.GAUGES):
        labels |= {name: Labels(its) for name, its in gauges.items()}
    for counters in (test_scrape.COUNTERS, test_governor.COUNTERS):
        labels |= {f"{name}_total": Labels(its) for name, its in counters.items()}
    return labels


def recorded(rules: Rules) -> dict[str, Labels]:
    """The labels of everything that can be asked for once the rules have run."""
    known = exposed()
    for rule in each(rules):
        known[rule["record"]] = labels_of(rule["expr"], known) | Labels(rule.get("labels", {}))
    return known
