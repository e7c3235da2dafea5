# SPDX-License-Identifier: Apache-2.0
"""Which clients are let in by their certificates, over real sockets, with certificates that openssl made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.web import certificates
from tests.unit.web.served import Fixture, is_answered

Serve = Callable[[Path], Fixture]
Logged = Callable[[], list[dict[str, object]]]
Written = Callable[..., Path]

ANSWERED = {
    "NoClientCert": ("", "client", "foreign", "expired"),
    "RequestClientCert": ("", "client", "foreign", "expired"),
    "VerifyClientCertIfGiven": ("", "client"),
    "RequireAndVerifyClientCert": ("client",),
}


@pytest.mark.parametrize("version", ["TLS12", "TLS13"])
@pytest.mark.parametrize("client_auth_type", ANSWERED)
def test_clients_are_judged_by_their_certificates(
    with_tls: Written, serve: Serve, certified: Path, client_auth_type: str, version: str
) -> None:
    lines = [f"client_auth_type: {client_auth_type}", f"max_version: {version}"]
    if "Verify" in client_auth_type:
        lines.append(f"client_ca_file: {certified}/ca.crt")
    web = serve(with_tls(*lines))
    answered = []
    for certificate in ("", "client", "foreign", "expired"):
        web.tls = certificates.client(certified, certificate)
        if is_answered(web):
            answered.append(certificate)
    assert tuple(answered) == ANSWERED[client_auth_type]


def test_without_authorities_of_ones_own_those_of_the_system_count(
    with_tls: Written, serve: Serve, certified: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certified / "other_ca.crt"))
    web = serve(with_tls("client_auth_type: RequireAndVerifyClientCert"))
    web.tls = certificates.client(certified, "client")
    assert not is_answered(web)
    web.tls = certificates.client(certified, "foreign")
    assert is_answered(web)


def test_a_clients_own_certificate_may_be_the_authority(with_tls: Written, serve: Serve, certified: Path) -> None:
    web = serve(with_tls("client_auth_type: RequireAndVerifyClientCert", f"client_ca_file: {certified}/client.crt"))
    web.tls = certificates.client(certified, "client")
    assert is_answered(web)
    web.tls = certificates.client(certified)
    assert not is_answered(web)


@pytest.mark.parametrize(
    ("name", "answered"),
    [
        *[
            (name, True)
            for name in ("prometheus.example", "10.1.2.3", "spiffe://example/prometheus", "ops@example.org")
        ],
        ('"2001:db8::1"', True),
        *[(name, False) for name in ("prometheus", "client", "10.1.2.4", '"*"')],
    ],
)
def test_a_clients_name_has_to_be_an_allowed_one(
    with_tls: Written, serve: Serve, certified: Path, name: str, answered: bool
) -> None:
    verified = ("client_auth_type: VerifyClientCertIfGiven", f"client_ca_file: {certified}/ca.crt")
    web = serve(with_tls(*verified, f"client_allowed_sans: [other.example, {name}]"))
    web.tls = certificates.client(certified, "client")
    assert is_answered(web) == answered
    web.tls = certificates.client(certified)
    assert not is_answered(web), "who shows no certificate has no name"


@pytest.mark.parametrize(
    ("names", "answered"),
    [
        ("RID:1.2.3.4", False),  # an object identifier that looks like an address
        ("dirName:folder\n[folder]\nCN=1.2.3.4", False),
        ("DER:30:07:87:05:01:02:03:04:05", False),  # an address of five bytes
        ("DNS:1.2.3.4", True),
        ("IP:::ffff:1.2.3.4", True),
        ("IP:1.2.3.4", True),
    ],
)
def test_names_are_of_the_kinds_that_go_looks_at(
    with_tls: Written, serve: Serve, certified: Path, logged: Logged, names: str, answered: bool
) -> None:
    certificates.issue(certified, "odd", names)
    verified = ("client_auth_type: RequireAndVerifyClientCert", f"client_ca_file: {certified}/ca.crt")
    web = serve(with_tls(*verified, "client_allowed_sans: [1.2.3.4]"))
    web.tls = certificates.client(certified, "odd")
    assert is_answered(web) == answered
    assert logged() == []
