# SPDX-License-Identifier: Apache-2.0
"""What a serving process, perhaps a compromised one, asks of the helper that kept its rights.

Any datagram is one of the two requests, of names that the catalogue has and nothing else, or is refused in one
line. What was understood is understood the same when it is sent again.
"""

from __future__ import annotations

import socket

from hmm_exporter.catalog.probes import GROUPS, PROBES
from hmm_exporter.privileged.message import Attach, Refused, receive_request, send_request
from tests.fuzz.target import Target, check_message

_client, _helper = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
_NAMES = frozenset(probe.name for probe in PROBES)
_GROUPS = frozenset(group.name for group in GROUPS)


def try_one(data: bytes) -> None:
    _client.send(data)
    try:
        request = receive_request(_helper)
    except Refused as refusal:
        check_message(str(refusal))
        return
    if request is None:
        assert not data
        return
    if isinstance(request, Attach):
        assert _NAMES.issuperset([*request.probes, *request.exclude])
        assert _GROUPS.issuperset(request.groups)
    send_request(_client, request)
    assert receive_request(_helper) == request


TARGET = Target(
    try_one,
    words=[
        *(
            '{"attach": [[',
            "], [",
            "]]}",
            '{"statistics": []}',
            '", "',
            '"',
            ", ",
            "null",
            "{",
            "1e999",
            "\\ud800",
            "\\u0000",
        ),
        *(f'"{name}"' for name in (*sorted(_NAMES), *sorted(_GROUPS))),
    ],
)
