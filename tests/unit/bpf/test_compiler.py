# SPDX-License-Identifier: Apache-2.0
"""What becomes of the loader child's answer, or of its end: an object, or one line that helps.

The children are real processes: small scripts that stand where loader.python does. Only the last
tests run the real loader, under a Python that has no bcc.
"""

from __future__ import annotations

import base64
import json
import os
import time
import venv
from pathlib import Path

import pytest

from hmm_exporter import capabilities
from hmm_exporter.bpf.compiler import LOADER, CompiledMap, compile_source
from hmm_exporter.bpf.source import HEADERS
from hmm_exporter.errors import StartError


def child(folder: Path, script: str) -> str:
    """A program that runs ``script`` whatever its arguments are."""
    path = folder / "python3"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def answering(folder: Path, reply: object, stderr: str = "") -> str:
    (folder / "reply").write_text(json.dumps(reply))
    (folder / "stderr").write_text(stderr)
    return child(folder, f"cat >{folder}/request; echo \"$@\" >{folder}/arguments; pwd >{folder}/folder\n"
                         f"cat {folder}/stderr >&2; cat {folder}/reply")  # fmt: skip


def refusal(python: str, timeout: float = 20) -> str:
    with pytest.raises(StartError) as refused:
        compile_source("int x;", python, timeout)
    text = str(refused.value)
    assert len(text.splitlines()) == 1, text
    assert text.startswith("loader: ")
    return text


def test_an_answer_becomes_instructions_and_maps(tmp_path: Path) -> None:
    code = bytes(range(16))
    reply = {
        "bcc": "0.26.0",
        "programs": {"enter_migrate_vma_setup": base64.b64encode(code).decode()},
        "maps": {"owner_map": [3, 8, 8]},
    }
    compiled = compile_source("int x;", answering(tmp_path, reply, "warning: x is unused\n"), 20)
    assert compiled.programs == {"enter_migrate_vma_setup": code}
    assert compiled.maps == {"owner_map": CompiledMap(fd=3, key_bytes=8, value_bytes=8)}
    assert compiled.bcc == "0.26.0"


def test_the_child_gets_the_text_and_our_headers_and_nothing_of_the_users_site(tmp_path: Path) -> None:
    compile_source("int x;", answering(tmp_path, {"bcc": "", "programs": {}, "maps": {}}), 20)
    assert json.loads((tmp_path / "request").read_text()) == {"source": "int x;", "headers": str(HEADERS)}
    assert (tmp_path / "arguments").read_text() == f"-I {LOADER}\n"
    assert (tmp_path / "folder").read_text() == "/\n"


def test_a_text_larger_than_a_pipe_reaches_the_child_whole(tmp_path: Path) -> None:
    text = "int x;\n" * 100_000
    compile_source(text, answering(tmp_path, {"bcc": "", "programs": {}, "maps": {}}), 20)
    assert json.loads((tmp_path / "request").read_text())["source"] == text


def test_a_missing_interpreter_is_named_with_the_option_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "python3"
    assert refusal(str(path)) == f"loader: no Python at {path}: set loader.python to one that has bcc"


def test_an_interpreter_that_may_not_be_executed_is_named(tmp_path: Path) -> None:
    path = tmp_path / "python3"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o644)
    assert refusal(str(path)) == f"loader: {path} may not be executed: set loader.python to a Python that has bcc"


def test_a_folder_for_an_interpreter_is_named(tmp_path: Path) -> None:
    assert str(tmp_path) in refusal(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"\x7fELF\x02\x01\x01 and no more"], ids=["empty", "cut"])
def test_an_executable_file_that_is_no_program_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "python3"
    path.write_bytes(content)
    path.chmod(0o755)
    assert str(path) in refusal(str(path))


def test_a_path_through_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file/python3") in refusal(str(tmp_path / "file/python3"))


def test_a_child_killed_by_sigkill_may_have_been_out_of_memory(tmp_path: Path) -> None:
    text = refusal(child(tmp_path, "kill -KILL $$"))
    assert text == "loader: killed by SIGKILL while compiling; out of memory? it takes some 150 MB for a second"


def test_a_child_killed_by_another_signal_says_which(tmp_path: Path) -> None:
    assert refusal(child(tmp_path, "kill -SEGV $$")) == "loader: killed by SIGSEGV while compiling"


def test_a_child_killed_by_a_signal_without_a_name_is_still_one_line(tmp_path: Path) -> None:
    # 40 is a real-time signal: seccomp and some sandboxes end processes by such.
    assert "40" in refusal(child(tmp_path, "kill -40 $$"))


def test_a_child_that_hangs_is_ended_at_the_timeout_and_the_option_named(tmp_path: Path) -> None:
    python = child(tmp_path, f"echo $$ >{tmp_path}/pid; exec sleep 60")
    begun = time.monotonic()
    assert refusal(python, timeout=0.5) == "loader: bcc did not compile within 0.5 s (loader.timeout)"
    assert time.monotonic() - begun < 10
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_child_that_ends_in_silence_is_told_by_its_status(tmp_path: Path) -> None:
    python = child(tmp_path, "exit 3")
    assert refusal(python) == f"loader: {python} ended with status 3 and no answer: it said nothing"


def test_a_child_that_complains_and_ends_is_told_by_its_last_line(tmp_path: Path) -> None:
    python = child(tmp_path, "echo one >&2; echo 'ModuleNotFoundError: json' >&2; echo >&2; exit 1")
    assert refusal(python) == f"loader: {python} ended with status 1 and no answer: ModuleNotFoundError: json"


@pytest.mark.parametrize(
    "output",
    ["Hello, world", '{"bcc": "0.26.0", "programs": {', "null", "42", "[]", '""', "{}", '{"programs": {}, "maps": {}}'],
)
def test_an_answer_that_is_none_is_one_line(tmp_path: Path, output: str) -> None:
    python = child(tmp_path, f"cat >/dev/null; printf '%s' '{output}'")
    assert python in refusal(python)


def test_an_answer_in_bytes_that_are_no_text_is_one_line(tmp_path: Path) -> None:
    python = child(tmp_path, r"cat >/dev/null; printf '\377\376\200'")
    assert python in refusal(python)


def test_a_complaint_in_bytes_that_are_no_text_is_one_line(tmp_path: Path) -> None:
    python = child(tmp_path, r"cat >/dev/null; printf 'cl\351ment: \033[31merror\n' >&2; exit 1")
    assert python in refusal(python)


def test_the_compilers_first_error_is_told(tmp_path: Path) -> None:
    stderr = (
        "In file included from <built-in>:2:\n"
        "migration.c:12:3: error: use of undeclared identifier 'x'\n"
        "migration.c:13:3: error: use of undeclared identifier 'y'\n"
        "2 errors generated.\n"
    )
    text = refusal(answering(tmp_path, {"error": "Failed to compile BPF module <text>"}, stderr))
    assert text == (
        "loader: Failed to compile BPF module <text>: migration.c:12:3: error: use of undeclared identifier 'x'"
    )


def test_an_error_of_several_lines_is_told_in_one(tmp_path: Path) -> None:
    refusal(answering(tmp_path, {"error": "cannot load libbcc.so.0:\n  wrong ELF class"}, "\n"))


def test_a_kernel_that_refuses_maps_is_told_with_the_privilege_that_is_wanted(tmp_path: Path) -> None:
    stderr = "could not open bpf map: owner_map, error: Operation not permitted\n"
    text = refusal(answering(tmp_path, {"error": "Failed to compile BPF module <text>"}, stderr))
    assert text == f"loader: the kernel refuses to make BPF maps: {capabilities.why_refused()}"


PACKAGES = (
    "install your system's bcc for Python (Debian, Ubuntu: python3-bpfcc; Fedora: python3-bcc;"
    " the PyPI package called bcc is something else), or set loader.python to a Python that has it"
)


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python without any package but its own."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, symlinks=True, with_pip=False)
    return folder / "bin/python"


def test_the_loader_under_a_python_without_bcc_says_which_package_to_install(bare_python: Path) -> None:
    assert refusal(str(bare_python)) == f"loader: {bare_python}: No module named 'bcc': {PACKAGES}"


def test_the_loader_does_not_take_the_users_bcc(
    bare_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The PyPI package of this name, or a folder called bcc where the daemon was started.
    (tmp_path / "bcc.py").write_text("raise SystemExit('this is not bcc')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert "No module named 'bcc'" in refusal(str(bare_python))


def test_the_loader_reports_whatever_bcc_raises(bare_python: Path, tmp_path: Path) -> None:
    """A module of bcc's name that fails as bcc does where its library is missing: by an OSError at import."""
    site = next((bare_python.parent.parent / "lib").glob("python*/site-packages"))
    (site / "bcc.py").write_text("raise OSError('libbcc.so.0: cannot open shared object file')\n")
    try:
        text = refusal(str(bare_python))
    finally:
        (site / "bcc.py").unlink()
    assert text.startswith("loader: libbcc.so.0: cannot open shared object file: ")


@pytest.mark.parametrize(
    "answer",
    [
        '{"bcc": "1", "programs": {}, "maps": {"m": [1, 2]}}',
        '{"bcc": "1", "programs": {}, "maps": {"m": "abc"}}',
        '{"bcc": "1", "programs": {"p": 1}, "maps": {}}',
        '{"bcc": "1", "programs": {"p": "A"}, "maps": {}}',
        '{"bcc": "1", "programs": []}',
        '{"error": {}}',
        "[" * 100_000,
    ],
    ids=range(7),
)
def test_an_answer_of_another_form_is_none(tmp_path: Path, answer: str) -> None:
    """Found by fuzzing."""
    (tmp_path / "answer").write_text(answer)
    python = child(tmp_path, f"cat >/dev/null; cat '{tmp_path}/answer'")
    assert refusal(python) == f"loader: {python} ended with status 0 and no answer: it said nothing"


def test_of_a_long_complaint_the_beginning_is_told(tmp_path: Path) -> None:
    assert len(refusal(answering(tmp_path, {"error": "x" * 10_000}, "error: " + "y" * 10_000))) < 1100
