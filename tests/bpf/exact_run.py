# SPDX-License-Identifier: Apache-2.0
"""One run of the exporter over the simulator's exact mode, which several modules of tests look at.

4 threads, 100,000 events of each main kind, everything switched on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bpf import expected
from tests.exposition import Samples
from tests.process import Exporter, issue_exactly

EVENTS = int(os.environ.get("HMM_EXACT_EVENTS", "100000"))
ALL_ON = {"probes": {"groups": {"per_page": True}}, "histograms": {"migration_phases": True}}


@dataclass(frozen=True)
class Run:
    issued: dict[str, Any]
    before: Samples
    after: Samples
    owners: dict[str, str]


def run_exactly(folder: Path, configuration: Mapping[str, Any] = ALL_ON) -> Run:
    with Exporter(folder, configuration) as exporter:
        before = exporter.scrape()
        issued = issue_exactly(EVENTS)
        after = exporter.scrape()
    return Run(issued, before, after, expected.owner_names(issued, after))
