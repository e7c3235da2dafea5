# SPDX-License-Identifier: Apache-2.0
"""How many files the process may have open: asked for at the start, not found missing later."""

from __future__ import annotations

import resource

from hmm_exporter.errors import StartError

# Programs, links and maps are some hundred with the default groups, more with all, and for a moment while a reload
# attaches; connections take up to 256 more (web.server). What was then not attached, or not answered, would look like a
# fault.
NEEDED = 768


def allow() -> None:
    """Raise the soft limit as far as needed. Raises StartError where the hard one forbids it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= NEEDED or soft == resource.RLIM_INFINITY:
        return
    if hard < NEEDED and hard != resource.RLIM_INFINITY:
        raise StartError(f"only {hard} files may be open (RLIMIT_NOFILE, systemd's LimitNOFILE): {NEEDED} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (NEEDED, hard))
