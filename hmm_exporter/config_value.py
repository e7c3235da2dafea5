# SPDX-License-Identifier: Apache-2.0
"""What a text given for an option means, and what is said when it is not allowed.

One rule for the file and for the flags. Which options there are stands in ``config``; where a
file's texts come from, in ``config_file``.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from hmm_exporter.config import Config, ConfigError, Percent, Seconds
from hmm_exporter.config_rule import Rule, Text, rules_of

_UNITS = {
    "y": 365 * 86400.0,
    "w": 7 * 86400.0,
    "d": 86400.0,
    "h": 3600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 0.001,
}
_PERCENTAGE = re.compile(r"([0-9]{1,4}(?:\.[0-9]{1,3})?)%")
_DURATION = re.compile("".join(rf"(?:(?P<{unit}>[0-9]{{1,9}}){unit})?" for unit in _UNITS))


def override(config: Config, key: str, texts: Sequence[str], flag: str) -> Config:
    """*config* with the option *key* (dotted) as *flag* gave it: several texts for a list.

    Raises ConfigError, with the flag's name in the place of the file's.
    """
    section, _, name = key.rpartition(".")
    target: Any = getattr(config, section) if section else config
    kind, rule = get_type_hints(type(target))[name], rules_of(type(target))[name]
    values = []
    for text in texts:
        try:
            values.append(convert(item_kind(kind), rule, text))
        except ValueError:
            raise ConfigError(f"{flag}: {not_allowed(one_line(text), kind, rule)}") from None
    if get_origin(kind) is not tuple:
        target = dataclasses.replace(target, **{name: values[-1]})
    elif len(set(values)) < len(values):
        raise ConfigError(f"{flag}: the same value is given twice")
    elif len(values) > rule.most:
        raise ConfigError(f"{flag}: given {len(values)} times: at most {rule.most} are allowed")
    else:
        target = dataclasses.replace(target, **{name: tuple(values)})
    return dataclasses.replace(config, **{section: target}) if section else target


class Option(NamedTuple):
    """An option as documentation has it."""

    key: str
    default: Any
    rule: Rule
    allowed: str
    """What it may be, in words."""


def options() -> Iterator[Option]:
    """Every option in the order of the file, for the flags' help, the documentation, its tests."""
    default = Config()
    for section in dataclasses.fields(Config):
        inner = getattr(default, section.name)
        owner, prefix = (inner, f"{section.name}.") if dataclasses.is_dataclass(inner) else (default, "")
        kinds = get_type_hints(type(owner))
        names = rules_of(type(owner)) if prefix else {section.name: section.metadata["rule"]}
        for name, rule in names.items():
            allowed = allowed_words(kinds[name], rule)
            if get_origin(kinds[name]) is tuple:
                allowed = f"{rule.least} to {rule.most} items, each {allowed}"
            yield Option(prefix + name, getattr(owner, name), rule, allowed)


def value_of(config: Config, key: str) -> Any:
    """What the option *key* (dotted) is."""
    return functools.reduce(getattr, key.split("."), config)


def item_kind(kind: Any) -> Any:
    """What one text of an option of *kind* is: for a list or a mapping its items, for str | None the str."""
    if get_origin(kind) is Mapping:
        return get_args(kind)[1]
    return get_args(kind)[0] if get_args(kind) else kind


def convert(kind: Any, rule: Rule, text: str) -> Any:
    """The value that *text* spells; raises ValueError when the rule does not allow it."""
    kind = item_kind(kind)
    if kind is bool:
        # YAML 1.1 has yes, no, on and off, too, which YAML 1.2 takes for text.
        if text.lower() not in ("true", "false"):
            raise ValueError
        return text.lower() == "true"
    if kind in (str, Text):
        if rule.check is not None:
            rule.check(text)
        elif text not in rule.choices:
            raise ValueError
        return text
    if kind is int:
        # Decimal digits only: YAML 1.1 reads 010 as 8, 1:30 as 90 and 1_0 as 10.
        if not re.fullmatch("0|-?[1-9][0-9]{0,15}", text):
            raise ValueError
        value: float = int(text)
    elif kind is Percent:
        percentage = _PERCENTAGE.fullmatch(text)
        if percentage is None and text != "0":
            raise ValueError
        value = Percent(float(percentage[1]) / 100 if percentage else 0.0)
    else:
        match = _DURATION.fullmatch(text)
        if not text or (match is None and text != "0"):
            raise ValueError
        given = match.groupdict() if match else {}
        value = sum(int(given[unit]) * size for unit, size in _UNITS.items() if given.get(unit))
    if value == 0 and rule.never:
        return kind(0.0)
    if not rule.low <= value <= rule.high:
        raise ValueError
    return value


def allowed_words(kind: Any, rule: Rule) -> str:
    """In words, what :func:`convert` allows."""
    kind = item_kind(kind)
    if kind is bool:
        return "true or false"
    if kind is int:
        return f"a whole number from {rule.low:.0f} to {rule.high:.0f}"
    never = ", or 0 for never" if rule.never else ""
    if kind is Percent:
        return f"a percentage from {100 * rule.low:g}% to {100 * rule.high:g}%, as 1% or 0.5%{never}"
    if kind is Seconds:
        span = f"from {_duration(rule.low)} to {_duration(rule.high)}"
        return f"a duration {span}, as 90s or 1h30m{never}"
    return rule.allowed or f"one of {names(rule.choices)}"


def _duration(seconds: float) -> str:
    """*seconds* as Prometheus writes them, in its largest whole unit."""
    unit = next(unit for unit, size in _UNITS.items() if seconds % size == 0)
    return f"{seconds / _UNITS[unit]:.0f}{unit}"


def not_allowed(shown: str, kind: Any, rule: Rule) -> str:
    guess = did_you_mean(shown, rule.choices) if item_kind(kind) in (str, Text) else ""
    return f"{shown} is not allowed{guess}: {allowed_words(kind, rule)}"


def did_you_mean(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name[:64], known, 1)
    return f" (did you mean {close[0]}?)" if close else ""


def names(names: Sequence[str]) -> str:
    return ", ".join(names)


def one_line(text: str, most: int = 64) -> str:
    """*text* as a part of one line of a message: printable, and not much of it."""
    text = text if text.isprintable() else text.encode("unicode_escape").decode()
    return (text if len(text) <= most else text[: most - 3] + "...") or '""'
