# SPDX-License-Identifier: Apache-2.0
"""Takes from a thread all that serving does not need, for good: what, in which order, and what became of it.

All of this is by thread, and a thread that is started later has what the one had that started it. So the thread
that accepts connections gives up its rights before it listens to anybody, and the main thread its own once the
probes are attached; every other thread is started by one of them after that. How each part is done is its own module's.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hmm_exporter import capabilities
from hmm_exporter.confinement import landlock, seccomp
from hmm_exporter.kernel import features


@dataclass(frozen=True)
class Part:
    """One thing that was given up, or was not."""

    name: str
    problem: str
    """Why it was not, in a few words; empty if it was."""


def confine() -> Sequence[Part]:
    """Take them from the calling thread. Never raises: a kernel without Landlock is no reason not to serve."""
    parts: Sequence[tuple[str, Callable[[], None]]] = (
        # First: without them, seccomp and Landlock want it.
        ("no_new_privs", capabilities.gain_no_more),
        ("capabilities", _have_none),
        ("landlock", landlock.write_no_file),
        ("seccomp", seccomp.only_serve),
    )
    return [Part(name, _problem(give_up)) for name, give_up in parts]


def _have_none() -> None:
    if features.maps_need_privilege():
        capabilities.keep_only(capabilities.CAP_BPF)
        raise OSError(errno.EPERM, "all but CAP_BPF, with which alone this kernel lets maps be read")
    capabilities.keep_only()


def _problem(give_up: Callable[[], None]) -> str:
    try:
        give_up()
    except OSError as error:
        return error.strerror or str(error)
    return ""
