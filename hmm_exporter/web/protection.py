# SPDX-License-Identifier: Apache-2.0
"""The web configuration that counts at the moment: read again when its file, or one that it names, has changed.

What stands in it is ``web_config``'s subject, what follows for a request ``gate``'s.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from ssl import TLSVersion

from hmm_exporter import log
from hmm_exporter.config import ConfigError
from hmm_exporter.config_value import one_line
from hmm_exporter.web import basic_auth, tls, web_config
from hmm_exporter.web.tls import Tls
from hmm_exporter.web.web_config import VERIFYING, WebConfig

# What could not be read may be so for a reason that no file shows, such as too many open files. In seconds.
_RETRY = 10.0

_log = log.Logger(__name__)

_Stamp = tuple[int, ...]


@dataclass(frozen=True)
class Loaded:
    """A web configuration with what was made of it. Without a file: neither TLS nor passwords."""

    config: WebConfig = field(default_factory=WebConfig)
    tls: Tls | None = None
    stamps: Mapping[str, _Stamp] = field(default_factory=dict)
    """The files that it was read from, as they were just before."""

    @property
    def protections(self) -> frozenset[str]:
        """What must not end because somebody reads a file that is half written."""
        server = self.config.tls_server_config
        verifies = server.client_auth_type in VERIFYING
        has = {
            "TLS": self.tls is not None,
            "TLS 1.3 alone": self.tls is not None and self.tls.context.minimum_version is TLSVersion.TLSv1_3,
            # Without them those of the system are trusted: anybody who can get a certificate.
            "authorities of its own": verifies and bool(server.client_ca or server.client_ca_file),
            "client certificates": verifies,
            "required client certificates": server.client_auth_type == VERIFYING[-1],
            "client_allowed_sans": bool(server.client_allowed_sans),
            "basic_auth_users": bool(self.config.basic_auth_users),
        }
        return frozenset(name for name, there in has.items() if there)


def load(path: str) -> Loaded:
    """Everything that the file at *path* says and names, checked. Raises ConfigError."""
    stamps = {path: _stamp(path)}
    config = web_config.load(path)
    server, folder = config.tls_server_config, os.path.dirname(path)
    stamps.update((file, _stamp(file)) for file in tls.files(server, folder))
    try:
        basic_auth.check_users(config.basic_auth_users)
        return Loaded(config, tls.prepare(server, folder) if server.enabled else None, stamps)
    except ConfigError as error:
        raise ConfigError(f"{one_line(path, most=4096)}: {error}") from None


class Protection:
    """The web configuration of a running server. The constructor reads it; raises ConfigError."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._complaint, self._retry_at = "", 0.0
        self._loaded = Loaded() if path is None else load(path)
        self._seen = self._loaded.stamps
        self._remark()

    def current(self) -> Loaded:
        """What counts now. For each connection and each request: it costs a stat for each file."""
        stamps = {file: _stamp(file) for file in self._seen}
        changed = stamps != self._seen or (self._complaint and time.monotonic() >= self._retry_at)
        # While one reads, what was right a moment ago is for the others.
        if changed and self._lock.acquire(blocking=False):
            try:
                self._read_again(stamps)
            finally:
                self._lock.release()
        return self._loaded

    def _read_again(self, stamps: Mapping[str, _Stamp]) -> None:
        assert self._path is not None
        self._seen, self._retry_at = stamps, time.monotonic() + _RETRY
        try:
            loaded = load(self._path)
            missing = self._loaded.protections - loaded.protections
            if missing:
                raise ConfigError(f"{self._path}: {', '.join(sorted(missing))} would end: that needs a restart")
        except (ConfigError, OSError, RuntimeError) as error:  # no descriptor or no thread is left
            if str(error) != self._complaint:
                self._complaint = str(error)
                _log.error("the web configuration is not taken, the one before still counts", error=str(error))
            return
        self._complaint, self._loaded, self._seen = "", loaded, loaded.stamps
        _log.info("the web configuration was read again", file=self._path)
        self._remark()

    def _remark(self) -> None:
        for remark in self._loaded.tls.remarks if self._loaded.tls else ():
            _log.warning("the web configuration is taken in part", reason=remark)


def _stamp(file: str) -> _Stamp:
    """What changes with the contents of *file*, also by way of a symbolic link on its path."""
    try:
        found = os.stat(file)
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
