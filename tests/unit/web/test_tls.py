# SPDX-License-Identifier: Apache-2.0
"""TLS, asked over real sockets by real clients: Python's ssl, with certificates that openssl made."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hmm_exporter.config_rule import Text
from hmm_exporter.web import tls
from hmm_exporter.web.connection import Connection, Phase
from hmm_exporter.web.web_config import TlsServerConfig
from tests.unit.web import certificates
from tests.unit.web.served import Fixture, is_answered

Serve = Callable[[Path], Fixture]
Logged = Callable[[], list[dict[str, object]]]
Written = Callable[..., Path]


def test_a_client_that_trusts_the_authority_is_answered(with_tls: Written, serve: Serve, certified: Path) -> None:
    web = serve(with_tls())
    web.tls = certificates.client(certified)
    assert web.ask("/metrics")[0] == 200
    connection = web.connect()
    for path in ("/metrics", "/-/healthy", "/"):
        connection.request("GET", path)
        assert connection.getresponse().read()
    assert isinstance(connection.sock, ssl.SSLSocket)
    assert connection.sock.version() == "TLSv1.3"
    assert connection.sock.selected_alpn_protocol() is None
    connection.close()


def test_a_client_that_knows_http_2_is_told_to_talk_http_1(with_tls: Written, serve: Serve, certified: Path) -> None:
    web = serve(with_tls(after="http_server_config: {http2: true}\n"))
    web.tls = certificates.client(certified)
    web.tls.set_alpn_protocols(["h2", "http/1.1"])
    connection = web.connect()
    connection.request("GET", "/metrics")
    assert connection.getresponse().status == 200
    assert isinstance(connection.sock, ssl.SSLSocket)
    assert connection.sock.selected_alpn_protocol() == "http/1.1"
    connection.close()


def test_who_talks_in_the_clear_is_told_so(with_tls: Written, serve: Serve) -> None:
    web = serve(with_tls())
    for request in (b"GET /metrics HTTP/1.1\r\n\r\n", b"GET /-/healthy HTTP/1.0\r\n\r\n", b"x" * 100_000):
        answer = web.raw(request)
        assert answer.startswith(b"HTTP/1.0 400 Bad Request\r\n")
        assert answer.endswith(b"this is an HTTPS server, and the request was HTTP\n")


def test_what_is_no_handshake_does_no_harm(with_tls: Written, serve: Serve, certified: Path, logged: Logged) -> None:
    web = serve(with_tls())
    web.tls = certificates.client(certified)
    for data in (b"", b"\x16", b"\x16\x03\x01\x02\x00\x01", b"\x16" * 5000):
        with socket.create_connection(("127.0.0.1", web.server.ports[0]), timeout=10) as client:
            client.sendall(data)
            assert web.ask("/metrics")[0] == 200
    assert logged() == []


@pytest.mark.parametrize(
    ("line", "minimum", "maximum", "version"),
    [
        ("", "TLSv1_2", "TLSv1_2", "TLSv1.2"),
        ("min_version: TLS12", "TLSv1_2", "TLSv1_3", "TLSv1.3"),
        ("min_version: TLS13", "TLSv1_2", "TLSv1_2", None),
        ("max_version: TLS12", "TLSv1_2", "TLSv1_3", "TLSv1.2"),
        ("max_version: TLS12", "TLSv1_3", "TLSv1_3", None),
        ("cipher_suites: [TLS_AES_128_GCM_SHA256]", "TLSv1_2", "TLSv1_2", None),
        ("cipher_suites: [TLS_AES_128_GCM_SHA256]", "TLSv1_3", "TLSv1_3", "TLSv1.3"),
    ],
)
def test_versions_are_those_that_were_asked_for(
    with_tls: Written, serve: Serve, certified: Path, line: str, minimum: str, maximum: str, version: str | None
) -> None:
    web = serve(with_tls(*([line] if line else [])))
    web.tls = certificates.client(certified)
    web.tls.minimum_version, web.tls.maximum_version = ssl.TLSVersion[minimum], ssl.TLSVersion[maximum]
    assert is_answered(web) == (version is not None)
    if version:
        with _shaken(web) as connection:
            assert connection.version() == version


@pytest.mark.parametrize(
    ("lines", "offered", "chosen"),
    [
        (["cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]"], "ALL", "ECDHE-ECDSA-AES256-GCM-SHA384"),
        (["cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]"], "ECDHE-ECDSA-AES128-GCM-SHA256", None),
        (
            [
                "cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]",
                "prefer_server_cipher_suites: true",
            ],
            "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-SHA",
            "ECDHE-ECDSA-AES128-SHA",
        ),
        (
            [
                "cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]",
                "prefer_server_cipher_suites: false",
            ],
            "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-SHA",
            "ECDHE-ECDSA-AES128-GCM-SHA256",
        ),
    ],
)
def test_ciphers_are_those_that_were_asked_for(
    with_tls: Written, serve: Serve, certified: Path, lines: list[str], offered: str, chosen: str | None
) -> None:
    web = serve(with_tls("max_version: TLS12", *lines))
    web.tls = certificates.client(certified)
    web.tls.set_ciphers(offered)
    assert is_answered(web) == (chosen is not None)
    if chosen:
        with _shaken(web) as connection:
            cipher = connection.cipher()
        assert cipher
        assert cipher[0] == chosen


def test_a_client_without_the_curve_that_was_asked_for_is_not_answered(
    with_tls: Written, serve: Serve, certified: Path
) -> None:
    web = serve(with_tls("curve_preferences: [CurveP521]"))
    web.tls = certificates.client(certified)
    web.tls.set_ecdh_curve("secp521r1")
    assert is_answered(web)
    web.tls.set_ecdh_curve("secp384r1")
    assert not is_answered(web)


def test_a_client_that_hangs_in_its_handshake_keeps_nobody_waiting(
    with_tls: Written, serve: Serve, certified: Path
) -> None:
    web = serve(with_tls())
    web.tls = certificates.client(certified)
    hanging = [socket.create_connection(("127.0.0.1", web.server.ports[0])) for _ in range(20)]
    for client in hanging:
        client.sendall(b"\x16\x03\x01")
    assert web.ask("/-/healthy", timeout=5)[0] == 200
    for client in hanging:
        client.close()


def test_when_there_is_no_room_health_is_answered_by_tls_too(with_tls: Written, serve: Serve, certified: Path) -> None:
    web = serve(with_tls())
    web.tls = certificates.client(certified)
    hanging = [socket.create_connection(("127.0.0.1", web.server.ports[0])) for _ in range(260)]
    assert web.ask("/-/healthy")[0] == 200
    for client in hanging:
        client.close()


def test_what_is_sent_after_a_shutdown_by_another_thread_is_not_in_the_clear(certified: Path) -> None:
    server = TlsServerConfig(cert_file=Text("server.crt"), key_file=Text("server.key"))
    ours, theirs = socket.socketpair()
    connection = Connection(ours, "client")
    connection.enter(Phase.IDLE, 10)
    handshake = threading.Thread(target=connection.secure, args=(tls.prepare(server, str(certified)),))
    handshake.start()
    with certificates.client(certified).wrap_socket(theirs, server_hostname="localhost") as client:
        handshake.join(10)
        connection.shut_down(socket.SHUT_RD)  # as Server.close() does, for whoever is being answered
        connection.send(b"the answer")
        assert client.recv(100) == b"the answer"
        connection.close()


def test_only_who_keeps_us_waiting_counts_as_one_that_does() -> None:
    ours, theirs = socket.socketpair()
    connection = Connection(ours, "client")
    assert connection.waits_for_its_client()
    theirs.send(b"GET")
    assert not connection.waits_for_its_client(), "it has not been read yet"
    connection.enter(Phase.ANSWERING, 10)
    assert not connection.waits_for_its_client()
    connection.enter(Phase.SENDING, 10)
    assert not connection.waits_for_its_client(), "there is room"
    ours.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while ours.send(bytes(65536)):
            pass
    assert connection.waits_for_its_client()
    connection.end()
    assert not connection.waits_for_its_client()
    connection.close()
    connection.enter(Phase.IDLE, 10)
    assert not connection.waits_for_its_client()
    theirs.close()


def test_a_certificate_is_renewed_as_kubernetes_does_it(
    serve: Serve, certified: Path, tmp_path: Path, logged: Logged
) -> None:
    """A directory of links by way of ``..data``, which is swapped for another."""
    for number, name in enumerate(("server", "foreign")):
        version = tmp_path / f"..{number}"
        version.mkdir()
        for kind in ("crt", "key"):
            (version / f"tls.{kind}").write_bytes((certified / f"{name}.{kind}").read_bytes())
    (tmp_path / "..data").symlink_to("..0")
    for kind in ("crt", "key"):
        (tmp_path / f"tls.{kind}").symlink_to(f"..data/tls.{kind}")
    file = tmp_path / "web.yml"
    file.write_text("tls_server_config: {cert_file: tls.crt, key_file: tls.key}")
    web = serve(file)
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    web.tls = anybody
    kept = web.connect()
    kept.request("GET", "/metrics")
    kept.getresponse().read()
    before = _certificate(web)
    (tmp_path / "..next").symlink_to("..1")
    os.rename(tmp_path / "..next", tmp_path / "..data")
    after = _certificate(web)
    wanted = [ssl.PEM_cert_to_DER_cert((certified / f"{name}.crt").read_text()) for name in ("server", "foreign")]
    assert [before, after] == wanted
    assert [line["msg"] for line in logged()] == ["the web configuration was read again"]
    kept.request("GET", "/metrics")
    response = kept.getresponse()
    response.read()
    assert (response.status, response.headers["Connection"]) == (200, "close"), "the next one shakes hands again"


@contextlib.contextmanager
def _shaken(web: Fixture) -> Iterator[ssl.SSLSocket]:
    """A connection whose handshake is done, also from the server's point of view."""
    assert web.tls
    raw = socket.create_connection(("127.0.0.1", web.server.ports[0]), timeout=10)
    with web.tls.wrap_socket(raw, server_hostname="localhost") as connection:
        connection.sendall(b"GET /-/healthy HTTP/1.0\r\n\r\n")
        assert connection.recv(1) == b"H"
        yield connection


def _certificate(web: Fixture) -> bytes | None:
    with _shaken(web) as connection:
        return connection.getpeercert(binary_form=True)
