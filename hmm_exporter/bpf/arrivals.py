# SPDX-License-Identifier: Apache-2.0
"""The two maps of regions that arrived on a device (``program/arrival.c``): counted by age, thinned out.

They may have a million entries: neither call keeps more than a part of them in memory. Which age is too old is
``metrics.idle``'s to say. Times are CLOCK_MONOTONIC, ns.
"""

from __future__ import annotations

import contextlib
import struct
from bisect import bisect_right
from collections.abc import Mapping, Sequence

from hmm_exporter.bpf import syscall

MAPS = ("arrival_map", "resident_map")
ENTRY = 16, 8
"""Bytes of key and value."""
_CHUNK = 1024


def arrived_since(fds: Mapping[str, int], times: Sequence[int]) -> list[int]:
    """How many regions arrived at each of these times, which ascend, or later."""
    between = [0] * (len(times) + 1)
    for _, packed in syscall.map_lookup_batch(fds[MAPS[0]], *ENTRY, _CHUNK):
        for (since,) in struct.iter_unpack("<Q", packed):
            between[bisect_right(times, since)] += 1
    return [sum(between[at + 1 :]) for at in range(len(times))]


def forget(fds: Mapping[str, int], before: int, most: int) -> int:
    """Remove regions that arrived before that time; how many were, ``most`` of them at most."""
    forgotten = 0
    for keys, packed in syscall.map_lookup_batch(fds[MAPS[0]], *ENTRY, _CHUNK):
        for at, (since,) in enumerate(struct.iter_unpack("<Q", packed)):
            if since >= before:
                continue
            if forgotten == most:
                return forgotten
            forgotten += 1
            for name in MAPS:
                with contextlib.suppress(OSError):  # came back, or arrived anew, in between
                    syscall.map_delete(fds[name], keys[16 * at : 16 * at + 16])
    return forgotten
