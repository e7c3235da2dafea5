# SPDX-License-Identifier: Apache-2.0
"""What the page's colours have to be, by the Web Content Accessibility Guidelines 2.2."""

from __future__ import annotations

import re

import pytest

from hmm_exporter.web.page.style import STYLE

LIGHT, DARK = (dict(re.findall(r"--([a-z-]+): #([0-9a-f]+);", part)) for part in STYLE.split("@media")[:2])


def luminance(colour: str) -> float:
    """As the guidelines define it, of three or six hexadecimal digits."""
    digits = colour if len(colour) == 6 else "".join(digit * 2 for digit in colour)
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_bars_can_be_told_from_the_card_and_from_each_other(colours: dict[str, str]) -> None:
    assert contrast(colours["whole"], colours["card"]) >= 3
    assert contrast(colours["new"], colours["whole"]) >= 3


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_texts_can_be_read(colours: dict[str, str]) -> None:
    for text, ground in (("ink", "card"), ("soft", "card"), ("soft", "page"), ("link", "card"), ("new", "card")):
        assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
