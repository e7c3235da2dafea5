# SPDX-License-Identifier: Apache-2.0
"""What can be said of a map of hmm-snoop.bt: which metrics of ours say the same, or better. The words of referee.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

HEADING = ("| map of the script | our metric | figure | why |", "|---|---|---|---|")
BY_OWNER = "Booked to the thread that works, a kworker at a GPU's fault; ours to the process that owns the memory."
EVENTS = "Of the histograms the number of events is compared: units and bounds are not the same."


class Verdict(Enum):
    """What became of a figure of the script."""

    same = "same"
    corrected = "corrected"
    not_shown = "not shown"


class Key(Enum):
    """What a map's keys are, as the document says of our metric."""

    none = ""
    class_ = " by class"
    order = " by order"
    owner = " by pgmap_owner"
    errno = " by errno"
    process = " by comm; by process id in `hmm-exporter report`"
    stack = " by caller; whole stacks in `hmm-exporter report`"

    @property
    def label(self) -> str:
        return self.value.removeprefix(" by ").partition(";")[0]


class Shows(Enum):
    """In which lab machines the difference of a corrected figure can be seen."""

    everywhere = "everywhere"
    since_7 = "7.3"
    nowhere = "nowhere"
    """No driver of the lab does it."""


@dataclass(frozen=True)
class Figure:
    """The sum of all samples of this name that have these labels; of a histogram, its _count."""

    sample: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        labels = ",".join(f'{name}="{value}"' for name, value in self.labels.items())
        return f"`{self.sample.removesuffix('_count')}{f'{{{labels}}}' if labels else ''}`"


@dataclass(frozen=True)
class Row:
    """A map of the script, and what says the same, or says it better."""

    script: str
    verdict: Verdict
    ours: tuple[Figure, ...]
    why: str
    key: Key = Key.none
    counts: tuple[Figure, ...] = ()
    """What the script's figure is in our terms, added up, where it is not `ours`."""
    shows: Shows = Shows.everywhere
    times: int = 1
    """How often the script counts one of ours."""
    limit: int = 0
    """Of a table of processes the script prints so many rows: the largest."""
    own_test: bool = False
    """Other figures have to be compared than these sums: by a test of its own."""

    @property
    def scripts_figures(self) -> tuple[Figure, ...]:
        return self.counts or self.ours

    def __str__(self) -> str:
        """The line of the document."""
        ours = ", ".join(str(each) for each in self.ours) + self.key.value if self.ours else "none"
        return f"| `@{self.script}` | {ours} | {self.verdict.value} | {self.why} |"


def figure(sample: str, **labels: str) -> Figure:
    """With a label called class as class_."""
    return Figure(sample, {name.removesuffix("_"): value for name, value in labels.items()})


def same(script: str, sample: str, why: str, key: Key = Key.none, **labels: str) -> Row:
    return Row(script, Verdict.same, (figure(sample, **labels),), why, key)
