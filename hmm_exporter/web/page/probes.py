# SPDX-License-Identifier: Apache-2.0
"""What is attached and why not: in one word at the top, and as a table.

What the probes' states mean is decided where they are attached; here they are shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hmm_exporter.web.page.markup import Html, element, joined, name
from hmm_exporter.web.status import ProbeRow, Status

# A probe that was asked for and is not there is bad; one that this kernel has not, or that is
# switched off, is not.
_COLOURS = {"attached": "good", "denied": "bad", "error": "bad", "shed": "warn"}
_MOST_LACKING = 3
"""Probes that are named at the top: where a right is missing, it is for all of them."""


def now(status: Status, probes: Sequence[ProbeRow], problems: Sequence[str]) -> Html:
    """The state in one line, and a line for each problem."""
    states = Counter(probe.state for probe in probes)
    parts = [f"{count} {state}" for state, count in states.most_common()]
    said = [status.reason, "probes: " + ", ".join(parts) if parts else ""]
    if not status.ready:
        colour, word = "warn", "Not ready"
    elif not states["attached"]:
        colour, word = "bad", "Nothing attached"
    elif any(_COLOURS.get(state) in ("bad", "warn") for state in states):
        colour, word = "warn", "Ready, in part"
    elif problems:
        colour, word = "warn", "Ready, but"
    else:
        colour, word = "good", "Ready"
    text = "; ".join(part for part in said if part)
    lacking = [f"{probe.name}: {probe.state}: {probe.reason}" for probe in probes if _COLOURS.get(probe.state) == "bad"]
    if len(lacking) > _MOST_LACKING:
        lacking[_MOST_LACKING:] = [f"and {len(lacking) - _MOST_LACKING} more probes, see below"]
    items = [element("li", line) for line in (*lacking, *problems)]
    lines = element("ul", *items) if items else Html()
    return element("div", element("p", element("b", word), text), lines, class_=f"now {colour}")


def table(probes: Sequence[ProbeRow]) -> Html:
    if not probes:
        return element("p", "The probes have not been tried yet.", class_="soft")
    headings = (element("th", text, scope="col") for text in ("Probe", "Kind", "State", "Reason"))
    return element(
        "table",
        element("thead", element("tr", *headings)),
        element("tbody", *(_row(*probe) for probe in probes)),
        class_="probes",
    )


def _row(probe: str, function: str, kind: str, state: str, reason: str) -> Html:
    colour = _COLOURS.get(state, "none")
    # Most probes are called what the function is; saying it twice would hide the others.
    other = element("small", joined("on ", name(function))) if function not in ("", probe) else Html()
    return element(
        "tr",
        element("th", name(probe), other, scope="row"),
        element("td", kind if kind != "none" else "", class_="kind"),
        element("td", element("span", state, class_=f"state {colour}"), class_="mark"),
        element("td", reason, class_="reason"),
    )
