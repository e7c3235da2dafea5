# SPDX-License-Identifier: Apache-2.0
"""The child process that compiles: C text in, BPF instructions out. The only importer of bcc.

It runs under a Python that has bcc (Debian's ``python3-bpfcc`` belongs to /usr/bin/python3), so
it imports nothing of ours. LLVM takes some 125 MB and a kallsyms table, which end with it. What
the compiler has to say goes to stderr.

Reads one JSON document from stdin: ``{"source": C text, "headers": folder}``. Writes one to
stdout: ``{"bcc": version, "programs": {name: base64 of struct bpf_insn[]},
"maps": {name: [fd, key bytes, value bytes]}}``; instructions name maps by these fds.
"""

import base64
import ctypes
import json
import os
import signal
import struct
import sys
from typing import Any


def compile_text(source: str, headers: str) -> dict[str, Any]:
    """Compile with bcc. Raises whatever bcc raises."""
    # Also where a kernel's own headers are installed: headers of another version compile
    # without a word and read garbage, so offsets come from BTF and headers from our own folder.
    os.environ["BCC_KERNEL_SOURCE"] = headers
    import bcc  # type: ignore[import-not-found]
    from bcc import BPF, lib

    module = BPF(text=source)
    # bcc declares neither the parameters nor the result of these. An int is cut to 32 bits, and a
    # pointer with it, unless the heap happens to lie low, as under a Python that is not PIE.
    handle = ctypes.c_void_p(module.module)
    lib.bpf_table_name.restype = ctypes.c_char_p
    programs = {}
    for number in range(lib.bpf_num_functions(handle)):
        name = lib.bpf_function_name(handle, number)
        programs[name.decode()] = base64.b64encode(module.dump_func(name)).decode()
    maps = {}
    for number in range(lib.bpf_num_tables(handle)):
        name = lib.bpf_table_name(handle, number)
        maps[name.decode()] = [
            lib.bpf_table_fd(handle, name),
            lib.bpf_table_key_size(handle, name),
            lib.bpf_table_leaf_size(handle, name),
        ]
    return {"bcc": bcc.__version__, "programs": programs, "maps": maps}


def die_with_the_daemon() -> None:
    """Whatever ends the daemon, at whatever moment, ends this process, too."""
    daemon = os.getppid()
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, include/uapi/linux/prctl.h
    if os.getppid() != daemon:  # it ended in between
        os._exit(1)


def keep_only_what_compiles() -> None:
    """Of what root has: CAP_BPF for the maps that bcc makes, CAP_DAC_READ_SEARCH for headers in somebody's home."""
    libc = ctypes.CDLL(None)
    header, sets = struct.pack("<Ii", 0x20080522, 0), ctypes.create_string_buffer(24)  # _LINUX_CAPABILITY_VERSION_3
    libc.capget(header, sets)
    # Effective, permitted and inheritable, of 0 to 31 and of 32 to 63; include/uapi/linux/capability.h.
    low, high = 1 << 2, 1 << 39 - 32
    held = struct.unpack("<6I", sets)
    if held[4] & high:  # else CAP_SYS_ADMIN may stand for it
        libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS: what root executes would have all again
        kept = [have & keep for have, keep in zip(held, (low, low, 0, high, high, 0))]
        libc.capset(header, struct.pack("<6I", *kept))


def main() -> None:
    die_with_the_daemon()
    keep_only_what_compiles()
    # bcc and clang may print to stdout; the answer must be alone there.
    answer = os.dup(1)
    os.dup2(2, 1)
    request = json.load(sys.stdin)
    try:
        reply = compile_text(request["source"], request["headers"])
    except ImportError as error:
        reply = {"missing": f"{sys.executable}: {error}"}
    except Exception as error:  # bcc raises bare Exception for whatever the compiler refused
        reply = {"error": str(error)}
    with os.fdopen(answer, "w") as stream:
        json.dump(reply, stream)
    # Not sys.exit: bcc's clean-up at exit detaches what it knows and may hang in LLVM.
    os._exit(0)


if __name__ == "__main__":
    main()
