# SPDX-License-Identifier: Apache-2.0
"""Which kernel modules use which: /proc/modules, without its addresses."""

from __future__ import annotations

from pathlib import Path

MODULES = Path("/proc/modules")


def users(module: str, path: Path = MODULES) -> tuple[str, ...]:
    """Modules that use ``module``, from ``drm_gpusvm_helper 61440 1 xe, Live 0x0000000000000000``."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return ()
    for line in lines:
        fields = line.split()
        if len(fields) > 3 and fields[0] == module:
            return tuple(user for user in fields[3].split(",") if user not in ("", "-", "[permanent]"))
    return ()
