# SPDX-License-Identifier: Apache-2.0
"""What is drawn for people to look at: every panel, from range queries, which the dashboards' own tests do not ask."""

from __future__ import annotations

import html
import re

import pytest

from tests.fleet.dashboards import Panel, files, load, panels
from tests.fleet.pictures import Page
from tests.fleet.simulated import Fleet
from tests.fleet.test_dashboards import EMPTY, SELDOM


@pytest.mark.parametrize("uid", [file.stem for file in files()])
def test_every_panel_is_drawn_and_has_data(fleet: Fleet, uid: str) -> None:
    dashboard = next(load(file) for file in files() if file.stem == uid)
    page, _ = Page(dashboard, fleet.servers["sid"], fleet.started, fleet.ended).html()
    drawn = re.split(r'<div class="panel"[^>]*><h2>', page)[1:]
    assert len(drawn) == len(list(panels(dashboard)))
    empty = {
        panel.name for panel, each in zip(panels(dashboard), drawn) if f">{html.escape(_of_nothing(panel))}<" in each
    }
    assert empty - {name for name, _ in SELDOM} == {
        panel.name for panel in panels(dashboard) if (panel.name, "A") in EMPTY
    }


def _of_nothing(panel: Panel) -> str:
    said: str = panel.json["fieldConfig"]["defaults"].get("noValue", "No data")
    return said
