# SPDX-License-Identifier: Apache-2.0
"""Who is shown, in which order, and what they may be called."""

from __future__ import annotations

from collections.abc import Sequence
from html.parser import HTMLParser

import pytest

from hmm_exporter.catalog import tables
from hmm_exporter.web.page.markup import visible
from tests.unit.metrics.exposed import comm
from tests.unit.metrics.test_scrape import OPS
from tests.unit.web.page.viewer import Page, Viewer

HOSTILE = ("<script>x</scri", "\"'><b>&amp;", "\x1b[31m\r\n", "\u202eexe.txt", "</td></table>", "עברית", "=1+1")


class Rows(HTMLParser):
    """The rows of the tables of one class, as texts of cells."""

    def __init__(self, html: str, class_: str) -> None:
        super().__init__()
        self._class, self._inside, self._cell = class_, False, False
        self.rows: list[list[str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        if tag == "table":
            self._inside = self._class in (dict(attrs)["class"] or "").split()
        if self._inside and tag == "tr":
            self.rows.append([])
        if self._inside and tag in ("td", "th"):
            self.rows[-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._inside and self._cell:
            self.rows[-1][-1] += f" {data}" if self.rows[-1][-1] else data


def processes(viewer: Viewer, query: str = "") -> list[str]:
    return [row[0] for row in Rows(viewer.html(query), "processes").rows[1:]]


def test_whoever_migrates_most_since_the_last_look_is_first(viewer: Viewer) -> None:
    viewer.migrate(100, comm=comm("past"))
    viewer.migrate(1, comm=comm("idle"))
    assert processes(viewer) == ["past", "idle"]
    viewer.migrate(2, comm=comm("present"))
    viewer.clock.seconds += 10
    assert processes(viewer) == ["present", "past", "idle"], "who stands still follows, by what there was"


def test_the_address_says_which_column_comes_first(viewer: Viewer) -> None:
    viewer.migrate(100, returned=1, comm=comm("busy"))
    viewer.migrate(1, returned=50, comm=comm("thrasher"))
    viewer.world.bpf.book(tables.PROCESS, (comm("mirror"),), range_faults=7)
    assert processes(viewer) == ["busy", "thrasher", "mirror"]
    assert processes(viewer, "top=thrash") == ["thrasher", "busy", "mirror"]
    assert processes(viewer, "top=faults") == ["mirror", "busy", "thrasher"]
    assert processes(viewer, "top=nonsense") == ["busy", "thrasher", "mirror"]
    assert "?top=stall&refresh=10" in viewer.look("refresh=10").links


def test_ten_processes_are_shown_and_how_many_there_are_besides(viewer: Viewer) -> None:
    for number in range(13):
        viewer.migrate(number + 1, comm=comm(f"p{number}"))
    assert processes(viewer) == [f"p{number}" for number in range(12, 2, -1)]
    assert "and 3 more" in viewer.look().texts


@pytest.mark.parametrize("called", HOSTILE)
def test_a_process_may_be_called_anything(viewer: Viewer, called: str) -> None:
    viewer.migrate(comm=comm(called))
    html = viewer.html()
    page = Page(html)
    assert [name for (name,) in (row[:1] for row in Rows(html, "processes").rows[1:])] == [visible(called)]
    assert not {"script", "b"} & set(page.tags[: page.tags.index("main")])
    assert "script" not in page.tags
    assert all(char.isprintable() for char in html.replace("\n", "").replace("\xa0", ""))


def test_bytes_that_are_no_text_are_seen(viewer: Viewer) -> None:
    viewer.migrate(comm=b"a\xff\xfe".ljust(24, b"\0"))
    assert processes(viewer) == [r"a\xff\xfe"]


def test_a_driver_has_its_ebusy_ratio_and_the_reasons(viewer: Viewer) -> None:
    viewer.walk(100, raced=20, own_fault=5)
    assert Rows(viewer.html(), "drivers").rows == [
        ["Driver", "EBUSY", "Walks", "Raced", "Own fault"],
        ["amdgpu", "25\xa0%", "100", "20", "5"],
    ]


def test_a_lock_that_was_dropped_is_shown_where_there_are_any_and_is_not_in_the_ratio(viewer: Viewer) -> None:
    viewer.walk(100, raced=20)
    viewer.world.bpf.book(tables.RANGE_ATTEMPT, (OPS,), lock_dropped=40)
    heading, row = Rows(viewer.html(), "drivers").rows
    assert (heading[-1], row[1], row[-1]) == ("Lock dropped", "20\xa0%", "40")


def test_callers_that_met_ebusy_are_named_with_their_driver(viewer: Viewer) -> None:
    viewer.walk(10, raced=3)
    viewer.world.bpf.keep_stack(7, 0xFFFFFFFF81210123, 0xFFFFFFFFC0101010)
    viewer.world.bpf.book(tables.EBUSY, (OPS, 7, 0), calls=3)
    assert ["svm_range_restore_pages amdgpu", "3"] in Rows(viewer.html(), "figures").rows


def test_where_nothing_happened_yet_that_is_said(viewer: Viewer) -> None:
    texts = viewer.look().texts
    assert "No process has used HMM yet." in texts
    assert "Nobody has met EBUSY yet." in texts
    assert any(text.startswith("Nothing observed yet: Migration duration") for text in texts)
