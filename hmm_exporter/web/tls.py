# SPDX-License-Identifier: Apache-2.0
"""TLS as the web configuration wants it, by OpenSSL: contexts, and the handshake of one connection.

What may be asked for is ``web_config``'s to say, who answers whom ``server``'s. No cryptography is here.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from hmm_exporter.config import ConfigError
from hmm_exporter.web.web_config import CIPHER_SUITES, CURVES, TlsServerConfig, truth

# A chain of RSA-4096 certificates is 10 kB, all authorities of a distribution 250 kB.
_MAX_BYTES = 1 << 20

_HANDSHAKE_RECORD = 0x16
_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_VERIFY = {
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}


class Refused(OSError):
    """The client may not talk here; says why."""


class NotTls(Refused):
    """The client does not talk TLS."""


@dataclass(frozen=True)
class Tls:
    """What a connection needs to become a secure one."""

    context: ssl.SSLContext
    allowed_sans: frozenset[str] = frozenset()
    remarks: tuple[str, ...] = ()
    """What was asked for and cannot be had; never less protection."""

    def wrap(self, connection: socket.socket) -> ssl.SSLSocket:
        """*connection* as one that talks TLS, before its handshake."""
        return self.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)

    def shake_hands(self, connection: ssl.SSLSocket) -> None:
        """Within the connection's timeout, which counts for all of it. Raises OSError."""
        connection.do_handshake()
        if self.allowed_sans and not self.allowed_sans & set(_names(connection.getpeercert() or {})):
            raise Refused("no name of the client's certificate is one of client_allowed_sans")


def talks_tls(connection: socket.socket) -> bool:
    """Whether the first byte, for which it waits, begins a handshake. Also where there is none."""
    first = connection.recv(1, socket.MSG_PEEK)
    return not first or first[0] == _HANDSHAKE_RECORD


def files(config: TlsServerConfig, folder: str) -> list[str]:
    """The files that *config* names, relative ones in *folder*."""
    names = (config.cert_file, config.key_file, config.client_ca_file)
    return [os.path.join(folder, name) for name in names if name]


def prepare(config: TlsServerConfig, folder: str) -> Tls:
    """Raises ConfigError, with the key that is to blame."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION
    # A scraper keeps its connection: tickets of TLS 1.3 are work for nothing. So are sessions of TLS 1.2, but Python
    # cannot forget them: OpenSSL keeps up to 20,480, of clients without tickets (SSL_SESSION_CACHE_MAX_SIZE_DEFAULT).
    context.num_tickets = 0
    remarks = [*_choose_versions(context, config), *_choose_curve(context, config)]
    _choose_ciphers(context, config)
    _load_certificate(context, config, folder)
    if config.client_auth_type in _VERIFY:
        _load_authorities(context, config, folder)
    return Tls(context, frozenset(config.client_allowed_sans), tuple(remarks))


def _choose_versions(context: ssl.SSLContext, config: TlsServerConfig) -> Iterator[str]:
    """Yields what cannot be had of what was asked for."""
    context.minimum_version = _VERSIONS.get(config.min_version, ssl.TLSVersion.TLSv1_2)
    context.maximum_version = _VERSIONS[config.max_version]
    if config.min_version not in _VERSIONS:
        yield f"min_version {config.min_version}: nothing below TLS 1.2 is spoken"


def _choose_ciphers(context: ssl.SSLContext, config: TlsServerConfig) -> None:
    if truth(config.prefer_server_cipher_suites):
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if not config.cipher_suites:
        return
    ours = [CIPHER_SUITES[name] for name in config.cipher_suites if CIPHER_SUITES[name]]
    if not ours:  # those of TLS 1.3 alone: nothing is left to talk below it
        if config.max_version == "TLS12":
            raise ConfigError("tls_server_config.cipher_suites: TLS 1.2 has none of these: one that it has")
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        return
    for name in ours:
        try:
            context.set_ciphers(name)
        except ssl.SSLError:
            raise ConfigError(f"tls_server_config.cipher_suites: this machine's OpenSSL has no {name}") from None
    context.set_ciphers(":".join(ours))


def _choose_curve(context: ssl.SSLContext, config: TlsServerConfig) -> Iterator[str]:
    """Yields what cannot be had of what was asked for."""
    # Python gives OpenSSL one, or leaves it its own, which are these four and others as strong.
    if not config.curve_preferences or set(config.curve_preferences) == set(CURVES):
        return
    for name in config.curve_preferences:
        try:
            context.set_ecdh_curve(CURVES[name])
        except ssl.SSLError:  # X25519, by older Pythons
            continue
        if len(config.curve_preferences) > 1:
            yield f"curve_preferences: Python can set one, so only {name} counts"
        return
    raise ConfigError(f"tls_server_config.curve_preferences: this Python cannot set {config.curve_preferences[0]}")


def _load_certificate(context: ssl.SSLContext, config: TlsServerConfig, folder: str) -> None:
    cert = _pem("cert", config.cert, config.cert_file, folder)
    key = _pem("key", config.key, config.key_file, folder)

    def encrypted() -> NoReturn:  # else OpenSSL would ask whoever sits at the terminal
        where = _named("key", config.key_file, folder)
        raise ConfigError(f"{where}: encrypted: a key without a password is allowed")

    try:
        # Python's ssl takes paths only. What was read is what counts: a file may be another one by now.
        with _path_of(cert) as cert_path, _path_of(key) as key_path:
            context.load_cert_chain(cert_path, key_path, encrypted)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError("tls_server_config: key is not that of cert") from None
        where = f"{_named('cert', config.cert_file, folder)}, {_named('key', config.key_file, folder)}"
        raise ConfigError(f"{where}: not a certificate and its key in PEM ({error.reason or error})") from None


def _load_authorities(context: ssl.SSLContext, config: TlsServerConfig, folder: str) -> None:
    context.verify_mode = _VERIFY[config.client_auth_type]
    # As Go: each certificate of the file is trusted, also one that another has issued.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if not (config.client_ca or config.client_ca_file):
        context.load_default_certs(ssl.Purpose.CLIENT_AUTH)  # Go, too, trusts the system's authorities then
        return
    pem = _pem("client_ca", config.client_ca, config.client_ca_file, folder)
    try:
        context.load_verify_locations(cadata=pem.decode("ascii", "ignore"))
    except ssl.SSLError as error:
        where = _named("client_ca", config.client_ca_file, folder)
        raise ConfigError(f"{where}: not certificates in PEM ({error.reason or error})") from None


def _pem(key: str, inline: str, file: str, folder: str) -> bytes:
    if inline:
        return inline.encode()
    try:
        with open(os.path.join(folder, file), "rb") as opened:
            data = opened.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ConfigError(f"{_named(key, file, folder)}: cannot be read: {getattr(error, 'strerror', error)}") from None
    if len(data) > _MAX_BYTES:
        raise ConfigError(f"{_named(key, file, folder)}: too large: at most {_MAX_BYTES >> 20} MiB")
    return data


def _named(key: str, file: str, folder: str) -> str:
    return f"tls_server_config.{key}_file: {os.path.join(folder, file)}" if file else f"tls_server_config.{key}"


@contextlib.contextmanager
def _path_of(data: bytes) -> Iterator[str]:
    """A path at which *data* can be read, while the block lasts; in memory."""
    with open(os.memfd_create("pem", os.MFD_CLOEXEC), "wb", buffering=0) as file:
        file.write(data)
        yield f"/proc/self/fd/{file.fileno()}"


def _names(certificate: dict[str, Any]) -> Iterator[str]:
    """The subject's alternative names of the kinds that Go looks at, as it writes them."""
    for kind, value in certificate.get("subjectAltName", ()):
        if kind in ("DNS", "email", "URI"):
            yield value
        elif kind == "IP Address":
            with contextlib.suppress(ValueError):  # of neither 4 nor 16 bytes
                address = ipaddress.ip_address(value.strip())
                yield str(getattr(address, "ipv4_mapped", None) or address)
