# SPDX-License-Identifier: Apache-2.0
"""The filter lets through the events of some processes, in the kernel, and no others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.bpf import expected
from tests.exposition import Samples
from tests.process import Exporter, issue_exactly

EVENTS = 3000
# The simulator's table of processes (world.c).
TGID = {"train.py": 4417, "ollama": 4302}

# They carry no process: migration entries belong to a folio; and a return probe on the simulator does not know who
# acts, so DMA maps are not filtered there.
UNFILTERED = ("hmm_migration_ptes_set_total", "hmm_migration_ptes_removed_total", "hmm_dma_")


def of(issued: Mapping[str, Any], comms: set[str]) -> dict[str, Any]:
    """The events of these processes."""
    return {
        kind: [event for event in events if expected.comm(event) in comms]
        if isinstance(events, list) and events and "comm" in events[0]
        else events
        for kind, events in issued.items()
    }


def observe(folder: Path, settings: Mapping[str, Any]) -> tuple[dict[str, Any], Samples]:
    with Exporter(folder, {"probes": {"groups": {"per_page": True}}, **settings}) as exporter:
        issued = issue_exactly(EVENTS)
        return issued, exporter.scrape()


@pytest.mark.parametrize(
    ("settings", "comms"),
    [
        ({"comms": ["train.py"]}, {"train.py"}),
        ({"comms": ["train.py", "ollama", "nobody"]}, {"train.py", "ollama"}),
        ({"tgids": [TGID["ollama"]]}, {"ollama"}),
        ({"tgids": [TGID["ollama"], TGID["train.py"]], "comms": ["train.py"]}, {"train.py"}),
        ({"tgids": [4194304]}, set()),
    ],
)
def test_only_the_processes_of_the_filter_are_counted(tmp_path: Path, settings: Any, comms: set[str]) -> None:
    issued, samples = observe(tmp_path, {"filter": settings})
    mine = of(issued, comms)
    owners = expected.owner_names(mine, samples)
    compared = 0
    for name, counts in expected.counters(mine, owners):
        if not name.startswith(UNFILTERED):
            assert samples.nonzero(name) == counts, name
            compared += len(counts)
    assert bool(compared) == bool(comms)
    assert samples.get("hmm_exporter_books_balanced") == 1
    assert samples.get("hmm_exporter_map_entries", map="thread") == 0
