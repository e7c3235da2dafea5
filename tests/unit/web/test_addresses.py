# SPDX-License-Identifier: Apache-2.0
"""Addresses to listen on: how they are written, and which sockets they become."""

from __future__ import annotations

import re
import socket

import pytest
from prometheus_client import CollectorRegistry

from hmm_exporter.errors import StartError
from hmm_exporter.web import address
from hmm_exporter.web.server import Server
from tests.unit.web.served import Fixture, State, has_ipv6, healthy, ipv6


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        (":10466", "", 10466),
        ("127.0.0.1:9", "127.0.0.1", 9),
        ("[::1]:10466", "::1", 10466),
        ("[fe80::1%eth0]:1", "fe80::1%eth0", 1),
        ("localhost:0", "localhost", 0),
        ("gpu-7.example.com:65535", "gpu-7.example.com", 65535),
    ],
)
def test_an_address_is_read_and_written(text: str, host: str, port: int) -> None:
    assert address.parse(text) == address.Address(host, port)
    assert str(address.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *["", "10466", ":", ":x", ":65536", ":-1", "::1:9", "[::1]", "[]:1", "[x]:1"],
        *["a b:1", "http://x:1", "x:1/", "x\n:1", ":1\n", ":\uff11"],
    ],
)
def test_what_is_no_address_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(address.ALLOWED)}$"):
        address.parse(text)


def test_a_port_in_use_is_told_before_anything_is_served(web: Fixture) -> None:
    where = f"127.0.0.1:{web.server.ports[0]}"
    with pytest.raises(StartError) as caught:
        Server([where], "/metrics", CollectorRegistry(), State())
    assert str(caught.value) == (
        f"cannot listen on {where}: address already in use (is another hmm-exporter running?"
        " choose another with --web.listen-address)"
    )


def test_a_port_is_taken_by_the_constructor_already() -> None:
    first = Server(["127.0.0.1:0"], "/metrics", CollectorRegistry(), State())
    try:
        with pytest.raises(StartError, match="address already in use"):
            Server([first.addresses[0]], "/metrics", CollectorRegistry(), State())
    finally:
        first.close()


def test_when_one_address_fails_none_stays_taken(web: Fixture) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(StartError):
        Server(
            [f"127.0.0.1:{port}", f"127.0.0.1:{web.server.ports[0]}"],
            "/metrics",
            CollectorRegistry(),
            State(),
        )
    Server([f"127.0.0.1:{port}"], "/metrics", CollectorRegistry(), State()).close()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("192.0.2.1:0", "this machine has no such address"),  # TEST-NET-1
        ("no-such-host.invalid:1", "the name cannot be resolved ("),
        (f"{'x' * 64}.invalid:1", "not a host name"),
        ("nonsense", "not an address: "),
    ],
)
def test_an_address_that_cannot_be_had_is_told_in_one_line(text: str, reason: str) -> None:
    with pytest.raises(StartError) as caught:
        Server([text], "/metrics", CollectorRegistry(), State())
    assert str(caught.value).isprintable()
    assert str(caught.value).startswith(f"cannot listen on {text}: {reason}")


def test_no_host_means_every_address_of_both_families() -> None:
    web = Fixture(":0")
    try:
        assert web.server.addresses == (f":{web.server.ports[0]}",) or not has_ipv6()
        assert healthy("127.0.0.1", web.server.ports[0])
        if has_ipv6():
            assert healthy("::1", web.server.ports[0])
    finally:
        web.server.close()


def test_without_ipv6_no_host_means_every_ipv4_address(monkeypatch: pytest.MonkeyPatch) -> None:
    # What the kernel answers when it was started with ipv6.disable=1.
    real = socket.socket

    def no_ipv6(family: int = socket.AF_INET, *rest: int, **named: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return real(family, *rest, **named)

    monkeypatch.setattr(socket, "socket", no_ipv6)
    listeners = address.listen(":0")
    monkeypatch.undo()
    assert [listener.family for listener in listeners] == [socket.AF_INET]
    assert address.name(listeners[0]).startswith("0.0.0.0:")
    listeners[0].close()


@ipv6
def test_an_ipv6_address_is_that_one_only() -> None:
    web = Fixture("[::1]:0")
    try:
        (port,) = web.server.ports
        assert web.server.addresses == (f"[::1]:{port}",)
        assert healthy("::1", port)
        assert not healthy("127.0.0.1", port)
    finally:
        web.server.close()


def test_several_addresses_are_served_at_once() -> None:
    web = Fixture("127.0.0.1:0", "127.0.0.2:0")
    try:
        first, second = web.server.ports
        assert web.server.addresses == (f"127.0.0.1:{first}", f"127.0.0.2:{second}")
        assert healthy("127.0.0.1", first)
        assert healthy("127.0.0.2", second)
        assert not healthy("127.0.0.1", second)
    finally:
        web.server.close()


def test_a_name_is_all_of_its_addresses_at_one_port() -> None:
    web = Fixture("localhost:0")
    try:
        assert len(set(web.server.ports)) == 1
        assert healthy("localhost", web.server.ports[0])
    finally:
        web.server.close()
