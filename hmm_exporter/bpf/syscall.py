# SPDX-License-Identifier: Apache-2.0
"""bpf(2) and perf_event_open(2), as far as the daemon needs them, without libbpf or bcc.

Numbers and layouts are those of include/uapi/linux/bpf.h and perf_event.h. Each function raises
OSError with the kernel's errno; what it means for the user is said by its callers.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import signal
import struct
from collections.abc import Iterator, Sequence

from hmm_exporter import libc

_BPF, _PERF_EVENT_OPEN = {"x86_64": (321, 298), "aarch64": (280, 241)}.get(platform.machine(), (0, 0))

MAP_HASH, MAP_ARRAY, MAP_STACK_TRACE = 1, 2, 7
PROG_KPROBE, PROG_RAW_TRACEPOINT, PROG_TRACING = 2, 17, 26
TRACE_FENTRY, TRACE_FEXIT, TRACE_KPROBE_MULTI = 24, 25, 42
BPF_ANY, BPF_NOEXIST = 0, 1
BPF_F_RDONLY = 1 << 3

_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _MAP_DELETE = 0, 1, 2, 3
_PROG_LOAD, _PROG_TEST_RUN, _RAW_TRACEPOINT_OPEN, _BTF_LOAD = 5, 10, 17, 18
_MAP_LOOKUP_AND_DELETE, _MAP_LOOKUP_BATCH, _LINK_CREATE, _ENABLE_STATS = 21, 24, 28, 32

WITHOUT_PRIVILEGE = frozenset(
    {_MAP_LOOKUP, _MAP_UPDATE, _MAP_DELETE, _MAP_LOOKUP_AND_DELETE, _MAP_LOOKUP_BATCH, _PROG_TEST_RUN}
)
"""What is asked of bpf(2) while serving, with fds that are there; since 5.19 no capability is wanted for it
(c8644cd0efe7), whatever kernel.unprivileged_bpf_disabled says."""

_PERF_EVENT_IOC_ENABLE, _PERF_EVENT_IOC_SET_BPF = 0x2400, 0x40042408
_PERF_FLAG_FD_CLOEXEC = 8
_PERF_ATTR_SIZE = 112  # PERF_ATTR_SIZE_VER5, 4.1


def _address(buffer: object) -> int:
    return ctypes.addressof(buffer)  # type: ignore[arg-type]


def _bpf(command: int, attributes: bytes) -> int:
    """One bpf(2) call. Its caller keeps the buffers that ``attributes`` points into."""
    if not _BPF:
        raise OSError(38, f"bpf(2)'s number is not known on {platform.machine()}")
    block = ctypes.create_string_buffer(attributes, len(attributes))
    return libc.call("syscall", _BPF, command, block, len(attributes))


def _name(name: str) -> bytes:
    # BPF_OBJ_NAME_LEN, with its zero byte; letters, digits, `_` and `.` only.
    return name.encode()[:15]


def map_create(kind: int, key_bytes: int, value_bytes: int, entries: int, name: str, flags: int = 0) -> int:
    """A new map's fd. Hashes are preallocated, which is the default. BPF_F_RDONLY: programs write, we do not."""
    attributes = struct.pack("<IIIIIII16s", kind, key_bytes, value_bytes, entries, flags, 0, 0, _name(name))
    return _bpf(_MAP_CREATE, attributes)


def map_update(fd: int, key: bytes, value: bytes, flags: int = BPF_ANY) -> None:
    key_block, value_block = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value, len(value))
    _bpf(_MAP_UPDATE, struct.pack("<IIQQQ", fd, 0, _address(key_block), _address(value_block), flags))


def map_lookup(fd: int, key: bytes, value_bytes: int) -> bytes:
    return _lookup(_MAP_LOOKUP, fd, key, value_bytes)


def map_lookup_and_delete(fd: int, key: bytes, value_bytes: int) -> bytes:
    """The row's value at the moment it was removed. Hashes since 5.14."""
    return _lookup(_MAP_LOOKUP_AND_DELETE, fd, key, value_bytes)


def _lookup(command: int, fd: int, key: bytes, value_bytes: int) -> bytes:
    key_block, value_block = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value_bytes)
    _bpf(command, struct.pack("<IIQQQ", fd, 0, _address(key_block), _address(value_block), 0))
    return value_block.raw


def map_delete(fd: int, key: bytes) -> None:
    key_block = ctypes.create_string_buffer(key, len(key))
    _bpf(_MAP_DELETE, struct.pack("<IIQQQ", fd, 0, _address(key_block), 0, 0))


def map_lookup_batch(fd: int, key_bytes: int, value_bytes: int, chunk: int) -> Iterator[tuple[bytes, bytes]]:
    """(keys, values) of a whole map, at most ``chunk`` rows at a time. Arrays and hashes since 5.6.

    A chunk must hold the fullest bucket of a hash. Rows that stay are seen exactly once.
    """
    keys = ctypes.create_string_buffer(key_bytes * chunk)
    values = ctypes.create_string_buffer(value_bytes * chunk)
    # Where to go on: a hash's next bucket (4 bytes), an array's next key.
    position = ctypes.create_string_buffer(max(key_bytes, 8))
    start = 0
    while True:
        attributes = ctypes.create_string_buffer(
            struct.pack("<QQQQIIQQ", start, _address(position), _address(keys), _address(values), chunk, fd, 0, 0),
            56,
        )
        ended = False
        try:
            libc.call("syscall", _BPF, _MAP_LOOKUP_BATCH, attributes, 56)
        except OSError as error:
            ended = error.errno == errno.ENOENT  # `count` is valid all the same
            if not ended:
                raise
        count = struct.unpack_from("<I", attributes, 32)[0]
        yield ctypes.string_at(keys, count * key_bytes), ctypes.string_at(values, count * value_bytes)
        if ended:
            return
        start = _address(position)


def btf_load(btf: bytes) -> int:
    """fd of type information for programs of our own."""
    block = ctypes.create_string_buffer(btf, len(btf))
    return _bpf(_BTF_LOAD, struct.pack("<QQIII", _address(block), 0, len(btf), 0, 0))


def prog_load(
    kind: int,
    code: bytes,
    name: str,
    attach_type: int = 0,
    btf_id: int = 0,
    log_bytes: int = 0,
    functions: Sequence[tuple[int, int]] = (),
    btf_fd: int = 0,
) -> tuple[int, str]:
    """(fd of the verified program, verifier's log). On a refusal the log is in the OSError's filename.

    ``functions``: (instruction that each begins at, its type in ``btf_fd``), where there are several.
    """
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(max(log_bytes, 1))
    records = b"".join(struct.pack("<II", at, type_id) for at, type_id in functions)
    function_info = ctypes.create_string_buffer(records, max(len(records), 1))
    attributes = struct.pack(
        "<IIQQIIQII16sIIIIQIIQII",
        kind,
        len(code) // 8,
        _address(instructions),
        _address(licence),
        1 if log_bytes else 0,
        log_bytes,
        _address(log) if log_bytes else 0,
        0,
        0,
        _name(name),
        0,
        attach_type,
        btf_fd,
        8 if functions else 0,  # sizeof(struct bpf_func_info)
        _address(function_info) if functions else 0,
        len(functions),
        0,
        0,
        0,
        btf_id,
    )
    # The verifier gives up with EAGAIN when a signal comes (do_check, kernel/bpf/verifier.c): it waits for a moment.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        return _bpf(_PROG_LOAD, attributes), log.value.decode(errors="replace")
    except OSError as error:
        raise OSError(error.errno, error.strerror, log.value.decode(errors="replace")) from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def prog_test_run(fd: int, context: bytes) -> int:
    """Run a raw tracepoint program once (5.10) with ``context`` as its arguments; its result."""
    block = ctypes.create_string_buffer(context, len(context))
    attributes = ctypes.create_string_buffer(
        struct.pack("<IIIIQQIIIIQQII", fd, 0, 0, 0, 0, 0, 0, 0, len(context), 0, _address(block), 0, 0, 0)
    )
    libc.call("syscall", _BPF, _PROG_TEST_RUN, attributes, 72)
    return int(struct.unpack_from("<I", attributes.raw, 4)[0])


def enable_statistics() -> int:
    """Runs of programs, and the time in them, are counted until this fd is closed (5.8; CAP_SYS_ADMIN)."""
    return _bpf(_ENABLE_STATS, struct.pack("<I", 0))  # BPF_STATS_RUN_TIME


def raw_tracepoint_open(prog_fd: int, name: str = "") -> int:
    """Attach a raw tracepoint program, or, without a name, a tracing program to its function."""
    block = ctypes.create_string_buffer(name.encode())
    return _bpf(_RAW_TRACEPOINT_OPEN, struct.pack("<QII", _address(block) if name else 0, prog_fd, 0))


def kprobe_multi_open(prog_fd: int, function: str, returns: bool) -> int:
    """Attach a program that was loaded with TRACE_KPROBE_MULTI to a kernel function (5.18, CONFIG_FPROBE)."""
    name = ctypes.create_string_buffer(function.encode())
    names = (ctypes.c_void_p * 1)(ctypes.addressof(name))
    head = struct.pack("<IIII", prog_fd, 0, TRACE_KPROBE_MULTI, 0)
    return _bpf(_LINK_CREATE, head + struct.pack("<IIQQQ", int(returns), 1, _address(names), 0, 0))


def probe_open(pmu: int, retprobe_bit: int | None, target: str, offset: int, prog_fd: int) -> int:
    """Attach ``prog_fd`` by the kprobe or uprobe PMU: all processes, until the fd is closed.

    ``target`` is a kernel function (offset 0) or a program's path (offset in the file).
    ``retprobe_bit`` is the bit of ``config`` that asks for a return probe, None for an entry probe.
    """
    block = ctypes.create_string_buffer(target.encode())
    config = 0 if retprobe_bit is None else 1 << retprobe_bit
    attributes = struct.pack("<IIQQQQQIIQQ", pmu, _PERF_ATTR_SIZE, config, 0, 0, 0, 0, 0, 0, _address(block), offset)
    attributes = attributes.ljust(_PERF_ATTR_SIZE, b"\0")
    # pid -1 and one CPU: the event is everybody's, since a probe's programs run on every CPU, also when that one goes
    # away. It has to be there now, which CPU 0 need not be; who runs has only active ones (sched_getaffinity).
    cpu = min(os.sched_getaffinity(0))
    event = ctypes.create_string_buffer(attributes, len(attributes))
    fd = libc.call("syscall", _PERF_EVENT_OPEN, event, -1, cpu, -1, _PERF_FLAG_FD_CLOEXEC)
    try:
        fcntl.ioctl(fd, _PERF_EVENT_IOC_SET_BPF, prog_fd)
        fcntl.ioctl(fd, _PERF_EVENT_IOC_ENABLE, 0)
    except OSError:
        os.close(fd)
        raise
    return fd
