# SPDX-License-Identifier: Apache-2.0
"""Web configuration files that others wrote, and the example of our own."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from hmm_exporter.web import protection, web_config
from hmm_exporter.web.web_config import WebConfig
from tests.unit.web.test_web_config import HASH

#: Of prometheus/exporter-toolkit at 19a7c2d590c5 (July 2026), unchanged: docs/web-config.yml, and of web/testdata
#: web_config_{headers.good,users.good,noAuth_allCiphers.good}.yml and web_config_auth_client_san.good.yaml.
TOOLKIT = sorted((Path(__file__).parent / "toolkit").iterdir())

EXAMPLE = Path(__file__).parents[3] / "web-config.example.yaml"

Written = Callable[[str], Path]


@pytest.mark.parametrize("file", TOOLKIT, ids=lambda file: file.name)
def test_a_file_of_the_toolkit_is_taken_as_it_is(file: Path, written: Written, certified: Path) -> None:
    text = file.read_text()
    config = written(text)
    if "client2_selfsigned.pem" in text:
        (config.parent / "client2_selfsigned.pem").symlink_to(certified / "ca.crt")
    loaded = protection.load(str(config))
    assert (loaded.tls is not None) == ("cert_file" in text)
    assert len(loaded.config.basic_auth_users) == text.count("$2y$")


def test_the_example_switches_nothing_on(tmp_path: Path) -> None:
    assert web_config.load(EXAMPLE) == WebConfig()


def test_what_the_example_has_in_comments_is_every_key_with_its_default(written: Written) -> None:
    _, server, rest = EXAMPLE.read_text().partition("tls_server_config:\n")
    lines = [re.sub(r"^( *)# ( *[\w-]+:)", r"\1\2", line) for line in rest.splitlines()]
    text = (server + "\n".join(lines)).replace("$2y$10$...", HASH).replace("clients-ca.crt", "")
    config = web_config.load(written(text.replace("[prometheus.example]", "")))
    shown = config.tls_server_config, config.http_server_config, config.rate_limit
    # Who writes NoClientCert wants TLS, who writes nothing need not.
    changed = {"cert_file", "key_file", "headers", "client_auth_type"}
    for section in shown:
        for each in dataclasses.fields(section):
            assert f" {each.name}:" in EXAMPLE.read_text() or f"or {each.name}" in EXAMPLE.read_text()
            default = getattr(type(section)(), each.name)
            assert (getattr(section, each.name) == default) == (each.name not in changed)
    assert all(vars(config.http_server_config.headers).values())
    assert list(config.basic_auth_users) == ["prometheus"]
