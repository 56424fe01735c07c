"""What the kernel says of real connections: who had which, who acknowledges, who is gone."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import zmq

from hbagent.core.states import Outcome
from hbagent.transport import connections as connections_module
from hbagent.transport.connections import Connections, Visits
from tests.descriptors import descriptors
from tests.transport.doors import CallersContext, OpenDoor, caller, enrolled, new_keys, until

A, B = "t/r/a", "t/r/b"


class Pair:
    """Two ends of a TCP connection; `near` is the one that is looked at."""

    def __init__(self, listener: socket.socket) -> None:
        self.far = socket.create_connection(listener.getsockname(), timeout=30)
        self.near, _ = listener.accept()

    @property
    def fd(self) -> int:
        return self.near.fileno()

    def close(self) -> None:
        self.far.close()
        self.near.close()


Connect = Callable[[], Pair]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes connections that are closed after the test."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pairs: list[Pair] = []

        def make() -> Pair:
            pairs.append(Pair(listener))
            return pairs[-1]

        yield make
        for pair in pairs:
            pair.close()


@pytest.fixture
def known() -> Connections:
    return Connections()


def again_at(fd: int, connect: Connect) -> Pair:
    """A new connection that has this number, as happens all the time once a connection is closed."""
    # Held meanwhile, or the calling end would have it.
    null = os.open(os.devnull, os.O_RDONLY)
    if null != fd:
        os.dup2(null, fd)
        os.close(null)
    pair = connect()
    os.dup2(pair.fd, fd)
    pair.near.close()
    pair.near = socket.socket(fileno=fd)
    return pair


# ---- gone ------------------------------------------------------------------------------------------------


def test_a_connection_that_lives_is_not_gone_whatever_was_told(known: Connections, connect: Connect) -> None:
    pair = connect()
    assert known.note(A, pair.fd) is None
    assert known.knows(pair.fd)
    assert known.gone(pair.fd) is None
    assert known.gone(987_654) is None
    assert known.knows(pair.fd)


def test_a_closed_connection_is_gone_once(known: Connections, connect: Connect) -> None:
    pair = connect()
    fd = pair.fd
    known.note(A, fd)
    pair.near.close()
    assert known.gone(fd) == A
    assert known.gone(fd) is None
    assert not known.knows(fd)


def test_a_connection_is_gone_as_soon_as_the_other_end_is(known: Connections, connect: Connect) -> None:
    """libzmq tells of it before it closes the descriptor."""
    pair = connect()
    known.note(A, pair.fd)
    pair.far.close()
    assert until(lambda: known.gone(pair.fd) == A)


def test_a_number_that_means_another_connection_is_gone_for_the_first(known: Connections, connect: Connect) -> None:
    pair = connect()
    fd = pair.fd
    known.note(A, fd)
    pair.near.close()
    again_at(fd, connect)
    assert known.gone(fd) == A


def test_a_number_that_means_no_connection_any_more_is_gone(known: Connections, connect: Connect) -> None:
    pair = connect()
    known.note(A, pair.fd)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, pair.fd)
    os.close(null)
    assert known.gone(pair.fd) == A


def test_whoever_comes_back_under_the_number_of_another_tells_that_the_other_is_gone(
    known: Connections, connect: Connect
) -> None:
    pair = connect()
    fd = pair.fd
    known.note(A, fd)
    pair.near.close()
    again_at(fd, connect)
    assert known.note(B, fd) == A
    assert known.gone(fd) is None, "what is told of the first must not end the second"
    watch = known.watch(A)
    assert watch is not None
    assert watch.look() is Outcome.CLOSED


def test_who_comes_back_himself_is_not_gone(known: Connections, connect: Connect) -> None:
    pair = connect()
    fd = pair.fd
    known.note(A, fd)
    pair.near.close()
    again_at(fd, connect)
    assert known.note(A, fd) is None
    assert known.gone(fd) is None


def test_only_the_newest_connection_of_a_peer_counts(known: Connections, connect: Connect) -> None:
    old, new = connect(), connect()
    known.note(A, old.fd)
    known.note(A, new.fd)
    fd = old.fd
    old.near.close()
    assert known.gone(fd) is None
    fd = new.fd
    new.near.close()
    assert known.gone(fd) == A


def test_a_word_that_waited_for_too_long_takes_no_connection_from_anybody(known: Connections, connect: Connect) -> None:
    pair = connect()
    known.note(A, pair.fd)
    assert known.note(B, pair.fd) is None, "it came by an earlier connection of this number"
    assert known.watch(B) is None
    pair.near.close()
    assert known.note(B, 987_654) is None
    assert known.watch(B) is None


def test_the_connection_that_ended_is_found_also_when_no_descriptor_is_left(
    known: Connections, connect: Connect
) -> None:
    pair, other = connect(), connect()
    fd = pair.fd
    known.note(A, fd)
    known.note(B, other.fd)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    pair.near.close()
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        with pytest.raises(OSError, match="Too many open files"):
            os.dup(other.fd)
        assert known.gone(fd) == A
        watch = known.watch(B)
        assert watch is not None
        other.near.send(b"x")
        assert until(lambda: watch.look() is Outcome.ACKED)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


# ---- the kernel as a witness -------------------------------------------------------------------------------


def test_what_is_sent_after_the_question_began_is_acknowledged(known: Connections, connect: Connect) -> None:
    pair = connect()
    known.note(A, pair.fd)
    pair.near.send(b"before")
    watch = known.watch(A)
    assert watch is not None
    assert not until(lambda: watch.look(), 0.1), "an old acknowledgement says nothing of now"
    pair.near.send(b"ping")
    assert until(lambda: watch.look() is Outcome.ACKED)


@pytest.mark.parametrize("counted", [0, 6], ids=["in neither number", "in both"])
def test_what_is_acknowledged_while_it_is_counted_says_nothing_of_now_either(
    known: Connections, connect: Connect, monkeypatch: pytest.MonkeyPatch, counted: int
) -> None:
    pair = connect()
    known.note(A, pair.fd)

    def queued(fd: int, *rest: Any) -> bytes:
        """How much waits, read just before or just after an acknowledgement of all of it."""
        monkeypatch.undo()
        pair.near.send(b"before")
        assert until(lambda: struct.unpack("i", fcntl.ioctl(fd, *rest)) == (0,))
        return struct.pack("i", counted)

    monkeypatch.setattr(connections_module, "fcntl", SimpleNamespace(ioctl=queued))
    watch = known.watch(A)
    assert watch is not None
    assert watch.look() is None
    pair.near.send(b"ping")
    assert until(lambda: watch.look() is Outcome.ACKED)


def test_what_waited_already_does_not_count_when_it_is_acknowledged(known: Connections, connect: Connect) -> None:
    pair = connect()
    known.note(A, pair.fd)
    pair.far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    pair.near.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            pair.near.send(bytes(65_536))
    watch = known.watch(A)
    assert watch is not None
    acked = connections_module._look(pair.fd)
    assert acked is not None
    pair.far.recv(1_000_000)

    def more() -> bool:
        now = connections_module._look(pair.fd)
        return now is not None and now.acked > acked.acked

    assert until(more)
    assert watch.look() is None


def test_a_stopped_process_acknowledges_and_a_killed_one_is_closed(known: Connections) -> None:
    reader = "import socket,sys,time; s=socket.create_connection(('127.0.0.1',int(sys.argv[1]))); time.sleep(60)"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = subprocess.Popen([sys.executable, "-c", reader, str(listener.getsockname()[1])])
        near, _ = listener.accept()
        try:
            known.note(A, near.fileno())
            process.send_signal(signal.SIGSTOP)
            watch = known.watch(A)
            assert watch is not None
            near.send(b"ping")
            assert until(lambda: watch.look() is Outcome.ACKED)
            process.kill()
            process.wait()
            later = known.watch(A)
            assert later is not None
            assert until(lambda: later.look() is Outcome.CLOSED)
        finally:
            process.kill()
            process.wait()
            near.close()


def test_who_was_never_here_is_not_watched_and_who_has_gone_is_closed(known: Connections, connect: Connect) -> None:
    assert known.watch(A) is None
    pair = connect()
    fd = pair.fd
    known.note(A, fd)
    watch = known.watch(A)
    assert watch is not None
    pair.near.close()
    assert watch.look() is Outcome.CLOSED
    again_at(fd, connect)
    assert watch.look() is Outcome.CLOSED, "also when the number is somebody else's"
    known.gone(fd)
    later = known.watch(A)
    assert later is not None
    assert later.look() is Outcome.CLOSED


def test_a_watch_ends_when_libzmq_says_that_there_is_no_way(known: Connections, connect: Connect) -> None:
    pair = connect()
    known.note(A, pair.fd)
    watch = known.watch(A)
    assert watch is not None
    known.lost(A)
    assert watch.look() is Outcome.CLOSED
    assert not known.knows(pair.fd)


def test_looking_leaves_nothing_open_and_closes_nothing(known: Connections, connect: Connect) -> None:
    pair = connect()
    before = descriptors()
    for _ in range(100):
        known.note(A, pair.fd)
        watch = known.watch(A)
        assert watch is not None
        watch.look()
        known.gone(pair.fd)
    assert descriptors() <= before
    pair.near.send(b"x")
    assert pair.far.recv(1) == b"x"


# ---- cut -------------------------------------------------------------------------------------------------


def test_a_cut_connection_is_at_its_end_for_both(known: Connections, connect: Connect) -> None:
    pair = connect()
    assert known.cut(pair.fd, "127.0.0.1")
    assert pair.far.recv(1) == b""
    assert pair.near.recv(1) == b""


def test_what_is_not_the_connection_of_the_frame_is_not_cut(known: Connections, connect: Connect) -> None:
    pair, listener = connect(), socket.create_server(("127.0.0.1", 0))
    known.note(A, pair.fd)
    assert not known.cut(pair.fd, "127.0.0.1"), "it is A's by now"
    other = connect()
    assert not known.cut(other.fd, "127.0.0.2"), "it comes from elsewhere"
    assert not known.cut(listener.fileno(), "127.0.0.1")
    read, write = os.pipe()
    assert not known.cut(read, "127.0.0.1")
    assert not known.cut(987_654, "127.0.0.1")
    for one in (pair, other):
        one.near.send(b"x")
        assert one.far.recv(1) == b"x"
    socket.create_connection(listener.getsockname(), timeout=30).close()
    listener.close()
    os.close(read)
    os.close(write)


def test_a_peer_that_may_not_speak_any_more_is_ended_by_name(known: Connections, connect: Connect) -> None:
    pair, other = connect(), connect()
    known.note(A, pair.fd)
    assert known.end(A)
    assert pair.far.recv(1) == b""
    assert not known.end(A)
    known.note(B, other.fd)
    fd = other.fd
    other.near.close()
    successor = again_at(fd, connect)
    assert not known.end(B), "the number is somebody else's by now"
    successor.near.send(b"x")
    assert successor.far.recv(1) == b"x"


def test_what_a_frame_says_is_cut_once_until_there_is_another_list(
    known: Connections, open_door: OpenDoor, context: CallersContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = new_keys(A)
    door = open_door(enrolled(keys))
    dealer: zmq.Socket[bytes] = context.socket(zmq.DEALER)
    pair = caller(keys)
    assert pair.keys is not None
    dealer.setsockopt(zmq.CURVE_PUBLICKEY, pair.keys.public.encode())
    dealer.setsockopt(zmq.CURVE_SECRETKEY, pair.keys.secret.encode())
    dealer.setsockopt(zmq.CURVE_SERVERKEY, door.control_target.server_key.encode())
    dealer.connect(door.control_target.endpoint)
    dealer.send(b"word")
    assert door.control.poll(30_000)
    frame = door.control.recv_multipart(copy=False)[-1]
    monkeypatch.setattr(connections_module, "CUTS_MAX", 2)
    assert known.cut_sender(frame)
    assert not known.cut_sender(frame)
    known.forget_cuts()
    assert len(known._cut) == 0
    for number in range(5):
        known._cut[number, ""] = None
    known.cut_sender(frame)
    assert len(known._cut) == 5


# ---- several of one peer ---------------------------------------------------------------------------------


def test_of_too_many_connections_of_one_peer_the_oldest_is_ended(connect: Connect) -> None:
    visits = Visits(2)
    pairs = [connect() for _ in range(3)]
    assert [visits.note(A, bytes([at]), pair.fd) for at, pair in enumerate(pairs)] == [0, 0, 1]
    assert pairs[0].far.recv(1) == b""
    assert visits.note(A, b"\1", pairs[1].fd) == 0, "who speaks again is no other connection"
    for pair in pairs[1:]:
        pair.near.send(b"x")
        assert pair.far.recv(1) == b"x"


def test_connections_that_are_closed_make_room_and_other_peers_have_room_of_their_own(connect: Connect) -> None:
    visits = Visits(2)
    first, second, third, other = connect(), connect(), connect(), connect()
    visits.note(A, b"1", first.fd)
    visits.note(A, b"2", second.fd)
    second.near.close()
    assert visits.note(A, b"3", third.fd) == 0
    assert visits.note(B, b"3", other.fd) == 0
    for pair in (first, third):
        pair.near.send(b"x")
        assert pair.far.recv(1) == b"x"


def test_every_connection_of_a_peer_is_ended_and_nobody_elses(connect: Connect) -> None:
    visits = Visits(4)
    mine, also_mine, gone, other = connect(), connect(), connect(), connect()
    for route, pair in ((b"1", mine), (b"2", also_mine), (b"3", gone)):
        visits.note(A, route, pair.fd)
    visits.note(B, b"1", other.fd)
    fd = gone.fd
    gone.near.close()
    successor = again_at(fd, connect)
    assert visits.end_all(A) == 2, "the third number is somebody else's by now"
    assert mine.far.recv(1) == also_mine.far.recv(1) == b""
    for pair in (other, successor):
        pair.near.send(b"x")
        assert pair.far.recv(1) == b"x"
    assert visits.end_all(A) == 0
    assert not visits.end(B, b"2")
    assert visits.end(B, b"1")


def test_a_routing_id_that_comes_back_on_another_connection_is_that_connection(connect: Connect) -> None:
    visits = Visits(4)
    before, after = connect(), connect()
    visits.note(A, b"mine", before.fd)
    visits.note(A, b"mine", after.fd)
    assert visits.end(A, b"mine")
    assert after.far.recv(1) == b""
