# SPDX-License-Identifier: Apache-2.0
"""The web configuration of Prometheus' exporters (``--web.config.file``), as exporter-toolkit documents it.

The dataclasses are its schema, and the texts in them what the file says. What Go's names mean here
is ``tls``'s to say, whose password is right ``basic_auth``'s, when the file is read again ``protection``'s.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hmm_exporter.config import ConfigError
from hmm_exporter.config_file import read
from hmm_exporter.config_rule import Rule, Text
from hmm_exporter.config_value import one_line

# 2^18 rounds a password take 20 s of a core; more would shut out everybody else meanwhile.
_MAX_COST = 18

_BCRYPT = re.compile(r"\$2[aby]\$([0-3][0-9])\$[./A-Za-z0-9]{53}")

# Go's time.ParseDuration.
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_STEP = re.compile(r"([0-9]{1,9}(?:\.[0-9]{0,9})?)(ns|us|µs|ms|s|m|h)")

_TRUE = ("true", "yes", "on", "y")

# Those of crypto/tls, Go 1.22 and newer.
CLIENT_AUTH_TYPES = (
    "NoClientCert",
    "RequestClientCert",
    "VerifyClientCertIfGiven",
    "RequireAndVerifyClientCert",
)
_WHY_NOT_ANY = "Python's ssl cannot accept a certificate that it has not verified"
VERIFYING = CLIENT_AUTH_TYPES[2:]
"""Those that check a certificate."""
TLS_VERSIONS = ("TLS10", "TLS11", "TLS12", "TLS13")
CIPHER_SUITES: Mapping[str, str] = {
    "TLS_AES_128_GCM_SHA256": "",
    "TLS_AES_256_GCM_SHA384": "",
    "TLS_CHACHA20_POLY1305_SHA256": "",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
}
"""Go's names, and OpenSSL's; none for those of TLS 1.3, which neither Go nor Python lets anybody choose."""
CURVES: Mapping[str, str] = {
    "CurveP256": "prime256v1",
    "CurveP384": "secp384r1",
    "CurveP521": "secp521r1",
    "X25519": "X25519",
}


def _any(text: str) -> None:
    pass


def truth(text: str) -> bool:
    """Of YAML 1.1's words, which Go's reader knows, too; raises ValueError for others."""
    if text.lower() not in (*_TRUE, "false", "no", "off", "n"):
        raise ValueError
    return text.lower() in _TRUE


def _hash(text: str) -> None:
    match = _BCRYPT.fullmatch(text)
    if match is None or not 4 <= int(match[1]) <= _MAX_COST:
        raise ValueError


def duration(text: str) -> float:
    """Seconds; raises ValueError where Go's time.ParseDuration would, and for a duration below 0."""
    steps = _STEP.findall(text)
    if text != "0" and (not steps or "".join(number + unit for number, unit in steps) != text):
        raise ValueError
    return sum(float(number) * _SECONDS[unit] for number, unit in steps)


def _line(text: str) -> None:
    if not (text.isascii() and text.isprintable()):
        raise ValueError


def _rule(**limits: Any) -> Mapping[str, Rule]:
    return {"rule": Rule("", **limits)}


_UNSET = Text("")
_ANY = _rule(check=_any)
_TRUTH = _rule(check=truth, allowed="true or false")
_LINE = {"check": _line, "allowed": "a line of printable ASCII"}


@dataclass(frozen=True)
class TlsServerConfig:
    """``tls_server_config``"""

    cert: Text = field(default=_UNSET, metadata=_ANY)
    key: Text = field(default=_UNSET, metadata=_rule(check=_any, secret=True))
    client_ca: Text = field(default=_UNSET, metadata=_ANY)
    cert_file: Text = field(default=_UNSET, metadata=_ANY)
    key_file: Text = field(default=_UNSET, metadata=_ANY)
    client_auth_type: Text = field(
        default=_UNSET,  # NoClientCert; but whoever writes that wants TLS
        metadata=_rule(
            choices=("", *CLIENT_AUTH_TYPES), allowed=f"one of {', '.join(CLIENT_AUTH_TYPES)} ({_WHY_NOT_ANY})"
        ),
    )
    client_ca_file: Text = field(default=_UNSET, metadata=_ANY)
    client_allowed_sans: tuple[Text, ...] = field(
        default=(), metadata=_rule(check=_any, allowed="a text", least=1, most=1024)
    )
    min_version: Text = field(default=Text("TLS12"), metadata=_rule(choices=TLS_VERSIONS))
    max_version: Text = field(default=Text("TLS13"), metadata=_rule(choices=TLS_VERSIONS[2:]))
    cipher_suites: tuple[Text, ...] = field(default=(), metadata=_rule(choices=tuple(CIPHER_SUITES)))
    prefer_server_cipher_suites: Text = field(default=Text("true"), metadata=_TRUTH)
    curve_preferences: tuple[Text, ...] = field(default=(), metadata=_rule(choices=tuple(CURVES)))

    @property
    def enabled(self) -> bool:
        return self != TlsServerConfig()


@dataclass(frozen=True)
class Headers:
    """``http_server_config.headers``"""

    content_security_policy: Text = field(default=_UNSET, metadata=_rule(key="Content-Security-Policy", **_LINE))
    x_frame_options: Text = field(default=_UNSET, metadata=_rule(key="X-Frame-Options", choices=("deny", "sameorigin")))
    x_content_type_options: Text = field(
        default=_UNSET, metadata=_rule(key="X-Content-Type-Options", choices=("nosniff",))
    )
    x_xss_protection: Text = field(default=_UNSET, metadata=_rule(key="X-XSS-Protection", **_LINE))
    strict_transport_security: Text = field(default=_UNSET, metadata=_rule(key="Strict-Transport-Security", **_LINE))


@dataclass(frozen=True)
class HttpServerConfig:
    """``http_server_config``; HTTP/2 is not spoken, whatever is asked for."""

    http2: Text = field(default=Text("true"), metadata=_TRUTH)
    headers: Headers = field(default_factory=Headers)


@dataclass(frozen=True)
class RateLimit:
    """``rate_limit``: requests of all clients together, but for health."""

    interval: Text = field(
        default=Text("0"), metadata=_rule(check=duration, allowed="a duration as 1s or 1m30s, or 0 for no limit")
    )
    burst: int = field(default=0, metadata=_rule(low=0, high=1_000_000))


@dataclass(frozen=True)
class WebConfig:
    """A web configuration file."""

    tls_server_config: TlsServerConfig = field(default_factory=TlsServerConfig)
    http_server_config: HttpServerConfig = field(default_factory=HttpServerConfig)
    basic_auth_users: Mapping[str, Text] = field(
        default_factory=dict,
        metadata=_rule(
            check=_hash, allowed=f"a password hashed by bcrypt, $2y$10$..., at a cost of 4 to {_MAX_COST}", secret=True
        ),
    )
    rate_limit: RateLimit = field(default_factory=RateLimit)


def load(path: str | os.PathLike[str]) -> WebConfig:
    """The web configuration in the file at *path*; the files that it names are not looked at.

    Raises ConfigError, with ``file:line`` where a line is to blame.
    """
    config = read(path, WebConfig)
    try:
        _check(config.tls_server_config)
        if duration(config.rate_limit.interval) and not config.rate_limit.burst:
            raise ConfigError("rate_limit.burst: 0 would refuse every request: 1 or more with an interval")
        if any(":" in name for name in config.basic_auth_users):
            raise ConfigError("basic_auth_users: a name with a colon: HTTP has no way to send it")
    except ConfigError as error:
        raise ConfigError(f"{one_line(os.fspath(path), most=4096)}: {error}") from None
    return config


def _check(tls: TlsServerConfig) -> None:
    """What no line alone is to blame for."""
    for name in ("cert", "key", "client_ca"):
        inline, file = getattr(tls, name), getattr(tls, f"{name}_file")
        if inline and file:
            raise ConfigError(f"tls_server_config: {name} and {name}_file: one of the two is allowed")
        if tls.enabled and name != "client_ca" and not (inline or file):
            raise ConfigError(f"tls_server_config: {name}_file is missing: TLS needs it, or {name}")
    if TLS_VERSIONS.index(tls.min_version) > TLS_VERSIONS.index(tls.max_version):
        raise ConfigError(f"tls_server_config: min_version {tls.min_version} is above max_version {tls.max_version}")
    if tls.client_auth_type not in VERIFYING:
        # Go takes authorities with RequestClientCert, and has no use for them either.
        authorities = () if tls.client_auth_type == "RequestClientCert" else ("client_ca", "client_ca_file")
        for name in (*authorities, "client_allowed_sans"):
            if getattr(tls, name):
                given = tls.client_auth_type or "NoClientCert"
                raise ConfigError(
                    f"tls_server_config.{name}: client_auth_type {given} verifies no certificate:"
                    f" {' or '.join(VERIFYING)} does"
                )
