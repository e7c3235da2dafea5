# SPDX-License-Identifier: Apache-2.0
"""Functions of the C library that Python does not offer, with errors as Python's own have them."""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object) -> int:
    """Its result, an int. Raises OSError with errno where that is below 0."""
    result: int = getattr(_libc, name)(*arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
