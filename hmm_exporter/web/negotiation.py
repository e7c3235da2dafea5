# SPDX-License-Identifier: Apache-2.0
"""Content negotiation: which format and which encoding a client asks for (RFC 9110, section 12.5).

prometheus_client looks at the order of Accept and not at its q-values, so that a client which
prefers text is sent OpenMetrics; that is why this is here. Rendering does not belong here.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping

# An element's name, its parameters without q, and its q.
_Element = tuple[str, Mapping[str, str], float]

_WEIGHT = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")


class Format(enum.Enum):
    """What a scrape can be answered with; the value is its Content-Type.

    The first of those that a client likes equally well is sent. Metric and label names are plain
    ASCII here, so that no ``escaping`` parameter changes anything.
    """

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
    # The same page: Prometheus 2.5 to 2.34 ask for it by this version only.
    OPENMETRICS_0 = "application/openmetrics-text; version=0.0.1; charset=utf-8"


def choose_format(accept: str | None) -> Format:
    """The format that an Accept header prefers.

    Text where there is no header or nothing fits it: a page that a person can read says more than
    status 406.
    """
    if not accept:
        return Format.TEXT
    wanted = list(_elements(accept))
    rated = [(_rating(wanted, form), form) for form in Format]
    (quality, _), best = max(rated, key=lambda pair: pair[0])  # max keeps the first of equals
    return best if quality > 0 else Format.TEXT


def accepts_gzip(accept_encoding: str | None) -> bool:
    """Whether an Accept-Encoding header allows gzip, and does not prefer the page as it is."""
    if not accept_encoding:
        return False
    wanted = {name: quality for name, _, quality in _elements(accept_encoding)}
    gzip = wanted.get("gzip", wanted.get("x-gzip", wanted.get("*", 0.0)))
    return gzip > 0 and gzip >= wanted.get("identity", 0.0)


def _rating(wanted: list[_Element], form: Format) -> tuple[float, int]:
    """How well *form* is liked: by the most specific range that matches it, which counts alone."""
    ((name, offered, _),) = _elements(form.value)
    best = (0, 0.0)
    for media_range, given, quality in wanted:
        if media_range == name and given.get("version", offered["version"]) == offered["version"]:
            best = max(best, (4 if "version" in given else 3, quality))
        elif media_range == name.partition("/")[0] + "/*":
            best = max(best, (2, quality))
        elif media_range == "*/*":
            best = max(best, (1, quality))
    specificity, quality = best
    return quality, specificity


def _elements(header: str) -> Iterator[_Element]:
    """The elements of a list in a header.

    Commas and semicolons inside quotes are not told from others: no format or encoding has them.
    """
    for element in header.split(","):
        name, *rest = element.split(";")
        parameters = {}
        for parameter in rest:
            key, _, value = parameter.partition("=")
            parameters[key.strip().lower()] = value.strip().strip('"')
        weight = parameters.pop("q", "1")
        # What is not a weight is no wish at all: 0 keeps such an element from winning.
        yield name.strip().lower(), parameters, float(weight) if _WEIGHT.fullmatch(weight) else 0.0
