# SPDX-License-Identifier: Apache-2.0
"""A picture of a soak: one strip a subject, the warm-up in grey, reloads as ticks."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from tests.soak.sample import FORMATS, Sample
from tests.soak.verdict import MIB

COLOURS = ("#0b6e99", "#c8553d", "#588157", "#6d597a")


def draw(samples: Sequence[Sample], warm_up: float, reloads: Sequence[float], title: str, folder: Path) -> None:
    """Writes soak.svg and soak.png."""
    minutes = samples[-1].seconds >= 300
    scale = 60.0 if minutes else 1.0
    strips: list[tuple[str, Callable[[Axes], None]]] = [
        ("memory, MiB", lambda axes: _lines(axes, samples, scale, {"rss": MIB, "anonymous": MIB, "helper": MIB})),
        ("fds, threads", lambda axes: _lines(axes, samples, scale, {"fds": 1, "threads": 1})),
        ("map entries", lambda axes: _lines(axes, samples, scale, {"entries": 1})),
        ("series", lambda axes: _lines(axes, samples, scale, {"series": 1})),
        ("scrape, ms", lambda axes: _latencies(axes, samples, scale)),
        ("events/s", lambda axes: _rate(axes, samples, scale)),
    ]
    figure, rows = plt.subplots(len(strips), 1, sharex=True, figsize=(10, 1.7 * len(strips) + 0.8))
    for axes, (name, strip) in zip(rows, strips):
        strip(axes)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(name, fontsize=9)
        axes.axvspan(0, warm_up / scale, color="#00000010", linewidth=0)
        axes.tick_params(labelsize=8)
        axes.grid(axis="y", color="#00000018", linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        if len(axes.get_legend_handles_labels()[0]) > 1:
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
    for at in reloads:
        rows[-1].axvline(at / scale, ymax=0.06, color="black", linewidth=1)
    rows[-1].set_xlabel("minutes" if minutes else "seconds", fontsize=9)
    rows[-1].set_xlim(0, samples[-1].seconds / scale)
    rows[0].set_title("\n".join(textwrap.wrap(title, 130)), fontsize=9, loc="left")
    figure.align_ylabels()
    figure.tight_layout()
    figure.savefig(folder / "soak.svg")
    figure.savefig(folder / "soak.png", dpi=110)
    plt.close(figure)


def _lines(axes: Axes, samples: Sequence[Sample], scale: float, fields: dict[str, int]) -> None:
    for colour, (name, unit) in zip(COLOURS, fields.items()):
        values = [getattr(sample, name) / unit for sample in samples]
        axes.plot([sample.seconds / scale for sample in samples], values, color=colour, linewidth=1.2, label=name)


def _latencies(axes: Axes, samples: Sequence[Sample], scale: float) -> None:
    for colour, format in zip(COLOURS, FORMATS):
        its = [sample for sample in samples if sample.format == format]
        seconds, values = [each.seconds / scale for each in its], [each.latency * 1000 for each in its]
        axes.plot(seconds, values, ".", color=colour, markersize=3, label=format)


def _rate(axes: Axes, samples: Sequence[Sample], scale: float) -> None:
    """Over ten samples: a simulator's run of short processes is shorter than that."""
    pairs = list(zip(samples, samples[10:]))
    rates = [(after.events - before.events) / (after.seconds - before.seconds) for before, after in pairs]
    axes.plot([after.seconds / scale for _, after in pairs], rates, color=COLOURS[0], linewidth=1.2)
