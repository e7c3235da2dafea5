# SPDX-License-Identifier: Apache-2.0
"""The same machine as for tests/bpf."""

from tests.bpf.conftest import machine

__all__ = ["machine"]
