# SPDX-License-Identifier: Apache-2.0
"""What the loader says: any status, answer and complaint are a build, or a StartError of one line.

An input's first byte is the status; its answer ends, and its complaint begins, at the first NUL.
"""

from __future__ import annotations

import subprocess

from hmm_exporter.bpf.compiler import _compiled
from hmm_exporter.errors import StartError
from tests.fuzz.target import Target, check_message


def try_one(data: bytes) -> None:
    status = int.from_bytes(data[:1], "little", signed=True)
    answer, _, complaint = data[1:].decode(errors="backslashreplace").partition("\0")
    child = subprocess.CompletedProcess([], status, answer, complaint)
    try:
        compiled = _compiled(child, "/usr/bin/python3")
    except StartError as error:
        check_message(str(error))
        return
    assert status >= 0
    assert isinstance(compiled.bcc, str)
    for name, code in compiled.programs.items():
        assert isinstance(name, str)
        assert isinstance(code, bytes)
    for layout in compiled.maps.values():
        assert all(type(each) is int for each in (layout.fd, layout.key_bytes, layout.value_bytes))


TARGET = Target(
    try_one,
    words=[
        *(
            '{"bcc": "0.26.0", "programs": {',
            '"enter": "AAAA"',
            '}, "maps": {',
            '"owner_map": [4, 8, 16]',
            "}}",
            "null",
        ),
        *(
            '{"error": "',
            '{"missing": "',
            "Operation not permitted",
            "error: ",
            "\\u2028",
            "\\ud800",
            "[",
            "1e999",
            "-1",
        ),
    ],
)
