# SPDX-License-Identifier: Apache-2.0
"""HTML by construction: whatever is not made here is text, and is escaped.

Names come from user space: a command can be called anything. What would not be seen, or would turn the text around it,
is written as an escape sequence. What is said on the page does not belong here.
"""

from __future__ import annotations

from html import escape

NO_BREAK = "\xa0"
_VOID = frozenset({"link", "meta"})


class Html(str):
    """Text that is HTML already."""


def element(tag: str, *children: str, **attributes: str | float | None) -> Html:
    """``class_`` is class, ``aria_label`` aria-label, viewBox itself; an attribute that is None is left out."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_attribute(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Html(f"<{tag}{written}>" + ("" if tag in _VOID else f"{joined(*children)}</{tag}>"))


def joined(*children: str) -> Html:
    return Html("".join(child if isinstance(child, Html) else escape(visible(child)) for child in children))


def name(text: str) -> Html:
    """A name from elsewhere: its direction of writing ends with it."""
    return element("bdi", text or "(none)")


def visible(text: str) -> str:
    r"""Control characters, marks of direction and lone surrogates as ``\x1b``, ``\u202e``, ``\udcff``."""
    return "".join(
        char if char.isprintable() or char == NO_BREAK else char.encode("unicode_escape").decode() for char in text
    )


def _attribute(value: str | float) -> str:
    return escape(visible(value)) if isinstance(value, str) else f"{value:g}"
