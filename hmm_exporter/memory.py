# SPDX-License-Identifier: Apache-2.0
"""What the C library and the collector hold on to, given back."""

from __future__ import annotations

import ctypes
import gc


def trim() -> None:
    """After reading BTF and compiling: for months, what that took would stay in malloc's lists."""
    gc.collect()
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; musl has none
    if malloc_trim:
        malloc_trim(0)
