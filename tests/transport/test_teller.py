"""Telling: datagrams to a real socket, and the wait until they were taken."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hbagent.transport.senders import Senders
from hbagent.transport.teller import DATAGRAM_SIZE_MAX, DEFAULT_SOCKET, address_of, lines, send, settle
from tests.descriptors import descriptors
from tests.reporting import BOUND_S, Listener


@pytest.fixture
def listener(socket_dir: Path) -> Iterator[Listener]:
    made = Listener(socket_dir / "notify")
    yield made
    made.close()


@contextlib.contextmanager
def deaf(path: Path) -> Iterator[socket.socket]:
    """A socket that nobody reads."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(path))
        yield made


def test_what_was_told_before_has_been_dealt_with_once_it_is_settled(listener: Listener) -> None:
    for i in range(20):
        send(listener.address, lines([f"STATUS={i}"]), BOUND_S)
    assert settle(listener.address, BOUND_S)
    # By then each is known with its sender; it is handed on a moment later.
    assert listener.until(lambda: listener.said("STATUS") == [str(i) for i in range(20)])
    assert {notified.start for notified in listener.heard} == {Senders().start(os.getpid())}


def test_what_nobody_would_take_is_not_made() -> None:
    room = DATAGRAM_SIZE_MAX - len("STATUS=")
    assert len(lines(["STATUS=" + "x" * room])) == DATAGRAM_SIZE_MAX
    with pytest.raises(ValueError, match="4,097 bytes; the agent and systemd take 4,096"):
        lines(["STATUS=" + "x" * (room + 1)])
    with pytest.raises(ValueError, match="bytes"):
        lines(["STATUS=" + "\u00e4" * (room // 2 + 1)])


def test_an_abstract_address_is_reached_as_well() -> None:
    listener = Listener(f"@hbagent-test-teller-{os.getpid()}")
    send(listener.address, b"READY=1", BOUND_S)
    assert settle(listener.address, BOUND_S)
    assert listener.until(lambda: listener.said("READY") == ["1"])
    listener.close()


def test_nobody_there_is_told_by_the_kind_of_error(socket_dir: Path) -> None:
    with pytest.raises(FileNotFoundError):
        send(str(socket_dir / "nothing"), b"READY=1", 5)
    with deaf(socket_dir / "dead"):
        pass
    with pytest.raises(ConnectionRefusedError):
        settle(str(socket_dir / "dead"), 5)


def test_a_full_queue_is_waited_for_without_spinning_and_no_longer_than_allowed(socket_dir: Path) -> None:
    with deaf(socket_dir / "deaf"):
        with pytest.raises(TimeoutError):
            for _ in range(10_000):
                before, worked = time.monotonic(), time.thread_time()
                send(str(socket_dir / "deaf"), b"READY=1", 0.3)
        assert time.monotonic() - before >= 0.3
        # Who spins works all the time.
        assert time.thread_time() - worked < 0.1


def test_a_listener_that_does_not_take_it_is_given_up_and_no_descriptor_is_left(socket_dir: Path) -> None:
    with deaf(socket_dir / "deaf"):
        before = descriptors()
        assert not settle(str(socket_dir / "deaf"), 0.1)
        assert descriptors() <= before


@pytest.mark.parametrize("field", ["READY", "=1", "A=1\nB=2", "A=\0", ""])
def test_what_is_no_field_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match="KEY=VALUE"):
        lines(["READY=1", field])


def test_the_agent_is_where_the_environment_says() -> None:
    assert address_of({"HBAGENT_NOTIFY": "@x"}) == "@x"
    assert address_of({"HBAGENT_NOTIFY": ""}) == address_of({}) == DEFAULT_SOCKET
