"""Questions to real echo ports on loopback, and to places where nobody answers."""

from __future__ import annotations

import functools
import resource
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest

from hbagent.core.echo import read_answer, request
from hbagent.core.effects import ASK_NS, Ask
from hbagent.core.states import Outcome, Path
from hbagent.core.units import MILLISECOND, SECOND
from hbagent.transport import asker as asker_module
from hbagent.transport.asker import Asker
from hbagent.transport.echo import EchoResponder
from tests.descriptors import descriptors
from tests.loopback import OWN

PATIENCE_NS = 30 * SECOND
KEY, NONCE = b"k" * 32, b"n" * 12
REQUEST = request(KEY, NONCE)


class Desk:
    """An asker and what came of its questions, by their numbers."""

    def __init__(self) -> None:
        self.told: dict[int, tuple[Outcome, bytes]] = {}
        self.asker = Asker(self._done)

    def _done(self, ask: Ask, outcome: Outcome, data: bytes) -> None:
        assert ask.number not in self.told, "each question is answered once"
        self.told[ask.number] = (outcome, data)

    def ask(self, path: Path, port: int, address: str = "127.0.0.1", number: int = 1, now: int | None = None) -> None:
        """Ask; without `now` the answer has half a minute, for this loop may stand still."""
        ask = Ask(peer="t/r/n", number=number, path=path, address=address, port=port, request=REQUEST)
        self.asker.ask(ask, time.monotonic_ns() + PATIENCE_NS if now is None else now)

    def ask_and_be_silent(self, path: Path, port: int, number: int = 1) -> None:
        """Ask somebody of whom no answer is expected."""
        self.ask(path, port, number=number, now=time.monotonic_ns())

    def turn_until(self, condition: Callable[[], object], others: tuple[EchoResponder, ...] = ()) -> bool:
        """As a loop would: readable descriptors, then deadlines."""
        end = time.monotonic() + PATIENCE_NS / SECOND
        while not condition():
            if time.monotonic() > end:
                return False
            turned: dict[int, Asker | EchoResponder] = {self.asker.fileno(): self.asker}
            turned.update((one.fileno(), one) for one in others)
            ready, _, _ = select.select([*turned], [], [], 0.005)
            for number in ready:
                turned[number].ready(time.monotonic_ns())
            at = self.asker.deadline()
            if at is not None and time.monotonic_ns() >= at:
                self.asker.wake(time.monotonic_ns())
        return True

    def outcome(self, number: int = 1, others: tuple[EchoResponder, ...] = ()) -> Outcome:
        assert self.turn_until(lambda: number in self.told, others)
        return self.told[number][0]


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    before = descriptors()
    yield made
    made.asker.close()
    assert descriptors() < before, "nothing is left open"


@pytest.fixture(params=["127.0.0.1", "::1"])
def responder(request: pytest.FixtureRequest) -> Iterator[EchoResponder]:
    made = EchoResponder(request.param, 0, time.monotonic_ns())
    made.use_keys([KEY])
    made.tell(11, 22)
    yield made
    made.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A TCP port where the test itself answers, or does not."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.settimeout(30)
        yield made


@pytest.fixture
def udp() -> Iterator[socket.socket]:
    """A UDP port where the test itself answers, or does not."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind(("127.0.0.1", 0))
        made.settimeout(30)
        yield made


def port_of(one: socket.socket) -> int:
    port: int = one.getsockname()[1]
    return port


def free_port() -> int:
    """A port where nobody listens, by UDP or TCP, at the address of these tests."""
    made = EchoResponder(OWN, 0, 0)
    port = made.port
    made.close()
    return port


@pytest.mark.parametrize("path", [Path.UDP, Path.TCP])
def test_a_living_agent_answers(desk: Desk, responder: EchoResponder, path: Path) -> None:
    address = responder._tcp.getsockname()[0]
    desk.ask(path, responder.port, address)
    assert desk.outcome(others=(responder,)) is Outcome.ANSWERED
    assert read_answer(desk.told[1][1], KEY, NONCE) == (11, 22)
    assert desk.asker.deadline() is None


def test_a_port_where_nobody_listens_is_refused_before_the_asking_returns(desk: Desk) -> None:
    port = free_port()
    desk.ask(Path.TCP, port, OWN, number=1)
    desk.ask(Path.UDP, port, OWN, number=2)
    assert desk.told == {1: (Outcome.REFUSED, b""), 2: (Outcome.REFUSED, b"")}


def test_nobody_who_answers_is_silence_after_its_time_and_not_before(desk: Desk, udp: socket.socket) -> None:
    begun = time.monotonic_ns()
    desk.ask(Path.UDP, port_of(udp), now=begun)
    assert desk.asker.deadline() == begun + ASK_NS
    desk.asker.wake(begun + ASK_NS - 1)
    assert desk.told == {}
    assert desk.outcome() is Outcome.SILENT
    assert time.monotonic_ns() - begun >= ASK_NS
    assert udp.recv(100) == REQUEST


def test_a_stopped_agent_takes_the_connection_and_is_silent(desk: Desk, listener: socket.socket) -> None:
    desk.ask_and_be_silent(Path.TCP, port_of(listener))
    assert desk.outcome() is Outcome.SILENT


@pytest.mark.parametrize("reset", [False, True])
def test_a_connection_that_ends_without_an_answer_is_closed(desk: Desk, listener: socket.socket, reset: bool) -> None:
    desk.ask(Path.TCP, port_of(listener))
    taken, _ = listener.accept()
    desk.turn_until(lambda: select.select([taken], [], [], 0)[0])
    if reset:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    else:
        assert taken.recv(100) == REQUEST
        taken.send(b"half an answer")
    taken.close()
    assert desk.outcome() is Outcome.CLOSED
    assert desk.told[1][1] == b""


def test_a_connection_that_ends_before_anything_was_said_is_closed(desk: Desk, listener: socket.socket) -> None:
    desk.ask(Path.TCP, port_of(listener))
    taken, _ = listener.accept()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    taken.close()
    assert desk.outcome() is Outcome.CLOSED


def test_an_answer_in_pieces_is_put_together(desk: Desk, listener: socket.socket) -> None:
    desk.ask(Path.TCP, port_of(listener))
    taken, _ = listener.accept()
    answer = bytes(range(48))

    def has(count: int) -> bool:
        return all(len(one.data) == count for one in desk.asker._questions.values())

    with taken:
        for upto, piece in ((1, answer[:1]), (30, answer[1:30])):
            taken.send(piece)
            assert desk.turn_until(functools.partial(has, upto))
            assert desk.told == {}
        taken.send(answer[30:])
        assert desk.outcome() is Outcome.ANSWERED
    assert desk.told[1][1] == answer


@pytest.mark.parametrize(
    "noise",
    [b"", b"noise", b"HBE!" + b"m" * 12 + bytes(32), REQUEST, b"HBE!" + NONCE + bytes(31), b"HBE!" + NONCE + bytes(33)],
)
def test_what_is_no_answer_to_this_question_is_not_taken_for_one(desk: Desk, udp: socket.socket, noise: bytes) -> None:
    desk.ask(Path.UDP, port_of(udp))
    _, asker = udp.recvfrom(100)
    for _ in range(100):
        udp.sendto(noise, asker)
    answer = b"HBE!" + NONCE + bytes(32)
    udp.sendto(answer, asker)
    assert desk.outcome() is Outcome.ANSWERED
    assert desk.told[1][1] == answer, "whether it is genuine is for whoever has the key"


def test_a_datagram_from_elsewhere_is_not_heard(desk: Desk, udp: socket.socket) -> None:
    desk.ask_and_be_silent(Path.UDP, port_of(udp))
    _, asker = udp.recvfrom(100)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"HBE!" + NONCE + bytes(32), asker)
    assert desk.outcome() is Outcome.SILENT


@pytest.mark.parametrize("address", ["", "localhost", "192.0.2.1.5", "fe80::1%nowhere", "ä", "255.255.255.255", "\0"])
@pytest.mark.parametrize("path", [Path.UDP, Path.TCP])
def test_an_address_that_cannot_be_reached_is_told_at_once(desk: Desk, path: Path, address: str) -> None:
    desk.ask(path, 9, address)
    assert desk.told == {1: (Outcome.UNSENT, b"")}


def test_questions_beyond_the_bound_are_unsent_until_others_are_answered(
    desk: Desk, udp: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asker_module, "QUESTIONS_MAX", 3)
    for number in range(5):
        desk.ask_and_be_silent(Path.UDP, port_of(udp), number)
    assert desk.told == {3: (Outcome.UNSENT, b""), 4: (Outcome.UNSENT, b"")}
    assert [desk.outcome(number) for number in range(3)] == [Outcome.SILENT] * 3
    desk.ask(Path.UDP, port_of(udp), number=5)
    assert 5 not in desk.told


def test_without_a_descriptor_it_is_unsent(desk: Desk, udp: socket.socket) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        desk.ask(Path.UDP, port_of(udp))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert desk.told == {1: (Outcome.UNSENT, b"")}


def test_an_answer_that_waits_when_the_time_is_over_is_still_taken(desk: Desk, udp: socket.socket) -> None:
    begun = time.monotonic_ns()
    desk.ask(Path.UDP, port_of(udp), now=begun)
    _, asker = udp.recvfrom(100)
    udp.sendto(b"HBE!" + NONCE + bytes(32), asker)
    desk.asker.wake(begun + ASK_NS)
    assert desk.told[1][0] is Outcome.ANSWERED


def test_who_stood_still_himself_looks_once_more_before_he_calls_it_silence(desk: Desk, udp: socket.socket) -> None:
    desk.ask(Path.UDP, port_of(udp), now=0)
    late = ASK_NS + 60 * MILLISECOND
    desk.asker.wake(late)
    assert desk.told == {}
    assert desk.asker.deadline() == late + 50 * MILLISECOND
    desk.asker.wake(late + 200 * MILLISECOND)
    assert desk.told == {1: (Outcome.SILENT, b"")}


def test_a_flood_of_answers_takes_a_bounded_share_of_a_turn(desk: Desk, udp: socket.socket) -> None:
    desk.ask(Path.UDP, port_of(udp))
    _, asker = udp.recvfrom(100)
    for _ in range(20):
        udp.sendto(b"noise", asker)
    udp.sendto(b"HBE!" + NONCE + bytes(32), asker)
    desk.asker.ready(0)
    assert desk.told == {}
    desk.asker.ready(0)
    assert desk.told[1][0] is Outcome.ANSWERED


def test_what_is_open_when_it_is_closed_is_never_told(udp: socket.socket) -> None:
    desk = Desk()
    desk.ask(Path.UDP, port_of(udp))
    desk.asker.close()
    assert desk.told == {}
    assert desk.asker.deadline() is None
