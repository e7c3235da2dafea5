# SPDX-License-Identifier: Apache-2.0
"""Keys and certificates, made by openssl: one authority, and what it and another one signed."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

# What strict clients demand of an authority (RFC 5280, 4.2.1.3), as Python's since 3.13 are.
_AUTHORITY = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")

SERVER_NAMES = "DNS:localhost,IP:127.0.0.1"
CLIENT_NAMES = "DNS:prometheus.example,IP:10.1.2.3,IP:2001:db8::1,URI:spiffe://example/prometheus,email:ops@example.org"


def make(folder: Path) -> Path:
    """Fills *folder* with NAME.crt and NAME.key: ca, server, client, expired (a client), other_ca, foreign (of it)."""
    for name in ("ca", "other_ca"):
        made = ("-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.crt")
        _openssl(folder, "req", "-x509", *_KEY, *_AUTHORITY, "-days", "2", *made)
    issue(folder, "server", SERVER_NAMES)
    issue(folder, "client", CLIENT_NAMES)
    issue(folder, "expired", CLIENT_NAMES, days=-1)
    issue(folder, "foreign", CLIENT_NAMES, authority="other_ca")
    return folder


def issue(folder: Path, name: str, names: str, authority: str = "ca", days: int = 2) -> None:
    _openssl(folder, "req", *_KEY, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
    extensions = f"authorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\nsubjectAltName={names}\n"
    (folder / f"{name}.ext").write_text(extensions)
    signer = ("-CA", f"{authority}.crt", "-CAkey", f"{authority}.key", "-CAcreateserial", "-extfile", f"{name}.ext")
    _openssl(folder, "x509", "-req", "-in", f"{name}.csr", *signer, "-days", str(days), "-out", f"{name}.crt")


def client(folder: Path, certificate: str = "") -> ssl.SSLContext:
    """What trusts the authority, and shows a certificate where one is named."""
    context = ssl.create_default_context(cafile=folder / "ca.crt")
    if certificate:
        context.load_cert_chain(folder / f"{certificate}.crt", folder / f"{certificate}.key")
    return context


def encrypted_key(key: Path) -> str:
    """That key, with a password."""
    return _openssl(key.parent, "pkey", "-in", key.name, "-aes256", "-passout", "pass:secret")


def _openssl(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
