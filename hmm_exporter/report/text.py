# SPDX-License-Identifier: Apache-2.0
"""Sections as lines of text, none of them longer than the width.

What is said is ``report.sections``'; a histogram is ``report.drawing``'s.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hmm_exporter.kernel.symbols import Symbol
from hmm_exporter.report import drawing
from hmm_exporter.report.blocks import Block, Column, Drawing, Section, StackList, Table
from hmm_exporter.report.snapshot import Number, Snapshot
from hmm_exporter.report.stacks import Stack
from hmm_exporter.report.terminal import Style
from hmm_exporter.report.units import Unit, figure

_INDENT = "  "
_GAP = 2
_NARROWEST_LABEL = 7


@dataclass(frozen=True)
class Page:
    """What a section is written on."""

    width: int
    style: Style


def heading(title: str, page: Page) -> str:
    """A line across the page."""
    title = cut(title, page.width - 8)
    return page.style.heading(f"---- {title} {'-' * (page.width - len(title) - 6)}")


def section(its: Section, now: Snapshot, stacks: Sequence[Stack], page: Page) -> list[str]:
    """Empty if nothing of it has counted anything. A block begins with an empty line."""
    lines = [line for block in its.blocks for line in _block(block, now, stacks, page)]
    if not lines:
        return []
    note = [_INDENT + page.style.faint(line) for line in wrapped(its.note, page.width - len(_INDENT))]
    return ["", heading(its.title, page), *note, *lines]


def wrapped(text: str, width: int) -> list[str]:
    """A no-break space holds a figure and its unit together."""
    lines = textwrap.wrap(text, width, break_on_hyphens=False)
    return [_printable(line.replace("\xa0", " ")) for line in lines]


def cut(text: str, width: int) -> str:
    """No more than ``width`` characters, all of them printable."""
    text = _printable(text)
    if len(text) <= width:
        return text
    # Names are told apart by their ends as often as by their beginnings.
    end = (width - 2) // 2
    return f"{text[: width - 2 - end]}..{text[-end:]}" if end > 0 else text[:width]


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


def _block(block: Block, now: Snapshot, stacks: Sequence[Stack], page: Page) -> Iterator[str]:
    if isinstance(block, Table):
        return _table(block, now, page)
    if isinstance(block, Drawing):
        return _drawing(block, now, page)
    return _stacks(block, stacks, page)


def _title(text: str, page: Page) -> Iterator[str]:
    yield ""
    if text:
        yield from (_INDENT + line for line in wrapped(text, page.width - len(_INDENT)))


def _drawing(block: Drawing, now: Snapshot, page: Page) -> Iterator[str]:
    found = now.distributions(block.histogram, block.by)
    for labels, its in sorted(found.items(), key=lambda item: (-item[1].count, item[0])):
        mean = figure(its.sum / its.count, block.unit).replace(" ", "\xa0")
        events = block.of.removesuffix("s") if its.count == 1 else block.of
        title = f"{block.title}, {', '.join(labels)}: {figure(its.count, Unit.count)} {events}, mean {mean}"
        yield from _title(title, page)
        for line in drawing.histogram(its, block.unit, page.width - 2 * len(_INDENT), page.style):
            yield 2 * _INDENT + line


def _stacks(block: StackList, stacks: Sequence[Stack], page: Page) -> Iterator[str]:
    if stacks:
        yield from _title(block.title, page)
    for number, stack in enumerate(stacks[: block.top]):
        if number:
            yield ""
        times = "once" if stack.calls == 1 else f"{figure(stack.calls, Unit.count)} times"
        head = f"{stack.driver}, {stack.function}: {times}"
        yield 2 * _INDENT + page.style.warning(cut(head, page.width - 4))
        frames = [_frame(frame) for frame in stack.frames]
        for line in frames or ["(not kept: no room for more stacks)"]:
            yield 3 * _INDENT + cut(line, page.width - 6)
    if len(stacks) > block.top:
        yield f"{_INDENT}and {len(stacks) - block.top} more"


def _frame(frame: Symbol) -> str:
    # A call's return is never at the start of a function: without offset it is unknown.
    return frame.name + f"+{frame.offset}" * bool(frame.offset) + f" [{frame.module}]" * bool(frame.module)


def _table(table: Table, now: Snapshot, page: Page) -> Iterator[str]:
    values = [_values(column, table.by, now) for column in table.columns]
    rows = {labels: [column.get(labels, 0) for column in values] for column in values for labels in column}
    if not rows:
        return
    yield from _title(table.title, page)
    largest = sorted(rows, key=lambda labels: ([-value for value in rows[labels]], labels))
    shown = largest[: table.top or None]
    figures = {
        labels: [
            # What nobody counts is not zero.
            figure(value, column.unit) if now.has(column.sample) else "-"
            for value, column in zip(rows[labels], table.columns)
        ]
        for labels in shown
    }
    widths = [
        max([len(column.heading), *(len(each[at]) for each in figures.values())])
        for at, column in enumerate(table.columns)
    ]
    label_widths = [max([len(label), *(len(labels[at]) for labels in shown)]) for at, label in enumerate(table.by)]
    parts = list(_parts(widths, label_widths, page.width - 2 * len(_INDENT)))
    for part in parts:
        if part is not parts[0]:
            yield ""
        used = sum(widths[at] + _GAP for at in part)
        names = _shrunk(label_widths, page.width - 2 * len(_INDENT) - used)
        line = _line(table.by, names, [table.columns[at].heading for at in part], [widths[at] for at in part])
        yield page.style.faint(line)
        for labels in shown:
            yield _line(labels, names, [figures[labels][at] for at in part], [widths[at] for at in part])
    if len(largest) > len(shown):
        yield f"{2 * _INDENT}and {len(largest) - len(shown)} more"


def _values(column: Column, by: tuple[str, ...], now: Snapshot) -> dict[tuple[str, ...], Number]:
    sums = now.sums(column.sample, by, **column.where)
    if not column.per:
        return sums
    counts = now.sums(column.per, by, **column.where)
    return {labels: value / counts[labels] for labels, value in sums.items() if counts.get(labels)}


def _parts(widths: Sequence[int], label_widths: Sequence[int], room: int) -> Iterator[list[int]]:
    """The columns, in as many tables as it takes, when they do not fit beside the labels."""
    least = sum(min(width, _NARROWEST_LABEL) + _GAP for width in label_widths)
    part: list[int] = []
    for at in range(len(widths)):
        if part and least + sum(widths[each] + _GAP for each in [*part, at]) > room:
            yield part
            part = []
        part.append(at)
    yield part


def _shrunk(widths: Sequence[int], room: int) -> list[int]:
    """The widest label gives way, until they fit."""
    shrunk = list(widths)
    while sum(width + _GAP for width in shrunk) - _GAP * (len(shrunk) > 0) > room and max(shrunk) > 1:
        shrunk[shrunk.index(max(shrunk))] -= 1
    return shrunk


def _line(labels: Sequence[str], label_widths: Sequence[int], cells: Sequence[str], widths: Sequence[int]) -> str:
    left = (" " * _GAP).join(f"{cut(label, width):<{width}}" for label, width in zip(labels, label_widths))
    right = "".join(f"{'':{_GAP}}{cell:>{width}}" for cell, width in zip(cells, widths))
    return (2 * _INDENT + (left + right if left else right.removeprefix(" " * _GAP))).rstrip()
