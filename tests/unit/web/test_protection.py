# SPDX-License-Identifier: Apache-2.0
"""The web configuration while a server runs: read again, kept when the new one is wrong; and what it asks for beside
TLS and passwords."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hmm_exporter.config import ConfigError
from hmm_exporter.web import protection
from tests.unit.web import certificates
from tests.unit.web.served import Fixture
from tests.unit.web.test_basic_auth import basic, hashed

Serve = Callable[[Path], Fixture]
Logged = Callable[[], list[dict[str, object]]]

KEPT = "the web configuration is not taken, the one before still counts"
TAKEN = "the web configuration was read again"


def replace(file: Path, text: str) -> None:
    """As an editor does it: a reader sees the one or the other."""
    new = file.with_name(f"{file.name}.new")
    new.write_text(text)
    new.rename(file)


def users(**passwords: str) -> str:
    return "basic_auth_users:\n" + "".join(f"  {name}: {hashed(word)}\n" for name, word in passwords.items())


def status(web: Fixture, name: str, password: str) -> int:
    return web.ask("/metrics", headers={"Authorization": basic(name, password)})[0]


def test_a_wrong_file_is_no_start_and_leaves_no_socket(tmp_path: Path) -> None:
    file = tmp_path / "web.yml"
    for text in ("basic_auth_users: {x: y}", "tls_server_config: {cert_file: a, key_file: b}"):
        file.write_text(text)
        with pytest.raises(ConfigError):
            Fixture(web_config=file)
    file.unlink()
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory"):
        Fixture(web_config=file)


def test_users_are_taken_from_the_file_as_it_is_now(tmp_path: Path, serve: Serve, logged: Logged) -> None:
    file = tmp_path / "web.yml"
    file.write_text(users(alice="one"))
    web = serve(file)
    kept = web.connect()
    for text, answers in (
        (users(alice="two", bob="three"), [401, 200, 200]),
        (users(bob="three"), [401, 401, 200]),
    ):
        replace(file, text)
        assert [status(web, *who) for who in (("alice", "one"), ("alice", "two"), ("bob", "three"))] == answers
    assert [line["msg"] for line in logged()] == [TAKEN, TAKEN]
    kept.request("GET", "/metrics", headers={"Authorization": basic("alice", "one")})
    assert kept.getresponse().status == 401, "also over a connection that was there before"
    kept.close()


def test_an_unchanged_file_is_not_read(
    tmp_path: Path, serve: Serve, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "web.yml"
    file.write_text(users(alice="one"))
    web = serve(file)
    real, read = protection.load, []

    def load(path: str) -> protection.Loaded:
        read.append(path)
        return real(path)

    monkeypatch.setattr(protection, "load", load)
    for _ in range(20):
        assert status(web, "alice", "one") == 200
    assert read == []
    os.utime(file)
    for _ in range(20):
        assert status(web, "alice", "one") == 200
    assert read == [str(file)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense", "web.yml:1: nonsense is not allowed"),
        ("basic_auth_users: {alice: secret}", "web.yml:1: basic_auth_users.alice: the value is not allowed"),
        ("tls_server_config: {cert_file: no, key_file: no}", "cert_file: {folder}/no: cannot be read"),
        # Half written.
        ("", "web.yml: basic_auth_users would end: that needs a restart"),
        ("basic_auth_users:\n", "web.yml: basic_auth_users would end: that needs a restart"),
        ("rate_limit: {interval: 1h, burst: 1}", "web.yml: basic_auth_users would end: that needs a restart"),
        (None, "web.yml: cannot be read: No such file or directory"),
    ],
)
def test_a_wrong_file_is_told_of_once_and_the_one_before_counts_until_it_is_right(
    tmp_path: Path, serve: Serve, logged: Logged, text: str | None, said: str
) -> None:
    file = tmp_path / "web.yml"
    file.write_text(users(alice="one"))
    web = serve(file)
    file.unlink() if text is None else replace(file, text)
    for _ in range(5):
        assert (status(web, "alice", "one"), status(web, "alice", "secret")) == (200, 401)
    (line,) = logged()
    assert (line["level"], line["msg"]) == ("error", KEPT)
    assert said.format(folder=tmp_path) in str(line["error"])
    replace(file, users(alice="two"))
    assert (status(web, "alice", "one"), status(web, "alice", "two")) == (401, 200)
    assert [line["msg"] for line in logged()] == [TAKEN]


def test_what_protects_does_not_end(certified: Path, tmp_path: Path, serve: Serve, logged: Logged) -> None:
    server = f"tls_server_config:\n  cert_file: {certified}/server.crt\n  key_file: {certified}/server.key\n"
    clients = f"  client_ca_file: {certified}/ca.crt\n  client_auth_type: "
    file = tmp_path / "web.yml"
    versions = "  min_version: TLS13\n"
    file.write_text(f"{server}{versions}{clients}RequireAndVerifyClientCert\n")
    web = serve(file)
    assert (
        web.server.protections
        == "TLS, TLS 1.3 alone, authorities of its own, client certificates, required client certificates"
    )
    web.tls = certificates.client(certified)
    trusted = certificates.client(certified, "client")
    cut = f"{server}{versions}  client_auth_type: RequireAndVerifyClientCert\n"
    for text in (
        "",
        f"{server}{versions}",
        f"{server}{versions}{clients}VerifyClientCertIfGiven\n",
        f"{server}{clients}RequireAndVerifyClientCert\n",
        cut,
    ):
        replace(file, text)
        with pytest.raises((ConnectionError, OSError)):
            web.ask("/metrics")
    lines = logged()
    assert [line["msg"] for line in lines] == [KEPT] * 5
    assert str(lines[-2]["error"]).endswith(": TLS 1.3 alone would end: that needs a restart")
    assert str(lines[-1]["error"]).endswith(": authorities of its own would end: that needs a restart")
    web.tls = trusted
    assert web.ask("/metrics")[0] == 200


def test_what_was_added_while_it_ran_does_not_end_either(tmp_path: Path, serve: Serve, logged: Logged) -> None:
    file = tmp_path / "web.yml"
    file.write_text("")
    web = serve(file)
    assert web.ask("/metrics")[0] == 200
    file.write_text(users(alice="one"))
    assert web.ask("/metrics")[0] == 401
    for text in ("basic_", ""):
        file.write_text(text)
        assert (web.ask("/metrics")[0], status(web, "alice", "one")) == (401, 200)
    assert [line["msg"] for line in logged()] == [TAKEN, KEPT, KEPT]


def test_a_key_that_is_renewed_after_its_certificate_is_waited_for(
    certified: Path, tmp_path: Path, serve: Serve, logged: Logged
) -> None:
    names = ("crt", "key")
    for kind in names:
        (tmp_path / f"tls.{kind}").write_bytes((certified / f"server.{kind}").read_bytes())
    file = tmp_path / "web.yml"
    file.write_text("tls_server_config: {cert_file: tls.crt, key_file: tls.key}")
    certificates.issue(certified, "renewed", certificates.SERVER_NAMES)
    web = serve(file)
    web.tls = certificates.client(certified)
    for kind in names:
        assert web.ask("/metrics")[0] == 200
        (tmp_path / f"tls.{kind}").write_bytes((certified / f"renewed.{kind}").read_bytes())
    assert web.ask("/metrics")[0] == 200
    first, second = logged()
    assert (first["msg"], second["msg"]) == (KEPT, TAKEN)
    assert str(first["error"]).endswith("key is not that of cert")


# Headers and the rate limit.


def test_the_files_headers_are_in_every_answer_but_where_a_page_says_more(tmp_path: Path, serve: Serve) -> None:
    file = tmp_path / "web.yml"
    file.write_text(
        "http_server_config:\n  headers:\n    Content-Security-Policy: default-src 'self'\n    X-Frame-Options: deny\n"
        "    X-Content-Type-Options: nosniff\n    X-XSS-Protection:\n"
    )
    web = serve(file)
    plain = Fixture()
    try:
        page = plain.ask("/")[1]["Content-Security-Policy"]
    finally:
        plain.server.close()
    for path in ("/metrics", "/x", "/-/healthy", "/"):
        _, headers, _ = web.ask(path)
        assert headers["X-Frame-Options"] == "deny"
        assert headers.get_all("X-Content-Type-Options") == ["nosniff"]
        assert headers.get_all("Content-Security-Policy") == [page if path == "/" else "default-src 'self'"]
        assert "X-XSS-Protection" not in headers
    for refused in (b"nonsense\r\n\r\n", b"GET http://[ HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nno header\r\n\r\n"):
        assert b"\r\nX-Frame-Options: deny\r\n" in web.raw(refused)


def test_requests_beyond_the_rate_limit_are_429_and_health_is_none(tmp_path: Path, serve: Serve) -> None:
    file = tmp_path / "web.yml"
    file.write_text("rate_limit: {interval: 1h, burst: 3}\n")
    web = serve(file)
    assert [web.ask("/metrics")[0] for _ in range(5)] == [200, 200, 200, 429, 429]
    assert web.ask("/x")[0] == 429
    assert {web.ask("/-/healthy")[0] for _ in range(5)} == {200}
    replace(file, "rate_limit: {interval: 1ms, burst: 1}\n")
    assert web.ask("/metrics")[0] == 200
    replace(file, "rate_limit: {interval: 0, burst: 0}\n")
    assert {web.ask("/metrics")[0] for _ in range(5)} == {200}
