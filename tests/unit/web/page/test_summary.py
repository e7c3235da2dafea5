# SPDX-License-Identifier: Apache-2.0
"""The figures that come first, and when they alarm."""

from __future__ import annotations

import re

import pytest

from hmm_exporter.catalog import tables
from hmm_exporter.catalog.values import DEVICE_NONE, Class, Failure, Trigger
from hmm_exporter.report.snapshot import Snapshot, snapshot
from hmm_exporter.web.page.figures import Figures
from hmm_exporter.web.page.measures import BUSY, MOVED, REFUSED, THRASH, Share, Sum, ebusy
from tests.process import ROOT
from tests.unit.metrics.test_scrape import OPS, OWNER
from tests.unit.web.page.viewer import Page, Viewer

MIB = 1 << 20


def tile(page: Page, title: str) -> tuple[str, str]:
    """Value and note."""
    at = page.texts.index(title)
    return page.texts[at + 1], page.texts[at + 2]


def alarming(html: str) -> list[str]:
    return re.findall(r'class="tile alarming"[^>]*><h3>([^<]*)<', html)


def test_tiles_have_totals_first_and_then_rates(viewer: Viewer) -> None:
    viewer.migrate(migrations=10, moved=100 * MIB, returned=25 * MIB)
    page = viewer.look()
    assert tile(page, "Migrations") == ("10", "in all")
    assert tile(page, "Thrash") == ("25 %", "25 MiB · in all")
    viewer.migrate(migrations=5, moved=50 * MIB, returned=5 * MIB)
    page = viewer.look(after=10)
    assert tile(page, "Migrations") == ("0.5/s", "15 in all")
    assert tile(page, "Moved to devices") == ("5 MiB/s", "150 MiB in all")
    assert tile(page, "Thrash") == ("10 %", "512 KiB/s · 30 MiB in all")


def test_where_there_is_nothing_to_have_a_share_of_that_is_said(viewer: Viewer) -> None:
    viewer.migrate(moved=0)
    page = viewer.look()
    assert tile(page, "Thrash") == ("—", "nothing moved to a device")
    assert tile(page, "EBUSY") == ("—", "no range was walked")
    assert tile(page, "Refused migrations") == ("0 %", "none so far")
    assert tile(page, "CPU threads stalled") == ("0", "none so far")


def test_an_alarm_names_who_it_is_about(viewer: Viewer) -> None:
    viewer.look()
    viewer.migrate(moved=100 * MIB, returned=80 * MIB)
    viewer.walk(1000, raced=400, own_fault=200)
    assert alarming(viewer.html()) == []
    viewer.clock.seconds += 10
    html = viewer.html()
    assert alarming(html) == ["Thrash", "EBUSY"]
    assert tile(Page(html), "Thrash") == ("80 %", "0000:c1:00.0 80 %")
    assert tile(Page(html), "EBUSY") == ("60 %", "amdgpu 60 %")
    assert html.count('<tr class="alarming">') == 2


@pytest.mark.parametrize("share", [THRASH, REFUSED, BUSY, ebusy(Snapshot({}, {}))])
def test_what_alarms_is_what_the_alerts_have(share: Share) -> None:
    alerts = (ROOT / "deploy/prometheus/alerts.yaml").read_text()
    names = {
        THRASH.title: ("hmm_device:thrash:ratio_rate5m", "hmm_device:returned_bytes:rate5m"),
        REFUSED.title: ("hmm_instance:migration_failures:ratio_rate5m", "hmm_instance:migration_failures:rate5m"),
        BUSY.title: (
            'hmm_reason:unmoved_per_movable:ratio_rate5m{reason="busy"}',
            'hmm_reason:unmoved_bytes:rate5m{reason="busy"}',
        ),
        "EBUSY": ("hmm_driver:range_fault_ebusy:ratio_rate5m", "hmm_driver:range_fault_attempts:rate5m"),
    }
    ratio, rate = names[share.title]
    limits = {f"{share.rate:g}", f"{share.rate / MIB:g} * 2^20", "2^20" if share.rate == MIB else ""} - {""}
    assert f"{ratio} > {share.most:g}\n" in alerts
    assert any(f"{rate} > {limit}\n" in alerts for limit in limits)


def test_a_large_share_of_very_little_does_not_alarm(viewer: Viewer) -> None:
    viewer.look()
    viewer.migrate(moved=MIB, returned=MIB)
    viewer.clock.seconds += 10
    assert alarming(viewer.html()) == []


def test_what_is_busy_is_a_share_of_what_was_there_to_move(viewer: Viewer) -> None:
    key = (OWNER, Class.prefetch, Trigger.kthread, DEVICE_NONE)
    viewer.world.bpf.book(tables.MIGRATION, key, requested_bytes=100, not_selected_bytes=50, busy_bytes=10)
    assert tile(viewer.look(), "Left behind: busy")[0] == "20 %"


def test_where_walks_are_not_told_the_ebusy_of_calls_is(viewer: Viewer) -> None:
    viewer.walk(10)
    viewer.world.bpf.book(tables.FAILURE, (OPS, 16, Failure.range_fault, 0, 0), calls=5)
    families = [each for each in viewer.world.scrape.collect() if each.name != "hmm_range_fault_attempts"]
    now = snapshot(families)
    assert ebusy(now).values(Figures(now, now, 0).new, ("driver",)) == {("amdgpu",): 0.5}


def test_a_sum_has_the_unit_of_its_name() -> None:
    assert [Sum("", f"hmm_a_{each}_total").unit.value for each in ("bytes", "seconds", "calls")] == [
        "bytes",
        "seconds",
        "count",
    ]
    assert MOVED.help.startswith("hmm_migration_moved_bytes_total: Copied pages")
