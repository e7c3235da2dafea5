# SPDX-License-Identifier: Apache-2.0
"""What passes between the serving process and the helper, over a real socket."""

from __future__ import annotations

import os
import resource
import socket
import threading
from collections.abc import Iterator

import pytest

from hmm_exporter.bpf.link import Program
from hmm_exporter.bpf.plan import ATTACHED, DENIED, Outcome
from hmm_exporter.catalog.probes import GROUPS, PROBES
from hmm_exporter.privileged import message
from hmm_exporter.privileged.client import Client
from hmm_exporter.privileged.message import Attach, Attached, Busy, Refused, Statistics

Channel = tuple[socket.socket, socket.socket]


@pytest.fixture
def channel() -> Iterator[Channel]:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, its:
        yield ours, its


@pytest.mark.parametrize(
    "request_",
    [
        Statistics(),
        Attach(["hmm_range_fault"], ["range_fault", "migration"], []),
        Attach([], [], ["hmm_range_fault"], load_only=True),
    ],
)
def test_a_request_arrives_as_it_was_sent(channel: Channel, request_: message.Request) -> None:
    message.send_request(channel[0], request_)
    assert message.receive_request(channel[1]) == request_


def test_when_the_daemon_has_ended_nobody_asks(channel: Channel) -> None:
    channel[0].close()
    assert message.receive_request(channel[1]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"[]",
        b"{}",
        b"null",
        b"\xff",
        b"[" * 5000,
        b'{"attach": []}',
        b'{"attach": [["no_such_probe"], [], []]}',
        b'{"attach": [[], ["no_such_group"], []]}',
        b'{"attach": [[], [], ["no_such_probe"]]}',
        b'{"attach": [[["hmm_range_fault"]], [], []]}',
        b'{"attach": [[{}], [], []]}',
        b'{"attach": [[1], [2], [3]]}',
        b'{"attach": ["hmm_range_fault", [], []]}',
        b'{"attach": [[], [], []], "statistics": []}',
        b'{"load": [["no_such_probe"], [], []]}',
        b'{"attach": [[], [], []], "load": [[], [], []]}',
        b'{"statistics": [1]}',
        b'{"statistics": [], "path": "/etc/shadow"}',
    ],
)
def test_anything_else_is_refused_and_the_next_request_is_answered(channel: Channel, data: bytes) -> None:
    channel[0].send(data)
    with pytest.raises(Refused, match="does not know what was asked"):
        message.receive_request(channel[1])
    message.send_request(channel[0], Statistics())
    assert message.receive_request(channel[1]) == Statistics()


def test_fds_that_come_with_a_request_are_not_taken(channel: Channel) -> None:
    before = len(os.listdir("/proc/self/fd"))
    socket.send_fds(channel[0], [b'{"statistics": []}'], [0, 1, 2])
    assert message.receive_request(channel[1]) == Statistics()
    assert len(os.listdir("/proc/self/fd")) == before


def test_every_probe_and_group_may_be_asked_for(channel: Channel) -> None:
    asked = Attach([probe.name for probe in PROBES], [group.name for group in GROUPS], [])
    message.send_request(channel[0], asked)
    assert message.receive_request(channel[1]) == asked


def test_programs_arrive_with_their_links_and_what_became_of_the_probes(channel: Channel) -> None:
    read, write = os.pipe()
    outcomes = [
        Outcome(PROBES[0], "migrate_vma_setup", ATTACHED, "fentry"),
        Outcome(PROBES[1], "migrate_vma_pages", DENIED, reason="not permitted"),
    ]
    program = Program(PROBES[0].name, PROBES[0].programs[0], "fentry", read, "migrate_vma_setup")
    message.send_attached(channel[1], Attached(outcomes, [(program, write)]))
    os.close(read)
    os.close(write)
    arrived = message.receive_attached(channel[0])
    assert list(arrived.outcomes) == outcomes
    ((its_program, link),) = arrived.programs
    assert (its_program.probe, its_program.name, its_program.kind, its_program.function) == (
        program.probe,
        program.name,
        program.kind,
        program.function,
    )
    os.write(link, b"through")
    assert os.read(its_program.fd, 10) == b"through"
    os.close(link)
    os.close(its_program.fd)


def test_more_programs_than_there_are_fit_into_one_message(channel: Channel) -> None:
    sent = [
        (Program(probe.name, name, "kretprobe", 0, max(probe.functions, key=len)), 0)
        for probe in PROBES
        for name in (f"enter_{probe.name}", f"leave_{probe.name}")
    ]
    outcomes = [Outcome(probe, probe.functions[0], DENIED, reason="x" * 1000) for probe in PROBES]
    message.send_attached(channel[1], Attached(outcomes, sent))
    arrived = message.receive_attached(channel[0])
    assert len(arrived.programs) == len(sent)
    for program, link in arrived.programs:
        os.close(program.fd)
        os.close(link)


def test_a_refusal_is_told_with_its_reason(channel: Channel) -> None:
    client = Client(channel[0], patience=10)
    message.send_refusal(channel[1], "loader: killed by SIGKILL while compiling")
    with pytest.raises(Refused, match="loader: killed by SIGKILL while compiling"):
        client.attach(Attach(["hmm_range_fault"], [], []))


def test_of_what_cannot_be_taken_over_whole_nothing_is(channel: Channel) -> None:
    before = len(os.listdir("/proc/self/fd"))
    program = Program(PROBES[0].name, PROBES[0].programs[0], "fentry", 0, "migrate_vma_setup")
    message.send_attached(channel[1], Attached([], [(program, 1)] * 20))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + 7, hard))
    try:
        with pytest.raises(Refused, match="too many files are open"):
            message.receive_attached(channel[0])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("data", [b"{", b"{}", b"[]", b'{"fds": 0, "outcomes": [["no_such_probe", "", "", "", ""]]}'])
def test_an_answer_of_another_kind_is_the_end_of_the_helper(channel: Channel, data: bytes) -> None:
    client = Client(channel[0], patience=10)
    channel[1].send(data)
    with pytest.raises(Refused, match="the helper has ended"):
        client.attach(Attach([], [], []))
    assert not client.alive


def test_statistics_that_are_not_permitted_are_none(channel: Channel) -> None:
    message.send_statistics(channel[1], None)
    assert Client(channel[0], patience=10).statistics() is None


def test_whether_the_helper_is_there_is_known_without_asking(channel: Channel) -> None:
    client = Client(channel[0], patience=10)
    assert client.alive
    channel[1].close()
    assert not client.alive


def test_who_asks_while_another_waits_for_an_answer_is_told_so_at_once(channel: Channel) -> None:
    client = Client(channel[0], patience=10)
    refusals: list[str] = []

    def ask() -> None:
        try:
            client.attach(Attach([], [], []))
        except Refused as refusal:
            refusals.append(str(refusal))

    waiting = threading.Thread(target=ask)
    waiting.start()
    message.receive_request(channel[1])  # it has asked
    with pytest.raises(Busy):
        client.statistics()
    client.close()  # which ends the waiting, too
    waiting.join()
    assert refusals == ["the helper has ended: only a restart attaches probes again"]


def test_of_a_helper_that_has_ended_only_a_restart_helps(channel: Channel) -> None:
    client = Client(channel[0], patience=10)
    channel[1].close()
    for _ in range(2):
        with pytest.raises(Refused, match="the helper has ended: only a restart attaches probes again"):
            client.statistics()


def test_a_helper_that_does_not_answer_is_given_up(channel: Channel) -> None:
    client = Client(channel[0], patience=0.05)
    with pytest.raises(Refused, match="did not answer in time"):
        client.attach(Attach([], [], []))
    with pytest.raises(Refused, match="the helper has ended"):
        client.statistics()
    assert message.receive_request(channel[1]) == Attach([], [], [])
    assert message.receive_request(channel[1]) is None
