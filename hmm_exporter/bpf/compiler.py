# SPDX-License-Identifier: Apache-2.0
"""Runs the loader child, and turns its answer, or its end, into objects or one clear line."""

from __future__ import annotations

import base64
import json
import operator
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hmm_exporter import capabilities
from hmm_exporter.bpf import bounded
from hmm_exporter.bpf.source import HEADERS
from hmm_exporter.config_value import one_line
from hmm_exporter.errors import StartError

LOADER = Path(__file__).with_name("loader.py")


@dataclass(frozen=True)
class CompiledMap:
    """A map as the compiler laid it out. ``fd`` is the loader's: only a name for instructions."""

    fd: int
    key_bytes: int
    value_bytes: int


@dataclass(frozen=True)
class Compiled:
    """BPF instructions (struct bpf_insn[], 8 bytes each) by program name, and the maps they name."""

    programs: Mapping[str, bytes]
    maps: Mapping[str, CompiledMap]
    bcc: str


def compile_source(source: str, python: str, timeout: float) -> Compiled:
    """Compile C text under ``python`` within ``timeout`` seconds. Raises StartError, one line."""
    request = json.dumps({"source": source, "headers": str(HEADERS)})
    try:
        # bcc makes maps while it compiles.
        with capabilities.lent(capabilities.CAP_BPF):
            # -I: no site of the user's, no PYTHONPATH of the daemon's venv: the system's bcc or none.
            child = bounded.run(
                [python, "-I", str(LOADER)],
                request,
                timeout,
                cwd="/",
                # bcc compiles for the architecture that ARCH names, as the kernel's Makefile does: people have it set.
                env={name: value for name, value in os.environ.items() if name != "ARCH"},
            )
    except FileNotFoundError:
        raise StartError(f"loader: no Python at {python}: set loader.python to one that has bcc") from None
    except PermissionError:
        raise StartError(f"loader: {python} may not be executed: set loader.python to a Python that has bcc") from None
    except OSError as error:
        reason = f"{python} cannot be run: {error.strerror}"
        raise StartError(f"loader: {reason}: set loader.python to a Python that has bcc") from None
    except subprocess.TimeoutExpired:
        raise StartError(f"loader: bcc did not compile within {timeout:g} s (loader.timeout)") from None
    except bounded.TooMuchError:
        raise StartError(f"loader: {python} says more than {bounded.MOST >> 20} MiB: it cannot be the loader") from None
    return _compiled(child, python)


def _compiled(child: subprocess.CompletedProcess[str], python: str) -> Compiled:
    if child.returncode < 0:
        # Real-time signals have no names.
        name = next((each.name for each in signal.Signals if each == -child.returncode), f"signal {-child.returncode}")
        hint = "; out of memory? it takes some 150 MB for a second" if name == "SIGKILL" else ""
        raise StartError(f"loader: killed by {name} while compiling{hint}")
    try:
        reply = json.loads(child.stdout)
        if reply.keys() & {"missing", "error"}:
            reply = {what: one_line(" ".join(text.split()), most=512) for what, text in reply.items()}
        else:
            return Compiled(
                {name: base64.b64decode(code) for name, code in reply["programs"].items()},
                {name: CompiledMap(*map(operator.index, layout)) for name, layout in reply["maps"].items()},
                str(reply["bcc"]),
            )
    # Whatever else it may be, it is not what the loader writes.
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        raise StartError(
            f"loader: {python} ended with status {child.returncode} and no answer: {_last_line(child.stderr)}"
        ) from None
    if "missing" in reply:
        raise StartError(
            f"loader: {reply['missing']}: install your system's bcc for Python (Debian, Ubuntu: python3-bpfcc;"
            " Fedora: python3-bcc; the PyPI package called bcc is something else),"
            " or set loader.python to a Python that has it"
        )
    if "Operation not permitted" in child.stderr:
        # bcc makes the maps while it compiles; ours are made afterwards, and would be refused, too.
        raise StartError(f"loader: the kernel refuses to make BPF maps: {capabilities.why_refused()}")
    raise StartError(f"loader: {reply['error']}: {_first_error(child.stderr)}")


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return one_line(lines[-1], most=512) if lines else "it said nothing"


def _first_error(text: str) -> str:
    """The compiler's first complaint."""
    for line in text.splitlines():
        if "error" in line:
            return one_line(line.strip(), most=512)
    return _last_line(text)
