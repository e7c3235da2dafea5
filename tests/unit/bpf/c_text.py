# SPDX-License-Identifier: Apache-2.0
"""Reads as much C as hmm_exporter's BPF programs use: conditionals, struct layouts, uses of a macro.

No compiler, so that the tests of the text run everywhere. What the compiler itself makes of it is
the affair of tests/bpf.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

_SCALARS: Mapping[str, type[ctypes._SimpleCData[int]]] = {
    "u64": ctypes.c_uint64,
    "u32": ctypes.c_uint32,
    "u16": ctypes.c_uint16,
    "u8": ctypes.c_uint8,
}
_DIRECTIVE = re.compile(r"\s*#\s*(\w+)\s*(.*)")


@dataclass
class Source:
    """``code`` without comments and directives, as the conditionals leave it; ``macros`` defined on the way."""

    code: str = ""
    macros: dict[str, str] = field(default_factory=dict)
    """Name, with its parameters if it has any, to body."""

    @property
    def defined(self) -> set[str]:
        return {name.partition("(")[0] for name in self.macros}


def preprocess(text: str) -> Source:
    """Evaluate the conditionals; macros are noted and not expanded."""
    source, lines = Source(), []
    states: list[bool] = []
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)
    for line in text.replace("\\\n", " ").splitlines():
        directive = _DIRECTIVE.match(line)
        if directive is None:
            if all(states):
                lines.append(line)
            continue
        word, rest = directive[1], directive[2].strip()
        if word in ("if", "ifdef", "ifndef"):
            states.append(_holds(word, rest, source))
        elif word == "else":
            states[-1] = not states[-1]
        elif word == "endif":
            states.pop()
        elif word == "define" and all(states):
            name, body = re.match(r"(\w+(?:\([^)]*\))?)\s*(.*)", rest).groups()  # type: ignore[union-attr]
            source.macros[name] = body
        else:
            assert word in ("define", "include", "line", "pragma"), f"not known here: #{word}"
    assert not states
    source.code = "\n".join(lines)
    return source


def _holds(word: str, rest: str, source: Source) -> bool:
    if word != "if":
        return (rest in source.defined) == (word == "ifdef")
    defined = re.sub(r"defined\s*\(?(\w+)\)?", lambda name: str(int(name[1] in source.defined)), rest)
    value = re.sub(r"[A-Za-z_]\w*", lambda name: source.macros.get(name[0], "0"), defined)
    value = re.sub(r"\b(0x[0-9a-f]+|[0-9]+)[UL]+\b", r"\1", value)
    return bool(eval(value.replace("||", " or ").replace("&&", " and ").replace("!", " not ")))


def structs(source: Source) -> dict[str, type[ctypes.Structure]]:
    """Every ``struct name { ... };``, laid out as a compiler would; also those inside others."""
    code = re.sub(r"\[([A-Z]\w*)\]", lambda length: f"[{source.macros[length[1]]}]", source.code)
    found: dict[str, type[ctypes.Structure]] = {}
    for definition in re.finditer(r"^struct (\w+) \{", code, re.MULTILINE):
        _struct(definition[1], code, definition.end(), found)
    return found


def _struct(
    name: str, code: str, at: int, found: dict[str, type[ctypes.Structure]]
) -> tuple[type[ctypes.Structure], int]:
    """The struct whose fields begin at ``at``, and where its closing brace ends."""
    fields: list[tuple[str, type]] = []
    token = re.compile(r"\s*(?:(\})|struct \{|(?:struct )?(\w+)((?:\s+\w+(?:\[\w+\])?\s*,?)+);)")
    while True:
        match = token.match(code, at)
        assert match, f"struct {name}: {code[at : at + 80]!r}"
        at = match.end()
        if match[1]:
            made = type(name, (ctypes.Structure,), {"_fields_": fields})
            found[name] = made
            return made, at
        if not match[2]:
            inner, at = _struct(f"{name}.", code, at, found)
            end = re.compile(r"\s*(\w+)(?:\[(\w+)\])?;").match(code, at)
            assert end
            fields.append((end[1], inner * int(end[2]) if end[2] else inner))
            at = end.end()
            continue
        kind = _SCALARS.get(match[2]) or found[match[2]]
        for declared in re.finditer(r"(\w+)(?:\[(\w+)\])?", match[3]):
            fields.append((declared[1], kind * int(declared[2]) if declared[2] else kind))


def uses(code: str, macro: str) -> Iterator[Sequence[str]]:
    """The arguments of each use of ``macro``, trimmed."""
    for start in re.finditer(rf"\b{macro}\(", code):
        depth, arguments = 0, [""]
        for letter in code[start.end() :]:
            if letter == ")" and depth == 0:
                break
            depth += (letter == "(") - (letter == ")")
            if letter == "," and depth == 0:
                arguments.append("")
            else:
                arguments[-1] += letter
        yield [argument.strip() for argument in arguments]
