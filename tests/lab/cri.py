# SPDX-License-Identifier: Apache-2.0
"""Runs in the guest, with nothing of the checkout: asks containerd what a kubelet asks it, by the CRI.

Reads one JSON document from stdin, ``{ACTION: [ARGUMENT...]}``, and writes one to stdout. The actions are the functions
`run`, `execute` and `wait`. What pods.py makes of a manifest is what `run` takes. Fields have the numbers of the CRI's
api.proto, v1.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc  # type: ignore[import-untyped,unused-ignore]

_TIMEOUT = 600
_NODE, _CONTAINER = 2, 1  # enum NamespaceMode
_EXITED = 2  # enum ContainerState

_channel = grpc.insecure_channel("unix:///run/containerd/containerd.sock")


def message(*fields: tuple[int, Any]) -> bytes:
    """Protobuf's wire format of bytes, texts, whole numbers and lists of these; None is left out."""
    encoded = b""
    for number, value in fields:
        for each in value if isinstance(value, list) else [] if value is None else [value]:
            if isinstance(each, int):
                encoded += _varint(number << 3) + _varint(int(each))
            else:
                data = each if isinstance(each, bytes) else each.encode()
                encoded += _varint(number << 3 | 2) + _varint(len(data)) + data
    return encoded


def parsed(data: bytes) -> dict[int, Any]:
    """The fields of an answer, each but the last of its number lost."""
    return dict(_fields(data))


def ask(method: str, *fields: tuple[int, Any]) -> dict[int, Any]:
    service = _channel.unary_unary(f"/runtime.v1.RuntimeService/{method}", bytes, bytes)
    return parsed(service(message(*fields), timeout=_TIMEOUT))


def run(container: dict[str, Any]) -> str:
    """A pod with one container, started; the container's id."""
    namespaces = message((1, _NODE), (2, _CONTAINER))
    seccomp = message()  # profile_type RuntimeDefault, which is 0
    name = container["name"]
    metadata = message((1, name), (2, name), (3, "hmm-exporter"))
    pod_security = message((1, namespaces), (9, seccomp))
    pod = message((1, metadata), (3, container["logs"]), (8, message((1, "/kubepods"), (2, pod_security))))
    security = message(
        (1, message((1, container["add"]), (2, container["drop"]))),
        (2, container["privileged"]),
        (3, namespaces),
        (5, message((1, container["user"]))),
        (7, container["read_only_root"]),
        (11, container["no_new_privileges"]),
        (12, message((1, container["group"]))),
        (13, container["masked_paths"]),
        (14, container["read_only_paths"]),
        (15, seccomp),
    )
    config = message(
        (1, message((1, name))),
        (2, message((1, container["image"]))),
        (4, container["arguments"]),
        (7, [message((1, inside), (2, outside), (3, True)) for inside, outside in container["mounts"]]),
        (11, f"{name}.log"),
        (15, message((1, message((4, container["memory_limit"]))), (2, security))),
    )
    sandbox = ask("RunPodSandbox", (1, pod))[1].decode()
    created = ask("CreateContainer", (1, sandbox), (2, config), (3, pod))[1].decode()
    ask("StartContainer", (1, created))
    return str(created)


def execute(container: str, *command: str) -> dict[str, Any]:
    """What `kubectl exec` does."""
    answer = ask("ExecSync", (1, container), (2, list(command)), (3, _TIMEOUT))
    texts = {name: answer.get(number, b"").decode() for number, name in ((1, "stdout"), (2, "stderr"))}
    return {"status": answer.get(3, 0), **texts}


def wait(container: str) -> int:
    """The status with which it ended."""
    while True:
        status = parsed(ask("ContainerStatus", (1, container))[1])
        if status.get(3) == _EXITED:
            return int(status.get(7, 0))
        time.sleep(1)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    at = 0

    def varint() -> int:
        nonlocal at
        number = shift = 0
        while True:
            byte = data[at]
            at += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
            shift += 7

    while at < len(data):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        else:
            length = varint()
            yield key >> 3, data[at : at + length]
            at += length


def main() -> None:
    ((what, given),) = json.load(sys.stdin).items()
    try:
        answer = _ACTIONS[what](*given)
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
    json.dump(answer, sys.stdout)


_ACTIONS: dict[str, Callable[..., Any]] = {"run": run, "execute": execute, "wait": wait}

if __name__ == "__main__":
    main()
