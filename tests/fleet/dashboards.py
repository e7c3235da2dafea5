# SPDX-License-Identifier: Apache-2.0
"""The dashboards as Grafana reads them: files, panels, and queries with the variables replaced.

Belongs here: what Grafana would do with a file before it asks Prometheus. Does not belong here: which answers are good.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fleet.simulated import FIRST
from tests.process import ROOT

FOLDER = ROOT / "dashboards/grafana"
Json = dict[str, Any]

#: A data link's, which Grafana fills in from the value that was clicked.
IN_LINKS = re.compile(r"\$\{__(field\.labels\.\w+|data\.fields\.\w+|value\.text|url_time_range)\}")


@dataclass(frozen=True)
class Panel:
    uid: str
    """The dashboard's."""
    json: Json

    @property
    def title(self) -> str:
        title: str = self.json["title"]
        return title

    @property
    def name(self) -> str:
        """Among all panels of all dashboards."""
        return f"{self.uid}: {self.title}"

    @property
    def targets(self) -> list[Json]:
        targets: list[Json] = self.json["targets"]
        return targets


def files() -> list[Path]:
    return sorted(FOLDER.glob("*.json"))


def load(file: Path) -> Json:
    dashboard: Json = json.loads(file.read_text())
    return dashboard


def panels(dashboard: Json) -> Iterator[Panel]:
    """Without the rows' headings."""
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            yield Panel(dashboard["uid"], panel)


def variables(dashboard: Json) -> dict[str, Json]:
    return {variable["name"]: variable for variable in dashboard["templating"]["list"]}


def everything_chosen(dashboard: Json, rate_interval: str, shown: str) -> dict[str, str]:
    """The variables' values when each is All, or the first node where one is chosen, and Grafana's own."""
    chosen = {name: variable.get("allValue", FIRST) for name, variable in variables(dashboard).items()}
    return chosen | {"__rate_interval": rate_interval, "__range": shown}


def filled_in(text: str, values: Mapping[str, str]) -> str:
    """Raises KeyError for a variable that the dashboard does not have: Grafana would leave it as it stands."""
    return re.sub(r"\$(\w+)|\$\{(\w+)\}", lambda found: values[found[1] or found[2]], text)
