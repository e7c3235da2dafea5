# SPDX-License-Identifier: Apache-2.0
"""What the tests of this folder share: a kernel that attaches, and time for properties.

On a busy machine a deadline says nothing about the code.
"""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from hmm_exporter.bpf import attach as attach_module
from hmm_exporter.bpf import syscall
from tests.unit.bpf.tracing import Tracing

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture
def tracing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracing]:
    """A kernel; nothing may stay open in it when the test is over."""
    made = Tracing()
    before = os.listdir("/proc/self/fd")
    with made.bpf.installed():
        for name in ("prog_load", "prog_test_run", "raw_tracepoint_open", "probe_open", "kprobe_multi_open"):
            monkeypatch.setattr(syscall, name, getattr(made, name))
        monkeypatch.setattr(attach_module, "compile_source", made.compile_source)
        yield made
    assert os.listdir("/proc/self/fd") == before
