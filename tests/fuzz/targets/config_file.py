# SPDX-License-Identifier: Apache-2.0
"""The configuration file: any bytes are a configuration that keeps every rule, or a ConfigError of one line."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args, get_origin, get_type_hints

from hmm_exporter.config import ConfigError
from hmm_exporter.config_file import load
from hmm_exporter.config_rule import Rule, rules_of
from hmm_exporter.config_value import item_kind, options
from tests.fuzz.target import ScratchFile, Target, check_message

_file = ScratchFile()


def try_one(data: bytes) -> None:
    path = _file.write(data)
    try:
        config = load(path)
    except ConfigError as error:
        check_message(str(error).removeprefix(f"{path}:"))
        return
    check_section(config)
    assert load(path) == config


def check_section(section: Any) -> None:
    """Every value of a section is of its kind and keeps its rule, however it got there."""
    kinds, rules = get_type_hints(type(section)), rules_of(type(section))
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            check_section(value)
        else:
            _check_value(kinds[field.name], rules[field.name], value)


def _check_value(kind: Any, rule: Rule, value: Any) -> None:
    if get_origin(kind) is tuple:
        assert isinstance(value, tuple)
        assert rule.least <= len(value) <= rule.most
        assert len(set(value)) == len(value)
    elif isinstance(value, dict):
        assert set(value) == set(rule.choices)
        assert set(value.values()) <= {True, False}
        return
    elif value is None:
        assert type(None) in get_args(kind)
        return
    for item in value if isinstance(value, tuple) else (value,):
        if isinstance(item, str):
            assert item_kind(kind) is str
            assert item in rule.choices or (rule.check and rule.check(item) is not NotImplemented)
        elif not isinstance(item, bool):
            assert rule.low <= item <= rule.high or (rule.never and item == 0)


TARGET = Target(
    try_one,
    words=[
        *dict.fromkeys(word for option in options() for word in option.key.split(".")),
        *dict.fromkeys(choice for option in options() for choice in option.rule.choices),
        *(
            ": ",
            "\n  ",
            "- ",
            "[",
            "{",
            "&a ",
            "*a",
            "<<: ",
            "!!int ",
            "? ",
            "|\n",
            ">-\n",
            "---\n",
            "...\n",
            "%YAML 1.1\n",
        ),
        *("true", "~", "1h30m", "0x10", "1_0", "1:30", "2020-01-01", "'", '"', "\\u2028", "\ufeff", "#"),
    ],
)
