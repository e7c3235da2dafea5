# SPDX-License-Identifier: Apache-2.0
"""The web configuration file: any bytes are one that keeps every rule, or a ConfigError of one line.

The line shows no hash of a password and no private key that stand where they belong, whatever else is wrong there.
"""

from __future__ import annotations

import functools

import yaml

from hmm_exporter.config import ConfigError
from hmm_exporter.web import basic_auth
from hmm_exporter.web.web_config import CIPHER_SUITES, CLIENT_AUTH_TYPES, CURVES, TLS_VERSIONS, duration, load
from tests.fuzz.target import ScratchFile, Target, check_message

_file = ScratchFile()

_HASH = "$2y$04$abcdefghijklmnopqrstuuSPfMOLo5gSrmYNtYFzuGXdUFzbSSzRi"
_KEY = "MIGHAgEAMBMGByqGSM49"
"""Of the kinds of secrets that there are: written, and good for nothing."""


def try_one(data: bytes) -> None:
    path = _file.write(data)
    try:
        config = load(path)
        _check_hashes(*config.basic_auth_users.values())
    except ConfigError as error:
        message = str(error)
        check_message(message.removeprefix(f"{path}:"))
        for secret in (_HASH[7:20], _KEY[:12]):
            assert secret not in message or _is_elsewhere(secret, data), "a secret is told"
        return
    tls, limit = config.tls_server_config, config.rate_limit
    assert tls.client_auth_type in ("", *CLIENT_AUTH_TYPES)
    assert tls.enabled or not tls.client_auth_type
    assert TLS_VERSIONS.index(tls.min_version) <= TLS_VERSIONS.index(tls.max_version)
    assert {*tls.cipher_suites} <= CIPHER_SUITES.keys()
    assert {*tls.curve_preferences} <= CURVES.keys()
    assert not tls.enabled or ((tls.cert or tls.cert_file) and (tls.key or tls.key_file))
    assert duration(limit.interval) == 0 or (duration(limit.interval) > 0 and limit.burst > 0)
    for header in vars(config.http_server_config.headers).values():
        assert header.isascii()
        assert header.isprintable() or not header


@functools.cache
def _check_hashes(*hashes: str) -> None:
    """It takes a thousandth of a second for each."""
    basic_auth.check_users(dict(zip("abcdefghijklmnopqrstuvwxyz", hashes)))


def _is_elsewhere(secret: str, data: bytes) -> bool:
    """Whether it stands in a place where no secret belongs, or nobody can say in which."""
    if set(b"!&*") & set(data):  # what these are in front of is told, too
        return True
    try:
        root = yaml.compose(data, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return True
    pairs = root.value if isinstance(root, yaml.MappingNode) else [(root, root)]
    return any(secret in yaml.serialize(each, width=len(data)) for pair in pairs for each in _elsewhere(*pair))


def _elsewhere(key: yaml.Node, value: yaml.Node) -> list[yaml.Node]:
    """Of a pair at the top, what is no place of secrets."""
    if key.value == "basic_auth_users":
        return [key]
    if key.value == "tls_server_config" and isinstance(value, yaml.MappingNode):
        return [key, *(each for its, child in value.value for each in ([its] if its.value == "key" else [its, child]))]
    return [key, value]


TARGET = Target(
    try_one,
    most_bytes=512,
    words=[
        *(
            "tls_server_config:\n",
            "  cert_file: a\n",
            "  key_file: b\n",
            "  client_ca_file: c\n",
            "  cert: ",
            "  key: ",
        ),
        *(
            "  client_auth_type: ",
            "  min_version: ",
            "  max_version: ",
            "  cipher_suites:\n  - ",
            "  - ",
            "  key: ",
            _KEY,
        ),
        *("  client_allowed_sans:\n  - x\n", "  curve_preferences: [", "  prefer_server_cipher_suites: true\n"),
        *("http_server_config:\n", "  http2: false\n", "  headers:\n", "    X-Frame-Options: deny\n", "    "),
        *("Strict-Transport-Security: ", "Content-Security-Policy: ", "X-XSS-Protection: 1\n", "nosniff"),
        *("basic_auth_users:\n", f"  u: {_HASH}\n", _HASH, "rate_limit:\n", "  interval: 1s\n", "  burst: 2\n"),
        *(
            *CLIENT_AUTH_TYPES,
            *TLS_VERSIONS,
            *list(CIPHER_SUITES)[:4],
            *CURVES,
            ": ",
            "\n",
            "|\n",
            "&a ",
            "*a",
            "'",
            '"',
        ),
    ],
)
