# SPDX-License-Identifier: Apache-2.0
"""A viewer for each test, of an exporter with everything switched on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hmm_exporter.catalog.probes import GROUPS
from hmm_exporter.config import Config, Histograms, Probes
from tests.unit.bpf.in_memory import map_set
from tests.unit.metrics.test_scrape import World
from tests.unit.web.page.viewer import Viewer


@pytest.fixture
def viewer(tmp_path: Path) -> Iterator[Viewer]:
    groups = {group.name: True for group in GROUPS}
    config = Config(probes=Probes(groups=groups), histograms=Histograms(migration_phases=True))
    with map_set() as (bpf, maps):
        world = World(bpf, maps, tmp_path, config)
        yield Viewer(world)
        world.close()
