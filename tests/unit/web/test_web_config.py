# SPDX-License-Identifier: Apache-2.0
"""The web configuration file: what is taken, and what is said of what is not."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from hmm_exporter.config import ConfigError
from hmm_exporter.web import protection, web_config
from hmm_exporter.web.web_config import WebConfig
from tests.unit.web import certificates

HASH = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG"  # docs/web-configuration.md of the same
CERTIFIED = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"

Written = Callable[[str], Path]


def complaint(file: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        protection.load(str(file))
    said = str(caught.value)
    assert said.isprintable()
    return said.removeprefix(f"{file.parent}/").replace(f"{file.parent}/", "")


def test_an_empty_file_asks_for_nothing(written: Written) -> None:
    for text in ("", "# nothing\n", "tls_server_config:\nbasic_auth_users:\nhttp_server_config: {headers: }\n"):
        loaded = protection.load(str(written(text)))
        assert (loaded.config, loaded.tls) == (WebConfig(), None)


@pytest.mark.parametrize(
    "line", ['client_auth_type: ""', "client_auth_type: RequestClientCert\n  client_ca_file: ca.crt"]
)
def test_what_go_takes_without_verifying_anybody_is_taken(written: Written, line: str) -> None:
    loaded = protection.load(str(written(f"{CERTIFIED}  {line}\n")))
    assert loaded.protections == {"TLS"}


@pytest.mark.parametrize("word", ["y", "Y", "yes", "on", "True", "n", "N", "no", "OFF", "false"])
def test_truth_has_the_words_of_yaml_1_1(word: str) -> None:
    assert web_config.truth(word) == (word.lower() in ("y", "yes", "on", "true"))


def test_scalars_are_taken_as_go_takes_them(written: Written) -> None:
    text = "http_server_config:\n  http2: off\n  headers: {X-XSS-Protection: 0}\nbasic_auth_users:\n  12: " + HASH
    config = web_config.load(written(text))
    assert config.http_server_config.headers.x_xss_protection == "0"
    assert dict(config.basic_auth_users) == {"12": HASH}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("1s", 1),
        ("1.5s", 1.5),
        ("1h1m0.5s", 3660.5),
        ("250ms", 0.25),
        ("3us", 3e-6),
        ("3µs", 3e-6),
        ("7ns", 7e-9),
    ],
)
def test_durations_are_those_of_go(text: str, seconds: float) -> None:
    assert web_config.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "1", "-1s", "1d", "s", "1s ", "1 s", ".s", "1e3s", "01:00"])
def test_what_go_would_not_take_for_a_duration_is_none(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        web_config.duration(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "tls_server_config:\n  cert_filse: x\n",
            ":2: tls_server_config.cert_filse: unknown key (did you mean cert_file?): one of cert, ",
        ),
        ("tls: {}", ":1: tls: unknown key: one of tls_server_config, http_server_config, basic_auth_users, rate_limit"),
        (
            CERTIFIED + "  min_version: TLS14\n",
            ":4: tls_server_config.min_version: TLS14 is not allowed (did you mean TLS13?): one of TLS10, ",
        ),
        (
            CERTIFIED + "  max_version: TLS11\n",
            ":4: tls_server_config.max_version: TLS11 is not allowed (did you mean TLS13?): one of TLS12, TLS13",
        ),
        (
            CERTIFIED + "  min_version: TLS13\n  max_version: TLS12\n",
            ": tls_server_config: min_version TLS13 is above max_version TLS12",
        ),
        (
            CERTIFIED + "  cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]\n",
            ":4: tls_server_config.cipher_suites[0]: TLS_RSA_WITH_RC4_128_SHA is not allowed",
        ),
        (
            CERTIFIED + "  cipher_suites: [TLS_AES_128_GCM_SHA256]\n  max_version: TLS12\n",
            ": tls_server_config.cipher_suites: TLS 1.2 has none of these: one that it has",
        ),
        (
            CERTIFIED + "  curve_preferences: [CurveP257]\n",
            ":4: tls_server_config.curve_preferences[0]: CurveP257 is not allowed (did you mean CurveP256?): one of ",
        ),
        (
            CERTIFIED + "  prefer_server_cipher_suites: maybe\n",
            ":4: tls_server_config.prefer_server_cipher_suites: maybe is not allowed: true or false",
        ),
        (
            CERTIFIED + "  client_auth_type: RequireAnyClientCert\n",
            ":4: tls_server_config.client_auth_type: RequireAnyClientCert is not allowed",
        ),
        (
            CERTIFIED + "  client_allowed_sans: []\n",
            ":4: tls_server_config.client_allowed_sans: a list of 0 is not allowed: 1 to 1024 items",
        ),
        (
            CERTIFIED + "  client_ca_file: ca.crt\n",
            ": tls_server_config.client_ca_file: client_auth_type NoClientCert verifies no certificate: ",
        ),
        (
            CERTIFIED + "  client_auth_type: RequestClientCert\n  client_allowed_sans: [x]\n",
            ": tls_server_config.client_allowed_sans: client_auth_type RequestClientCert verifies no certificate: ",
        ),
        (
            CERTIFIED + '  client_auth_type: ""\n  client_ca_file: ca.crt\n',
            ": tls_server_config.client_ca_file: client_auth_type NoClientCert verifies no certificate: ",
        ),
        (
            "tls_server_config: {client_auth_type: NoClientCert}",
            ": tls_server_config: cert_file is missing: TLS needs it, or cert",
        ),
        (
            "tls_server_config: {cert_file: server.crt}",
            ": tls_server_config: key_file is missing: TLS needs it, or key",
        ),
        ("tls_server_config: {min_version: TLS13}", ": tls_server_config: cert_file is missing: TLS needs it, or cert"),
        (CERTIFIED + "  cert: x\n", ": tls_server_config: cert and cert_file: one of the two is allowed"),
        (
            "tls_server_config: {cert_file: no.crt, key_file: server.key}",
            ": tls_server_config.cert_file: no.crt: cannot be read: No such file or directory",
        ),
        (
            "tls_server_config: {cert_file: server.crt, key_file: .}",
            ": tls_server_config.key_file: .: cannot be read: Is a directory",
        ),
        (
            "tls_server_config: {cert_file: /dev/zero, key_file: server.key}",
            ": tls_server_config.cert_file: /dev/zero: too large: at most 1 MiB",
        ),
        (
            "tls_server_config: {cert_file: server.crt, key_file: client.key}",
            ": tls_server_config: key is not that of cert",
        ),
        (
            "tls_server_config: {cert_file: server.key, key_file: server.key}",
            ": tls_server_config.cert_file: server.key, tls_server_config.key_file: server.key: not a certificate",
        ),
        (
            "tls_server_config: {cert: nonsense, key_file: server.key}",
            ": tls_server_config.cert, tls_server_config.key_file: server.key: not a certificate and its key in PEM",
        ),
        (
            CERTIFIED + "  client_auth_type: RequireAndVerifyClientCert\n  client_ca: nonsense\n",
            ": tls_server_config.client_ca: not certificates in PEM",
        ),
        (
            "http_server_config: {headers: {X-Frame-Options: allow}}",
            ":1: http_server_config.headers.X-Frame-Options: allow is not allowed: one of deny, sameorigin",
        ),
        (
            "http_server_config: {headers: {Server: x}}",
            ":1: http_server_config.headers.Server: unknown key: one of Content-Security-Policy, X-Frame-Options, ",
        ),
        (
            'http_server_config: {headers: {X-XSS-Protection: "1\\r\\nSet-Cookie: x"}}',
            ":1: http_server_config.headers.X-XSS-Protection: ",
        ),
        (
            "rate_limit: {interval: 1, burst: 1}",
            ":1: rate_limit.interval: 1 is not allowed: a duration as 1s or 1m30s, or 0 for no limit",
        ),
        ("rate_limit: {interval: 1s}", ": rate_limit.burst: 0 would refuse every request: 1 or more with an interval"),
        (
            "rate_limit: {interval: 1s, burst: -1}",
            ":1: rate_limit.burst: -1 is not allowed: a whole number from 0 to 1000000",
        ),
        ("basic_auth_users:\n  'a:b': " + HASH, ": basic_auth_users: a name with a colon: HTTP has no way to send it"),
        ("tls_server_config: [a", ":1:22: not YAML: "),
    ],
)
def test_what_is_wrong_is_told_in_one_line(written: Written, text: str, said: str) -> None:
    assert complaint(written(text)).startswith(f"web.yml{said}")


@pytest.mark.parametrize(
    "text",
    [
        "basic_auth_users: {john: hunter2}",
        "basic_auth_users: {john: [hunter2]}",
        "basic_auth_users: {john: $2y$31$hunter2" + HASH[14:] + "}",
        "basic_auth_users: {john: $2y$19$hunter2" + HASH[14:] + "}",
        "basic_auth_users: {john: $2x$10$hunter2" + HASH[14:] + "}",
        "basic_auth_users: [hunter2]",
        "basic_auth_users: hunter2",
    ],
)
def test_no_password_is_ever_shown(written: Written, text: str) -> None:
    said = complaint(written(text))
    assert said.startswith("web.yml:1: basic_auth_users")
    assert "hunter2" not in said


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(written: Written, certified: Path) -> None:
    encrypted = certificates.encrypted_key(certified / "server.key")
    said = complaint(written(f"tls_server_config: {{cert_file: server.crt, key: {json.dumps(encrypted)}}}"))
    assert said == "web.yml: tls_server_config.key: encrypted: a key without a password is allowed"


def test_a_certificate_and_its_key_may_stand_in_the_file(written: Written, certified: Path) -> None:
    pem = {name: json.dumps((certified / name).read_text()) for name in ("server.crt", "server.key", "ca.crt")}
    text = f"tls_server_config: {{cert: {pem['server.crt']}, key: {pem['server.key']}, client_ca: {pem['ca.crt']}"
    loaded = protection.load(str(written(text + ", client_auth_type: VerifyClientCertIfGiven}")))
    assert loaded.tls


def test_relative_paths_are_those_of_the_files_folder(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(CERTIFIED)
    monkeypatch.chdir("/")
    assert protection.load(str(file)).tls
    monkeypatch.chdir(file.parent)
    assert protection.load(file.name).tls


def test_what_can_be_had_in_part_only_is_said(written: Written) -> None:
    text = CERTIFIED + "  min_version: TLS10\n  curve_preferences: [CurveP256, CurveP384]\n"
    loaded = protection.load(str(written(text)))
    assert loaded.tls is not None
    assert loaded.tls.remarks == (
        "min_version TLS10: nothing below TLS 1.2 is spoken",
        "curve_preferences: Python can set one, so only CurveP256 counts",
    )


@pytest.mark.parametrize("name", web_config.CIPHER_SUITES)
def test_this_machines_openssl_has_every_cipher_of_go(written: Written, name: str) -> None:
    loaded = protection.load(str(written(f"{CERTIFIED}  cipher_suites: [{name}]\n")))
    assert loaded.tls is not None
    ours = [each["name"] for each in loaded.tls.context.get_ciphers() if each["protocol"] != "TLSv1.3"]
    if web_config.CIPHER_SUITES[name]:
        assert ours == [web_config.CIPHER_SUITES[name]]
    else:
        assert loaded.tls.context.minimum_version == ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize("name", web_config.CURVES)
def test_a_curve_of_go_is_set_or_refused(written: Written, name: str) -> None:
    file = written(f"{CERTIFIED}  curve_preferences: [{name}]\n")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ecdh_curve(web_config.CURVES[name])
    except ssl.SSLError:  # X25519 with some versions of Python
        assert complaint(file) == f"web.yml: tls_server_config.curve_preferences: this Python cannot set {name}"
    else:
        assert protection.load(str(file)).tls
