# SPDX-License-Identifier: Apache-2.0
"""One target under atheris, with libFuzzer's own arguments: ``python -m tests.fuzz.child TARGET [ARGUMENT...]``."""

from __future__ import annotations

import sys

import atheris

from tests.fuzz.target import load

_WATCHED = ["hmm_exporter", "yaml", "http.server"]
"""Packages whose branches lead the fuzzer."""


def main() -> None:
    name, *arguments = sys.argv[1:]
    with atheris.instrument_imports(include=_WATCHED, enable_loader_override=False):
        target = load(name)
    # To merge, libFuzzer has a shell start it again: by the first word.
    atheris.Setup([f"{sys.executable} -m tests.fuzz.child {name}", *arguments], target.try_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
