"""The echo responder: its sockets on loopback."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Iterator

import pytest

from hbagent.core.echo import read_answer, request
from hbagent.core.units import MILLISECOND, SECOND
from hbagent.transport import echo
from hbagent.transport.echo import EchoResponder, TokenBucket
from tests.loopback import OWN

KEY, OTHER = b"k" * 32, b"o" * 32
NONCE = b"n" * 12


# ---- bucket ------------------------------------------------------------------------------------------------


def test_a_bucket_allows_its_rate_and_no_more() -> None:
    bucket = TokenBucket(100, now=0)
    assert sum(bucket.take(0) for _ in range(500)) == 100
    assert not bucket.take(9 * MILLISECOND)
    assert bucket.take(10 * MILLISECOND)
    assert sum(bucket.take(60 * SECOND) for _ in range(500)) == 100


# ---- sockets -----------------------------------------------------------------------------------------------


@pytest.fixture
def responder() -> Iterator[EchoResponder]:
    made = EchoResponder("127.0.0.1", 0, now=0)
    made.use_keys([KEY])
    made.tell(11, 22)
    yield made
    made.close()


@pytest.fixture
def udp(responder: EchoResponder) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as made:
        made.connect(("127.0.0.1", responder.port))
        yield made


def dial(responder: EchoResponder) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", responder.port), timeout=30)
    made.setblocking(False)
    return made


def turn(responder: EchoResponder, now: int = 0, bound_s: float = 30.0) -> bool:
    """One turn of the loop when there is something to do; False when there is nothing within the bound."""
    if not select.select([responder], [], [], bound_s)[0]:
        return False
    responder.ready(now)
    return True


def receive(peer: socket.socket, responder: EchoResponder, now: int = 0, bound_s: float = 30.0) -> bytes | None:
    """What the peer gets while the loop turns: its answer, b"" for a closed connection, None for nothing."""
    end = time.monotonic() + bound_s
    both: list[EchoResponder | socket.socket] = [responder, peer]
    while time.monotonic() < end:
        with contextlib.suppress(BlockingIOError):
            return peer.recv(4096)
        if select.select(both, [], [], 0.05)[0]:
            responder.ready(now)
    return None


def test_udp_and_tcp_answer_on_one_port(responder: EchoResponder, udp: socket.socket) -> None:
    udp.send(request(KEY, NONCE))
    found = receive(udp, responder)
    assert found is not None
    assert read_answer(found, KEY, NONCE) == (11, 22)
    with dial(responder) as tcp:
        tcp.send(request(KEY, NONCE))
        found = receive(tcp, responder)
        assert found is not None
        assert read_answer(found, KEY, NONCE) == (11, 22)
        assert receive(tcp, responder) == b""
    assert responder.counts == {"answered": 2}
    assert responder.deadline() is None


def test_the_answer_is_the_newest_sequence(responder: EchoResponder, udp: socket.socket) -> None:
    responder.tell(11, 23)
    udp.send(request(KEY, NONCE))
    found = receive(udp, responder)
    assert found is not None
    assert read_answer(found, KEY, NONCE) == (11, 23)


@pytest.mark.parametrize("data", [b"", b"x", request(OTHER, NONCE), request(KEY, NONCE) + b"x", b"x" * 60_000])
def test_anything_else_by_udp_is_met_with_silence(data: bytes, responder: EchoResponder, udp: socket.socket) -> None:
    udp.send(data)
    udp.send(request(KEY, NONCE))
    found = receive(udp, responder)
    assert found is not None
    assert read_answer(found, KEY, NONCE) == (11, 22)
    assert receive(udp, responder, bound_s=0.05) is None
    assert responder.counts == {"refused": 1, "answered": 1}


def test_a_wrong_request_by_tcp_is_closed_without_a_byte(responder: EchoResponder) -> None:
    with dial(responder) as tcp:
        tcp.send(request(OTHER, NONCE))
        assert receive(tcp, responder) == b""


def test_a_request_in_pieces_is_put_together(responder: EchoResponder) -> None:
    with dial(responder) as tcp:
        asked = request(KEY, NONCE)
        for piece in (asked[:1], asked[1:40], asked[40:]):
            tcp.send(piece)
            assert turn(responder)
        found = receive(tcp, responder)
        assert found is not None
        assert read_answer(found, KEY, NONCE) == (11, 22)


def test_a_connection_that_says_nothing_is_closed_after_two_seconds(responder: EchoResponder) -> None:
    with dial(responder) as tcp:
        assert turn(responder, now=5)
        assert responder.deadline() == 5 + 2 * SECOND
        responder.wake(5 + 2 * SECOND - 1)
        assert responder.counts == {}
        responder.wake(5 + 2 * SECOND)
        assert receive(tcp, responder) == b""
        assert responder.counts == {"timed-out": 1}


def test_idle_connections_do_not_shut_the_door(responder: EchoResponder) -> None:
    with contextlib.ExitStack() as idle:
        for _ in range(3 * echo.CONNECTIONS_MAX):
            idle.enter_context(dial(responder))
            assert turn(responder)
            assert len(responder._connections) <= echo.CONNECTIONS_MAX
        with dial(responder) as tcp:
            tcp.send(request(KEY, NONCE))
            found = receive(tcp, responder)
            assert found is not None
            assert read_answer(found, KEY, NONCE) == (11, 22)


def test_exactly_as_many_connections_as_allowed_all_stay(responder: EchoResponder) -> None:
    with contextlib.ExitStack() as peers:
        for _ in range(echo.CONNECTIONS_MAX):
            peers.enter_context(dial(responder))
        while len(responder._connections) < echo.CONNECTIONS_MAX:
            assert turn(responder)
        assert responder.counts == {}


def test_a_flood_of_connections_is_left_in_the_kernel_until_the_pause_is_over(responder: EchoResponder) -> None:
    for _ in range(echo.REQUESTS_PER_SECOND):
        responder._requests.take(0)
    with dial(responder) as tcp:
        assert turn(responder)
        assert responder.counts == {"limited": 1}
        assert responder._connections == {}
        assert not turn(responder, bound_s=0.05)
        responder.wake(echo.PAUSE_NS)
        tcp.send(request(KEY, NONCE))
        assert receive(tcp, responder, now=echo.PAUSE_NS)


def test_a_peer_that_goes_away_is_forgotten(responder: EchoResponder) -> None:
    with dial(responder):
        assert turn(responder)
    assert turn(responder)
    assert responder.deadline() is None


def test_answers_are_limited_to_a_hundred_a_second(responder: EchoResponder, udp: socket.socket) -> None:
    for _ in range(150):
        udp.send(request(KEY, NONCE))
        assert turn(responder)
    assert responder.counts == {"answered": 100, "limited": 50}


def test_a_flood_is_left_in_the_kernel_until_the_pause_is_over(responder: EchoResponder, udp: socket.socket) -> None:
    for _ in range(echo.REQUESTS_PER_SECOND + 1):
        udp.send(b"noise")
        assert turn(responder)
    assert responder.counts["limited"] == 1
    udp.send(request(KEY, NONCE))
    assert not turn(responder, bound_s=0.05)
    at = responder.deadline()
    assert at == echo.PAUSE_NS
    responder.wake(at)
    found = receive(udp, responder, now=at)
    assert found is not None
    assert read_answer(found, KEY, NONCE) == (11, 22)


def test_one_turn_takes_a_bounded_share_of_a_flood(responder: EchoResponder, udp: socket.socket) -> None:
    for _ in range(3 * echo.REQUESTS_PER_TURN):
        udp.send(b"noise")
    assert turn(responder)
    assert responder.counts == {"refused": echo.REQUESTS_PER_TURN}
    assert turn(responder)


def test_a_port_that_is_taken_is_an_error(responder: EchoResponder) -> None:
    with pytest.raises(OSError, match="Address already in use"):
        EchoResponder("127.0.0.1", responder.port, now=0)


def test_a_closed_responder_refuses_connections() -> None:
    made = EchoResponder(OWN, 0, now=0)
    port = made.port
    made.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((OWN, port), timeout=30)


def test_too_many_or_short_keys_are_refused(responder: EchoResponder) -> None:
    with pytest.raises(ValueError, match="at most 6 keys"):
        responder.use_keys([KEY] * 7)
    with pytest.raises(ValueError, match="of 32 bytes"):
        responder.use_keys([b""])
