# SPDX-License-Identifier: Apache-2.0
"""The server that most tests of this folder ask."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hmm_exporter import log
from tests.unit.web import certificates
from tests.unit.web.served import Fixture


@pytest.fixture
def web() -> Iterator[Fixture]:
    made = Fixture()
    yield made
    made.server.close()


@pytest.fixture(scope="session")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as ``certificates.make`` fills it. Not to be written to."""
    return certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def with_tls(certified: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a web configuration with the server's certificate, and further lines of tls_server_config."""

    def write(*lines: str, after: str = "") -> Path:
        file = tmp_path / "web.yml"
        server = [f"cert_file: {certified}/server.crt", f"key_file: {certified}/server.key", *lines]
        file.write_text("tls_server_config:\n" + "".join(f"  {line}\n" for line in server) + after)
        return file

    return write


@pytest.fixture
def written(certified: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Writes a web configuration beside the certificates."""
    for file in certified.iterdir():
        (tmp_path / file.name).symlink_to(file)

    def write(text: str) -> Path:
        file = tmp_path / "web.yml"
        file.write_text(text)
        return file

    return write


@pytest.fixture
def serve() -> Iterator[Callable[[Path], Fixture]]:
    """Starts servers under a web configuration; they end with the test."""
    made = []

    def start(web_config: Path) -> Fixture:
        made.append(Fixture(web_config=web_config))
        return made[-1]

    yield start
    for each in made:
        each.server.close()


@pytest.fixture
def logging_to_stderr() -> Iterator[None]:
    """Log lines in JSON on stderr, the access log left out."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    handler = log.StderrHandler()
    handler.setFormatter(log.JsonFormatter())
    root.handlers[:] = [handler]
    root.setLevel("INFO")
    yield
    root.handlers[:] = before
    root.setLevel(level)


@pytest.fixture
def logged(capfd: pytest.CaptureFixture[str], logging_to_stderr: None) -> Callable[[], list[dict[str, object]]]:
    """The log lines since it was called last."""
    return lambda: [json.loads(line) for line in capfd.readouterr().err.splitlines()]
