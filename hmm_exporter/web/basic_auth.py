# SPDX-License-Identifier: Apache-2.0
"""Whether a name and a password are right, without a second of CPU for each scrape.

A password is hashed by bcrypt once; what is remembered of it is a keyed digest. Which requests
need one is ``gate``'s to say. No cryptography is here.
"""

from __future__ import annotations

import base64
import contextlib
import enum
import hashlib
import hmac
import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping

from hmm_exporter.config import ConfigError

# bcrypt looks at no more, and the library refuses more since 5.0.
_MAX_PASSWORD = 72

_MAX_FAILURES = 256

# Hashing takes a core, one of them at a time. Who floods it with wrong passwords waits for himself; a Prometheus whose
# jobs all come for the first time finds room.
MAX_WAITING = 32
MAX_WAITING_PER_CLIENT = 8


class Verdict(enum.Enum):
    RIGHT = enum.auto()
    WRONG = enum.auto()
    BUSY = enum.auto()
    """Too many passwords wait to be looked at."""


def check_users(users: Mapping[str, str]) -> None:
    """Raises ConfigError where bcrypt is not there or does not take a hash."""
    if not users:
        return
    try:
        import bcrypt
    except ImportError:
        raise ConfigError("basic_auth_users: Python's bcrypt is missing: install python3-bcrypt") from None
    for name, stored in users.items():
        try:
            # The salt as it is; at the least cost, because what comes out is of no interest.
            bcrypt.hashpw(b"", (stored[:4] + "04" + stored[6:29]).encode())
        except ValueError:
            raise ConfigError(f"basic_auth_users.{name}: not a hash of bcrypt") from None


class BasicAuth:
    """Judges credentials. One object for the life of the process: what it remembers holds for hashes, not for files."""

    def __init__(self) -> None:
        self._key = os.urandom(32)
        self._proved: dict[str, bytes] = {}  # at most one password of a user is right: wrong ones push nothing out
        self._failed: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()
        self._one = threading.Lock()
        self._waiting: Counter[str] = Counter()

    def judge(self, users: Mapping[str, str], authorization: str, client: str) -> Verdict:
        """What to make of an Authorization header of *client*, where *users* have these hashes."""
        given = _credentials(authorization)
        if given is None:
            return Verdict.WRONG
        name, password = given
        known = name in users
        # A name that nobody has costs what one of the others does, always the same one.
        stored = users[name] if known else self._stand_in(users, name)
        digest = self._digest(name, stored, password)
        verdict = self._remembered(name, digest)
        if verdict is not None:
            return verdict
        with self._turn(client) as mine:
            if not mine:
                return Verdict.BUSY
            verdict = self._remembered(name, digest)  # by who waited before
            if verdict is not None:
                return verdict
            right = _matches(password, stored) and known
        with self._lock:
            if right:
                self._proved[name] = digest
                for gone in self._proved.keys() - users.keys():
                    del self._proved[gone]
            else:
                self._failed[digest] = None
                while len(self._failed) > _MAX_FAILURES:
                    self._failed.popitem(last=False)
        return Verdict.RIGHT if right else Verdict.WRONG

    def _remembered(self, name: str, digest: bytes) -> Verdict | None:
        with self._lock:
            if hmac.compare_digest(self._proved.get(name, b""), digest):
                return Verdict.RIGHT
            return Verdict.WRONG if digest in self._failed else None

    def _stand_in(self, users: Mapping[str, str], name: str) -> str:
        number = int.from_bytes(hmac.digest(self._key, name.encode("utf-8", "surrogateescape"), "sha256"), "big")
        return sorted(users.values())[number % len(users)]

    def _digest(self, name: str, stored: str, password: bytes) -> bytes:
        # The name first hashed, so that no two triples are the same text.
        who = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
        return hmac.digest(self._key, who + stored.encode() + password, "sha256")  # a hash has 60 bytes

    @contextlib.contextmanager
    def _turn(self, client: str) -> Iterator[bool]:
        with self._lock:
            mine = self._waiting[client] < MAX_WAITING_PER_CLIENT and self._waiting.total() < MAX_WAITING
            if mine:
                self._waiting[client] += 1
        if not mine:
            yield False
            return
        try:
            with self._one:
                yield True
        finally:
            with self._lock:
                self._waiting[client] -= 1
                if not self._waiting[client]:
                    del self._waiting[client]


def _credentials(authorization: str) -> tuple[str, bytes] | None:
    """Name and password of ``Basic ...``, if that is what it is."""
    scheme, _, value = authorization.strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(value.strip(), validate=True).partition(b":")
    except ValueError:
        return None
    return (name.decode("utf-8", "surrogateescape"), password[:_MAX_PASSWORD]) if colon else None


def _matches(password: bytes, stored: str) -> bool:
    import bcrypt  # where nobody has a password, it need not be installed

    try:
        return bool(bcrypt.checkpw(password, stored.encode()))
    except ValueError:  # a NUL in the password: bcrypt 3 does not take it
        return False
