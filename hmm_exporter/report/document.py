# SPDX-License-Identifier: Apache-2.0
"""A report for machines: one JSON document in one line, with exact figures.

A metric that is in it without samples has counted nothing; one that is not was not watched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hmm_exporter.report.pages import Subject
from hmm_exporter.report.snapshot import Distribution, Labels, Number, Snapshot
from hmm_exporter.report.stacks import Stack

FORMAT = "hmm-exporter report 1"


def document(
    now: Snapshot, stacks: Sequence[Stack], elapsed: float, status: int | None, subject: Subject, final: bool
) -> str:
    """``final`` is false for what --interval asked for; figures are since the start all the same."""
    parts = {f"{name}_{part}" for name in now.histograms for part in ("sum", "count")}
    return json.dumps(
        {
            "format": FORMAT,
            "version": subject.version,
            "final": final,
            "kernel": subject.kernel,
            "elapsed_seconds": round(elapsed, 3),
            "filter": {"pids": subject.pids, "comms": subject.comms},
            "command": _command(status, subject),
            "probes": [
                {
                    "probe": outcome.probe.name,
                    "function": outcome.function,
                    "kind": outcome.kind,
                    "state": outcome.state,
                    "reason": outcome.reason,
                }
                for outcome in subject.outcomes
            ],
            "metrics": {name: _samples(values) for name, values in now.counters.items() if name not in parts},
            "histograms": {name: _histograms(each) for name, each in now.histograms.items()},
            "ebusy_stacks": [
                {
                    "driver": stack.driver,
                    "function": stack.function,
                    "calls": stack.calls,
                    "frames": [
                        {"symbol": frame.name, "offset": frame.offset, "module": frame.module} for frame in stack.frames
                    ],
                }
                for stack in stacks
            ],
        }
    )


def _command(status: int | None, subject: Subject) -> Mapping[str, Any] | None:
    if not subject.command:
        return None
    return {"arguments": subject.command, "pid": subject.command_pid, "exit_status": status}


def _samples(values: Mapping[Labels, Number]) -> list[Mapping[str, Any]]:
    return [{"labels": dict(labels), "value": value} for labels, value in values.items()]


def _histograms(found: Mapping[Labels, Distribution]) -> list[Mapping[str, Any]]:
    """Buckets by their upper bound, inclusive; not cumulative."""
    return [
        {
            "labels": dict(labels),
            "buckets": dict(zip(its.bounds, its.counts)),
            "sum": its.sum,
            "count": its.count,
        }
        for labels, its in found.items()
    ]
