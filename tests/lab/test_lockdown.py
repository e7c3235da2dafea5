# SPDX-License-Identifier: Apache-2.0
"""Lockdown confidentiality: programs may not read the kernel's memory, also where a container does not see that."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab import guest
from tests.lab.conftest import booted, serving
from tests.lab.recipe import chosen

# What lies behind a second pointer is refused; the rest attaches by fentry, whose loads are typed.
DENIED = {"migrate_device_unmap", "migrate_device_pages"}


def test_what_need_not_be_read_is_counted_where_securityfs_does_not_tell(tmp_path: Path) -> None:
    with booted(tmp_path) as machine:
        if machine.run("test -e /sys/kernel/security/lockdown", check=False).status:
            pytest.skip(f"the lab's {chosen().kernel} is built without lockdown")
        machine.run("echo confidentiality > /sys/kernel/security/lockdown && umount /sys/kernel/security")
        with serving(machine, "auto") as exporter:
            before = exporter.scrape()
            assert guest.hmm_test(machine, "hmm.hmm_device_private.migrate").passed
            since = exporter.scrape().since(before)
    states = {dict(its)["probe"]: dict(its)["state"] for its in before.named("hmm_exporter_probe_info")}
    assert {probe for probe, state in states.items() if state == "denied"} == DENIED
    assert set(states.values()) <= {"attached", "absent", "denied"}
    assert since.sum("hmm_process_migrations_total", comm="hmm-tests") == since.sum("hmm_migrations_started_total") > 0
    assert since.sum("hmm_migrations_completed_total") > 0
    assert not [name for name in since.names() if name.startswith("hmm_migration_moved")]
