# SPDX-License-Identifier: Apache-2.0
"""Reads a YAML file into dataclasses, and says what is wrong in which line.

Which ones is the caller's to say, and what an option may be ``config_value``'s.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeVar, get_args, get_origin, get_type_hints

import yaml

from hmm_exporter.config import Config, ConfigError, Percent, Seconds
from hmm_exporter.config_rule import Rule, Text, rules_of
from hmm_exporter.config_value import allowed_words, convert, did_you_mean, item_kind, names, not_allowed, one_line

_Section = TypeVar("_Section")

# All options with a page of comment each fit; a log or /dev/zero given by mistake costs nothing.
_MAX_BYTES = 1 << 18

# Seconds that who writes into a pipe may take.
_PATIENCE = 5.0

_NULL = "tag:yaml.org,2002:null"
_BOOL = "tag:yaml.org,2002:bool"
_INT = "tag:yaml.org,2002:int"
_STR = "tag:yaml.org,2002:str"
_TAGS: Mapping[Any, frozenset[str]] = {
    bool: frozenset({_BOOL}),
    int: frozenset({_INT}),
    str: frozenset({_STR}),
    Seconds: frozenset({_STR, _INT}),  # 0 has no unit
    Text: frozenset("tag:yaml.org,2002:" + tag for tag in ("str", "int", "float", "bool", "timestamp")),
    Percent: frozenset({_STR, _INT}),
}


def load(path: str | os.PathLike[str]) -> Config:
    """The configuration in the YAML file at *path*; options that it does not name are defaults.

    Raises ConfigError, with ``file:line`` where a line is to blame.
    """
    return read(path, Config)


def read(path: str | os.PathLike[str], schema: type[_Section]) -> _Section:
    """As :func:`load`, for a file of another kind: *schema* is a dataclass like Config."""
    name = one_line(os.fspath(path), most=4096)
    try:
        # Without O_NONBLOCK, a FIFO that nobody writes to would keep whoever opens it waiting.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            data = _content(file.fileno())
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ConfigError(f"{name}: cannot be read: {getattr(error, 'strerror', error)}") from None
    if len(data) > _MAX_BYTES:
        raise ConfigError(f"{name}: too large: at most {_MAX_BYTES >> 10} KiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{name}:{line}: not UTF-8: byte 0x{data[error.start]:02x}") from None
    return _Reader(name).read(text, schema)


def _content(descriptor: int) -> bytes:
    """What is in the file, and a byte more than is allowed if it has that. Raises OSError."""
    pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    deadline = time.monotonic() + _PATIENCE
    data = b""
    while len(data) <= _MAX_BYTES:
        try:
            part = os.read(descriptor, _MAX_BYTES + 1 - len(data))
        except BlockingIOError:  # there is a writer, or a driver, that has nothing to say yet
            part = None
        if part == b"" and (data or not pipe):  # before the first byte, the writer may be still to come
            return data
        data += part or b""
        if not part:
            if time.monotonic() > deadline:
                raise OSError(errno.ETIMEDOUT, f"nobody wrote it to its end within {_PATIENCE:g} s")
            time.sleep(0.01)
    return data


class _Tag(Exception):
    """A line, and the tag in it that is not allowed."""


class _Loader(yaml.SafeLoader):
    """Refuses tags: they could only say otherwise than the value does, and !!python/... wants to run something."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        tag = getattr(event, "tag", None)
        if tag:
            shown = one_line(tag.replace("tag:yaml.org,2002:", "!!", 1))
            raise _Tag(
                f"{event.start_mark.line + 1}: tag {shown} is not allowed: values without a tag, in quotes if text"
            )
        return super().compose_node(parent, index)


class _Reader:
    """Reads one file's tree of nodes: nodes, not values, because they know their lines.

    An alias costs nothing here: the tree is walked no deeper and no longer than the schema goes.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def read(self, text: str, schema: type[_Section]) -> _Section:
        try:
            root = yaml.compose(text, Loader=_Loader)
        except _Tag as error:
            raise ConfigError(f"{self.name}:{error}") from None
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            code = f"U+{ord(text[error.position]):04X}"
            raise ConfigError(f"{self.name}:{line}: not YAML: character {code}") from None
        except yaml.MarkedYAMLError as error:
            raise ConfigError(self._syntax(error)) from None
        except RecursionError:
            raise ConfigError(f"{self.name}: nested too deeply: three levels are enough") from None
        return schema() if root is None else self._section(schema, root, "")

    def _syntax(self, error: yaml.MarkedYAMLError) -> str:
        mark = error.problem_mark or error.context_mark
        where = f"{self.name}:{mark.line + 1}" if mark else self.name
        if error.problem == "but found another document":
            return f"{where}: another document begins: one is allowed"
        context = error.context
        if context and error.context_mark and mark and error.context_mark.line != mark.line:
            context += f" from line {error.context_mark.line + 1} on"
        problem = ", ".join(one_line(part, most=96) for part in (context, error.problem) if part)
        if problem.endswith("but found ':'"):  # [:10466], the likeliest slip in our own options
            problem += " (a text that begins with a colon needs quotes)"
        return f"{where}:{mark.column + 1}: not YAML: {problem}" if mark else f"{where}: {problem}"

    def _section(self, section: type[_Section], node: yaml.Node, key: str) -> _Section:
        if node.tag == _NULL:  # all of its options are commented out
            return section()
        kinds, rules = get_type_hints(section), rules_of(section)
        keys = {(name in rules and rules[name].key) or name: name for name in kinds}
        values: dict[str, Any] = {}
        for spelled, child, below in self._pairs(node, key, tuple(keys)):
            name = keys[spelled]
            kind = kinds[name]
            if dataclasses.is_dataclass(kind):
                assert isinstance(kind, type)
                values[name] = self._section(kind, child, below)
            elif child.tag == _NULL and item_kind(kind) is Text:
                continue
            elif get_origin(kind) is tuple:
                values[name] = self._list(kind, rules[name], child, below)
            elif get_origin(kind) is Mapping:
                values[name] = dict(getattr(section(), name))
                for choice, item, at in self._pairs(child, below, rules[name].choices):
                    values[name][choice] = self._scalar(item_kind(kind), rules[name], item, at)
            elif child.tag == _NULL and type(None) in get_args(kind):
                values[name] = None
            else:
                values[name] = self._scalar(kind, rules[name], child, below)
        return section(**values)

    def _pairs(self, node: yaml.Node, key: str, known: Sequence[str]) -> Iterator[tuple[str, yaml.Node, str]]:
        """Keys, of *known* or any where that is empty, with their values and full names."""
        if node.tag == _NULL:
            return
        if not isinstance(node, yaml.MappingNode):
            if not known:  # a secret may stand here
                self._fail(node, key, "the value is not allowed: a mapping")
            allowed = f"a mapping with keys of {names(known)}"
            self._fail(node, key, f"{_show(node)} is not allowed: {allowed}")
        lines: dict[str, int] = {}
        for name_node, child in node.value:
            name = name_node.value if isinstance(name_node, yaml.ScalarNode) else _show(name_node)
            # A name that is none may be the secret itself, as in {name:secret}, where a space is missing.
            shown = one_line(name) if known or re.fullmatch(r"[\w.@+-]+", name) else "..."
            below = f"{key}.{shown}" if key else shown
            if known and name not in known:
                problem = f"unknown key{did_you_mean(name, known)}: one of {names(known)}"
                self._fail(name_node, below, problem)
            if name in lines:
                self._fail(name_node, below, f"given twice, first on line {lines[name]}")
            lines[name] = name_node.start_mark.line + 1
            yield name, child, below

    def _list(self, kind: Any, rule: Rule, node: yaml.Node, key: str) -> tuple[Any, ...]:
        if not isinstance(node, yaml.SequenceNode):
            item = allowed_words(kind, rule)
            self._fail(node, key, f"{_show(node)} is not allowed: a list, each item {item}")
        if not rule.least <= len(node.value) <= rule.most:
            allowed = f"{rule.least} to {rule.most} items"
            self._fail(node, key, f"a list of {len(node.value)} is not allowed: {allowed}")
        values: list[Any] = []
        for number, child in enumerate(node.value):
            value = self._scalar(item_kind(kind), rule, child, f"{key}[{number}]")
            if value in values:
                self._fail(child, f"{key}[{number}]", f"{_show(child)} is given twice")
            values.append(value)
        return tuple(values)

    def _scalar(self, kind: Any, rule: Rule, node: yaml.Node, key: str) -> Any:
        if isinstance(node, yaml.ScalarNode) and node.tag in _TAGS[item_kind(kind)]:
            try:
                return convert(kind, rule, node.value)
            except ValueError:
                pass
        shown = "the value" if rule.secret else _show(node)
        self._fail(node, key, not_allowed(shown, kind, rule) + _hint(kind, rule, node))

    def _fail(self, node: yaml.Node, key: str, problem: str) -> NoReturn:
        where = f"{self.name}:{node.start_mark.line + 1}"
        raise ConfigError(f"{where}: {key}: {problem}" if key else f"{where}: {problem}")


def _hint(kind: Any, rule: Rule, node: yaml.Node) -> str:
    """What to change where YAML understands a value otherwise than it looks."""
    if not isinstance(node, yaml.ScalarNode):
        return ""
    if item_kind(kind) is int and node.tag == _INT and not re.fullmatch("-?[0-9]|-?[1-9][0-9]+", node.value):
        return ", in plain decimal digits"
    if item_kind(kind) is int and node.tag == _STR and node.style and node.value.isdecimal():
        return ", without quotes"
    if item_kind(kind) is str and node.tag != _STR and node.value:
        try:
            convert(kind, rule, node.value)
        except ValueError:
            return ""
        what = node.tag.rpartition(":")[2]
        return f"; YAML takes it for a value of type {what}, so put it in quotes"
    return ""


def _show(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        if node.tag == _NULL:
            return node.value or "an empty value"
        return f'"{one_line(node.value)}"' if node.style else one_line(node.value)
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"
