# SPDX-License-Identifier: Apache-2.0
"""What is text stays text, whatever a name contains."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmm_exporter.web.page.markup import element, joined, name, visible
from tests.unit.web.page.viewer import Page


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("<script>", "&lt;script&gt;"),
        ("a&amp;'\"", "a&amp;amp;&#x27;&quot;"),
        ("\x1b[31m\x00\n", r"\x1b[31m\x00\n"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("\u2066\u200b\ufeff", r"\u2066\u200b\ufeff"),
        ("\udcff", r"\udcff"),
        ("größer 深い", "größer 深い"),
        ("עברית", "עברית"),
    ],
)
def test_a_name_is_escaped_seen_and_turns_nothing_around_it(text: str, written: str) -> None:
    assert name(text) == f"<bdi>{written}</bdi>"


@given(st.text(st.characters()), st.text(st.characters()))
def test_no_text_makes_a_tag_an_attribute_or_an_entity(text: str, value: str) -> None:
    page = Page(element("p", text, element("b", text), title=value))
    assert page.tags == ["p", "b"]
    assert page.attributes == [("title", visible(value))]
    assert "".join(page.text.split()) == "".join((visible(text) * 2).split())


def test_an_attribute_that_is_none_is_left_out_and_a_number_is_short() -> None:
    assert element("rect", class_=None, x=1.0, text_anchor="end", viewBox="0 0 1 1") == (
        '<rect x="1" text-anchor="end" viewBox="0 0 1 1"></rect>'
    )


def test_what_is_html_is_not_escaped_twice() -> None:
    assert joined(element("i", "<"), "<") == "<i>&lt;</i>&lt;"
