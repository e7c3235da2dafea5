# SPDX-License-Identifier: Apache-2.0
"""`make soak`: a daemon under all that the simulator can do, for as long as wanted: does it grow, does it lose events?

Scrapes each second, in turns as text and as OpenMetrics, asks for the page at / and reloads now and then, one time in
three a file that must be refused. Ends with a line that is the verdict; the exit status is 1 if anything grew, was
lost or went wrong.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import itertools
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.process import ROOT, Exporter
from tests.soak import plot
from tests.soak.load import METRICS, Load
from tests.soak.sample import FORMATS, Sample, Watcher
from tests.soak.verdict import growth, judged, latencies, lost

FOLDER = ROOT / "build/soak"
LEAST_SECONDS = 60
RELOAD_TURNS, LOOK_TURNS = 20, 15
#: With rows that end while it lasts, and whatever it takes: what is shed counts nothing.
CONFIGURATION = {"kubernetes": {"enabled": True}, "limits": {"idle_ttl": "60s", "cpu": 0}}
#: In turn. What is refused leaves all as it was.
RELOADED: Sequence[tuple[Mapping[str, Any], bool]] = (
    ({**CONFIGURATION, "limits": {"idle_ttl": "90s", "series": 9000, "cpu": 0}, "log": {"level": "warning"}}, True),
    ({**CONFIGURATION, "limits": {"idle_ttl": "soon"}}, False),
    (CONFIGURATION, True),
)
_DURATION = re.compile(r"(\d+)(s|m|h)")
_UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass
class Record:
    """What there is to tell in the end."""

    samples: list[Sample] = field(default_factory=list)
    reloads: list[float] = field(default_factory=list)
    """Seconds since the start."""
    problems: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("duration", type=_seconds, help=f"such as 90s, 20m or 8h; at least {LEAST_SECONDS}s")
    seconds: int = parser.parse_args().duration
    FOLDER.mkdir(parents=True, exist_ok=True)
    record = Record()
    with tempfile.TemporaryDirectory() as folder, Exporter(Path(folder), CONFIGURATION) as exporter:
        watcher = Watcher(exporter.url, exporter.process.pid)
        watcher.sample("text")
        with Load() as load:
            _watch(exporter, watcher, seconds, record)
            load.stop()
        if exporter.process.poll() is None:
            record.samples.append(watcher.sample("text"))
            if watcher.gauge("hmm_exporter_books_balanced") != 1:
                record.problems.append("the books do not balance")
            if exporter.stop() != 0:
                record.problems.append("it did not end with status 0")
    return _conclude(record, load, lost(load.issued, watcher.counted, METRICS))


def _seconds(text: str) -> int:
    parts = _DURATION.fullmatch(text)
    seconds = int(parts[1]) * _UNITS[parts[2]] if parts else 0
    if seconds < LEAST_SECONDS:
        raise argparse.ArgumentTypeError(f"a duration such as 90s, 20m or 8h, of {LEAST_SECONDS}s or more, not {text}")
    return seconds


def _watch(exporter: Exporter, watcher: Watcher, seconds: int, record: Record) -> None:
    formats, settings = itertools.cycle(FORMATS), itertools.cycle(RELOADED)
    started = due = time.monotonic()
    expected = True
    for turn in itertools.count(1):
        try:
            record.samples.append(watcher.sample(next(formats)))
            if turn % LOOK_TURNS == 0 and "<h2>Processes</h2>" not in watcher.look():
                record.problems.append(f"after {due - started:.0f} s the page had no processes")
        except OSError as error:
            record.problems.append(f"after {due - started:.0f} s a scrape failed: {error}")
        if exporter.process.poll() is not None:
            record.problems.append(f"the exporter ended: {exporter.log.splitlines()[-1]}")
            return
        if turn % RELOAD_TURNS == 0:
            if _reloaded(watcher) != expected:
                record.problems.append(f"after {due - started:.0f} s a reload had ended otherwise than it must")
            configuration, expected = next(settings)
            exporter.reload(configuration)
            record.reloads.append(due - started)
        # A turn that took longer than a second is not made up for.
        due = max(due + 1, time.monotonic())
        if due >= started + seconds:
            return
        time.sleep(max(due - time.monotonic(), 0))


def _reloaded(watcher: Watcher) -> bool:
    return watcher.gauge("hmm_exporter_config_last_reload_successful") == 1


def _conclude(record: Record, load: Load, lost: Mapping[str, int]) -> int:
    """Writes what there is to keep, and prints the verdict; the exit status."""
    samples, problems = record.samples, record.problems
    with (FOLDER / "soak.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [each.name for each in dataclasses.fields(Sample)])
        writer.writeheader()
        writer.writerows(dataclasses.asdict(sample) for sample in samples)
    settled = judged(samples)
    growths = list(growth(settled))
    for each in growths:
        if each.too_much:
            problems.append(f"{each.name} grew by {each.gained:.0f}, {each.allowed:.0f} allowed")
    problems += [f"no {kind} were issued" for kind in METRICS if not load.issued[kind]]
    problems += [f"{name} is off by {difference} events" for name, difference in lost.items()]
    events = sum(load.issued.values())
    parts = (
        f"soak {'FAILED' if problems else 'PASSED'}: {samples[-1].seconds / 60:.1f} min, {events} events,"
        f" {load.processes} short processes, {len(record.reloads)} reloads",
        "growth " + ", ".join(map(str, growths)),
        "scrape " + ", ".join(latencies(settled)),
        f"lost events: {sum(map(abs, lost.values()))}",
    )
    plot.draw(samples, settled[0].seconds, record.reloads, "; ".join(parts), FOLDER)
    for problem in problems:
        print(problem)
    print(f"{FOLDER.relative_to(ROOT)}: soak.svg, soak.png, soak.csv")
    print("; ".join(parts))
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
