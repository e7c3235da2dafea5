# SPDX-License-Identifier: Apache-2.0
"""The web configuration of a real daemon, asked by curl, after it has given up its rights: its files are still read."""

from __future__ import annotations

import ssl
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path

from tests.process import Exporter
from tests.unit.web import certificates

#: Of exporter-toolkit's tests (web/testdata/web_config_users.good.yml), with their passwords.
CAROL = "carol: $2y$10$qRTBuFoULoYNA7AQ/F3ck.trZBPyjV64.oA4ZsSBCIWvXuvQlQTuu"
DAVE = "dave: $2y$10$2UXri9cIDdgeKjBo4Rlpx.U3ZLDV8X1IxKmsfOvhcM5oXQt/mLmXq"
AS_CAROL, AS_DAVE = ("--user", "carol:carol123"), ("--user", "dave:dave123")


class Secured(Exporter):
    """Asked by TLS."""

    def __init__(self, folder: Path, web_config: Path) -> None:
        super().__init__(folder, {"web": {"config_file": str(web_config)}})
        self._authority = certificates.client(web_config.parent)

    def get(self, path: str, accept: str = "") -> str:
        url = self.url.replace("http:", "https:") + path
        with urllib.request.urlopen(url, timeout=30, context=self._authority) as response:
            return str(response.read().decode())

    @property
    def served(self) -> str:
        """The certificate, in PEM."""
        return ssl.get_server_certificate(("127.0.0.1", urllib.parse.urlsplit(self.url).port or 0))


def curl(exporter: Secured, folder: Path, *arguments: str) -> int:
    """The status of /metrics; 0 where there is no answer."""
    command = ["curl", "--silent", "--max-time", "30", "--cacert", "ca.crt", "--output", "/dev/null", *arguments]
    url = exporter.url.replace("http:", "https:") + "/metrics"
    done = subprocess.run(
        [*command, "--write-out", "%{http_code}", url], cwd=folder, capture_output=True, text=True, check=False
    )
    return int(done.stdout)


def test_its_files_are_read_again_without_any_capability(tmp_path: Path) -> None:
    folder = tmp_path / "web"
    folder.mkdir()
    certificates.make(folder)
    file = folder / "web.yml"
    server = "tls_server_config: {cert_file: server.crt, key_file: server.key}\n"
    mutual = "tls_server_config: {cert_file: server.crt, key_file: server.key, client_ca_file: ca.crt,"
    file.write_text(f"{server}basic_auth_users: {{{DAVE}}}\n")
    exporter = Secured(tmp_path, file)
    with exporter:
        assert ' protections="TLS, basic_auth_users" ' in exporter.log
        status = Path(f"/proc/{exporter.process.pid}/status").read_text()
        assert [line.split()[1] for line in status.splitlines() if line.startswith("Cap")] == ["0" * 16] * 5
        assert [curl(exporter, folder, *user) for user in (AS_DAVE, AS_CAROL, ())] == [200, 401, 401]

        before = exporter.served
        certificates.issue(folder, "server", certificates.SERVER_NAMES)
        assert exporter.served == (folder / "server.crt").read_text() != before

        file.write_text(f"{server}basic_auth_users: {{{DAVE}, {CAROL}}}\n")
        assert [curl(exporter, folder, *user) for user in (AS_DAVE, AS_CAROL, ())] == [200, 200, 401]

        file.write_text(f"{mutual} client_auth_type: RequireAndVerifyClientCert}}\nbasic_auth_users: {{{DAVE}}}\n")
        client = ("--cert", "client.crt", "--key", "client.key")
        foreign = ("--cert", "foreign.crt", "--key", "foreign.key")
        asked = ((*client, *AS_DAVE), (*foreign, *AS_DAVE), AS_DAVE, client)
        assert [curl(exporter, folder, *words) for words in asked] == [200, 0, 0, 401]

        file.write_text("nonsense\n")
        assert [curl(exporter, folder, *words) for words in asked] == [200, 0, 0, 401]
        lines = [line for line in exporter.log.splitlines() if "the web configuration" in line]
        assert [line.split("level=")[1].split()[0] for line in lines] == ["info"] * 3 + ["error"]
        assert exporter.stop() == 0
