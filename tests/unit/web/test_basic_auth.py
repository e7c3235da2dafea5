# SPDX-License-Identifier: Apache-2.0
"""Names and passwords: judged by the real bcrypt, at its least cost."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable
from pathlib import Path

import bcrypt
import pytest

from hmm_exporter.web.basic_auth import MAX_WAITING_PER_CLIENT, BasicAuth, Verdict
from tests.unit.web.served import Fixture

RIGHT, WRONG, BUSY = Verdict.RIGHT, Verdict.WRONG, Verdict.BUSY


def hashed(password: str, cost: int = 4) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


USERS = {"alice": hashed("sesame"), "bob": hashed("secret"), "zoë": hashed("ünïcode")}


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


class Bcrypt:
    """Counts what the real one is asked to compare, and lets a test hold it up."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.begun, self.go_on = threading.Semaphore(0), threading.Event()
        self.go_on.set()
        self._real = bcrypt.checkpw

    def __call__(self, password: bytes, stored: bytes) -> bool:
        self.asked.append(stored)
        self.begun.release()
        assert self.go_on.wait(30)
        return self._real(password, stored)


@pytest.fixture
def comparisons(monkeypatch: pytest.MonkeyPatch) -> Bcrypt:
    counting = Bcrypt()
    monkeypatch.setattr(bcrypt, "checkpw", counting)
    return counting


@pytest.mark.parametrize(
    ("name", "password", "verdict"),
    [
        ("alice", "sesame", RIGHT),
        ("bob", "secret", RIGHT),
        ("zoë", "ünïcode", RIGHT),
        ("alice", "secret", WRONG),
        ("alice", "", WRONG),
        ("alice", "sesame:", WRONG),
        ("alice", "sesame\0", WRONG),
        ("Alice", "sesame", WRONG),
        ("", "sesame", WRONG),
        ("mallory", "sesame", WRONG),
        ("mallory", "secret", WRONG),
    ],
)
def test_a_name_and_its_password_are_right_and_nothing_else_is(name: str, password: str, verdict: Verdict) -> None:
    auth = BasicAuth()
    for _ in range(3):
        assert auth.judge(USERS, basic(name, password), "client") is verdict


@pytest.mark.parametrize(
    "header",
    [
        *["", "Basic", "Basic ", "Basic !!!", "Basic YWxpY2U=", "Bearer YWxpY2U6c2VzYW1l", "YWxpY2U6c2VzYW1l"],
        *["Basic YWxpY2U6c2VzYW1l,", "Basic \xff\xfe", "Basic " + "A" * 16000, "Basic YWxpY2U6 c2VzYW1l"],
    ],
)
def test_what_is_no_name_and_password_is_wrong_and_costs_nothing(header: str, comparisons: Bcrypt) -> None:
    assert BasicAuth().judge(USERS, header, "client") is WRONG
    assert len(comparisons.asked) <= header.startswith("Basic AAAA")  # which is nulls without a colon, or with


def test_the_schemes_name_is_the_same_in_capitals() -> None:
    assert BasicAuth().judge(USERS, basic("alice", "sesame").replace("Basic", "BASIC"), "client") is RIGHT


def test_bcrypt_looks_at_72_bytes_of_a_password_as_everywhere() -> None:
    users = {"long": hashed("x" * 72)}
    assert BasicAuth().judge(users, basic("long", "x" * 72), "client") is RIGHT
    assert BasicAuth().judge(users, basic("long", "x" * 100), "client") is RIGHT
    assert BasicAuth().judge(users, basic("long", "x" * 71), "client") is WRONG


def test_the_variants_that_htpasswd_and_others_write_are_taken() -> None:
    # Of exporter-toolkit's web/testdata/web_config_users.good.yml, with the password of its test.
    users = {"dave": "$2y$10$2UXri9cIDdgeKjBo4Rlpx.U3ZLDV8X1IxKmsfOvhcM5oXQt/mLmXq"}
    assert BasicAuth().judge(users, basic("dave", "dave123"), "client") is RIGHT
    for variant in ("$2a$", "$2b$"):
        assert BasicAuth().judge({"dave": variant + users["dave"][4:]}, basic("dave", "dave123"), "client") is RIGHT


def test_a_password_is_hashed_once_right_or_wrong(comparisons: Bcrypt) -> None:
    auth = BasicAuth()
    for _ in range(5):
        assert auth.judge(USERS, basic("alice", "sesame"), "client") is RIGHT
        assert auth.judge(USERS, basic("alice", "wrong"), "client") is WRONG
        assert auth.judge(USERS, basic("mallory", "wrong"), "client") is WRONG
    assert len(comparisons.asked) == 3


def test_a_name_that_nobody_has_costs_what_one_of_the_others_does(comparisons: Bcrypt) -> None:
    auth = BasicAuth()
    for number in range(40):
        assert auth.judge(USERS, basic(f"mallory{number}", "x"), "client") is WRONG
    assert set(comparisons.asked) == {stored.encode() for stored in USERS.values()}
    before = len(comparisons.asked)
    for password in ("a", "b", "c"):
        auth.judge(USERS, basic("mallory", password), "client")
    assert len(set(comparisons.asked[before:])) == 1, "else the same name would take now this long and now that"


def test_a_flood_of_wrong_passwords_pushes_no_right_one_out_and_is_not_kept(comparisons: Bcrypt) -> None:
    auth = BasicAuth()
    assert auth.judge(USERS, basic("alice", "sesame"), "client") is RIGHT
    for number in range(600):
        assert auth.judge(USERS, basic("alice", str(number)), "client") is WRONG
    before = len(comparisons.asked)
    assert auth.judge(USERS, basic("alice", "sesame"), "client") is RIGHT
    assert len(comparisons.asked) == before
    assert len(auth._failed) == 256


def test_another_hash_ends_what_was_remembered_of_the_one_before() -> None:
    auth = BasicAuth()
    assert auth.judge(USERS, basic("alice", "sesame"), "client") is RIGHT
    changed = USERS | {"alice": hashed("changed")}
    assert auth.judge(changed, basic("alice", "sesame"), "client") is WRONG
    assert auth.judge(changed, basic("alice", "changed"), "client") is RIGHT
    gone = {name: stored for name, stored in USERS.items() if name != "alice"}
    assert auth.judge(gone, basic("alice", "changed"), "client") is WRONG
    assert auth.judge(gone, basic("bob", "secret"), "client") is RIGHT
    assert set(auth._proved) == {"bob"}


def test_no_password_is_kept_in_the_clear() -> None:
    auth = BasicAuth()
    auth.judge(USERS, basic("alice", "sesame"), "client")
    auth.judge(USERS, basic("alice", "guessed"), "client")
    kept = repr(vars(auth))
    assert "sesame" not in kept
    assert "guessed" not in kept


def test_while_passwords_are_hashed_a_proved_one_is_right_at_once_and_a_flood_is_told_to_come_back(
    comparisons: Bcrypt,
) -> None:
    auth = BasicAuth()
    assert auth.judge(USERS, basic("alice", "sesame"), "prometheus") is RIGHT
    comparisons.begun.acquire()
    comparisons.go_on.clear()
    verdicts: list[Verdict] = []

    def guess(number: int, client: str) -> None:
        verdicts.append(auth.judge(USERS, basic("alice", f"{client}{number}"), client))

    threads = [threading.Thread(target=guess, args=(number, "attacker")) for number in range(50)]
    for thread in threads:
        thread.start()
    comparisons.begun.acquire()
    assert auth.judge(USERS, basic("alice", "sesame"), "prometheus") is RIGHT
    refused = [BUSY] * (len(threads) - MAX_WAITING_PER_CLIENT)
    while len(verdicts) < len(refused):
        time.sleep(0.01)
    assert verdicts == refused
    other = threading.Thread(target=guess, args=(0, "other"))
    other.start()
    comparisons.go_on.set()
    for thread in (*threads, other):
        thread.join(30)
    assert verdicts == refused + [WRONG] * (MAX_WAITING_PER_CLIENT + 1)
    assert not auth._waiting


# By way of a server.


@pytest.fixture
def guarded(tmp_path: Path, serve: Callable[[Path], Fixture]) -> Fixture:
    file = tmp_path / "web.yml"
    file.write_text("basic_auth_users:\n" + "".join(f"  {name}: {stored}\n" for name, stored in USERS.items()))
    return serve(file)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
@pytest.mark.parametrize("path", ["/metrics", "/", "/x", "/-/", "/-/healthy/", "/-/healthy/..", "/metrics?/-/healthy"])
def test_without_a_password_everything_but_health_is_401(guarded: Fixture, path: str, method: str) -> None:
    status, headers, body = guarded.ask(path, method)
    assert (status, headers["WWW-Authenticate"]) == (401, 'Basic realm="hmm-exporter", charset="UTF-8"')
    assert body == (b"" if method == "HEAD" else b"a name and a password are needed\n")


def test_health_needs_no_password(guarded: Fixture) -> None:
    assert guarded.ask("/-/healthy")[0] == 200
    assert guarded.ask("/-/ready")[0] == 200
    guarded.state.ready = False
    assert guarded.ask("/-/ready")[0] == 503
    assert guarded.ask("/-/healthy", "POST")[0] == 405


def test_with_a_password_everything_is_as_without_passwords(guarded: Fixture) -> None:
    headers = {"Authorization": basic("alice", "sesame")}
    assert guarded.ask("/metrics", headers=headers)[0] == 200
    assert guarded.ask("/", headers=headers)[0] == 200
    assert guarded.ask("/x", headers=headers)[0] == 404
    assert guarded.ask("/metrics", "POST", headers=headers)[0] == 405
    assert guarded.ask("/metrics", headers={"Authorization": basic("alice", "wrong")})[0] == 401


def test_hashing_keeps_neither_health_nor_a_proved_client_waiting(guarded: Fixture, comparisons: Bcrypt) -> None:
    right = {"Authorization": basic("alice", "sesame")}
    assert guarded.ask("/metrics", headers=right)[0] == 200
    comparisons.go_on.clear()
    guesses = [guarded.connect(timeout=60) for _ in range(MAX_WAITING_PER_CLIENT)]
    for number, connection in enumerate(guesses):
        connection.request("GET", "/metrics", headers={"Authorization": basic("alice", str(number))})
    comparisons.begun.acquire()
    comparisons.begun.acquire()
    assert guarded.ask("/-/healthy")[0] == 200
    assert guarded.ask("/metrics", headers=right)[0] == 200
    comparisons.go_on.set()
    for connection in guesses:
        assert connection.getresponse().status == 401
        connection.close()
