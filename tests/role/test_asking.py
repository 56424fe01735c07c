"""A core's questions, performed by a real loop on real connections: each is answered once, and never into the middle
of the core's own orders."""

from __future__ import annotations

import fcntl
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator

import pytest

from hbagent.core.echo import request
from hbagent.core.effects import ASK_NS, WITNESS_NS, Ask, Effect, Note, Witness
from hbagent.core.messages import Answered, WallTime
from hbagent.core.states import Outcome, Path
from hbagent.core.units import SECOND
from hbagent.role import asking as asking_module
from hbagent.role.asking import Asking
from hbagent.role.driver import Driver
from hbagent.role.sdnotify import Notifier
from hbagent.transport.connections import Connections
from tests.descriptors import descriptors
from tests.role.parts import Lines, SmallCore, until
from tests.role.test_driver import turn_until

PEER = "t/r/n1"


class Desk:
    """A driver whose core can ask, and the connections that it asks on."""

    def __init__(self, core: SmallCore, lines: Lines) -> None:
        self.core = core
        self.connections = Connections()
        performers: dict[type, Callable[[Effect], None]] = {
            Witness: lambda effect: self.asking.witness(effect),  # type: ignore[arg-type]
            Ask: lambda effect: self.asking.ask(effect),  # type: ignore[arg-type]
            Note: lambda effect: self.performed.append(effect),
        }
        self.driver = Driver(core, performers, Notifier({}), lines)
        self.asking = Asking(self.driver, self.connections)
        self.performed: list[Effect] = []

    @property
    def answers(self) -> list[Answered]:
        found: list[Answered] = self.core.messages(Answered)
        return found

    def turn_until(self, condition: Callable[[], object]) -> bool:
        return turn_until(self.driver, condition)

    def witness(self, number: int = 1, then: Callable[[], object] = lambda: None) -> Outcome:
        """What came of it."""
        self.driver.perform((Witness(PEER, number),))
        then()
        assert self.turn_until(lambda: any(answer.number == number for answer in self.answers))
        (answer,) = [answer for answer in self.answers if answer.number == number]
        assert (answer.peer, answer.path) == (PEER, Path.KERNEL)
        return answer.outcome


@pytest.fixture
def desk(core: SmallCore, lines: Lines) -> Iterator[Desk]:
    made = Desk(core, lines)
    yield made
    made.asking.close()
    made.driver.close()
    assert not lines.of("defect")


@pytest.fixture
def reader() -> Iterator[tuple[socket.socket, subprocess.Popen[bytes]]]:
    """A connection to a process that reads nothing."""
    code = "import socket,sys,time; s=socket.create_connection(('127.0.0.1',int(sys.argv[1]))); time.sleep(60)"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = subprocess.Popen([sys.executable, "-c", code, str(listener.getsockname()[1])])
        near, _ = listener.accept()
    yield near, process
    process.kill()
    process.wait()
    near.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection is looked at for longer than a machine stalls, and its silence told after longer than a test may
    take: what is told was seen."""
    more = tuple(seconds * SECOND for seconds in (1, 2, 5, 10, 15, 300))
    monkeypatch.setattr(asking_module, "LOOKS_NS", (*asking_module.LOOKS_NS, *more))


@pytest.fixture
def refusing() -> Iterator[int]:
    """A port that nobody else can have meanwhile, and where nobody listens."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        tcp.bind(("127.0.0.1", 0))
        udp.bind(tcp.getsockname())
        # It hears nobody but itself.
        udp.connect(tcp.getsockname())
        yield tcp.getsockname()[1]


def ask(path: Path, port: int, number: int = 1) -> Ask:
    return Ask(
        peer=PEER, number=number, path=path, address="127.0.0.1", port=port, request=request(b"k" * 32, b"n" * 12)
    )


# ---- witness ---------------------------------------------------------------------------------------------


def test_a_stopped_process_acknowledges_and_a_killed_one_is_closed(
    patient: None, desk: Desk, reader: tuple[socket.socket, subprocess.Popen[bytes]]
) -> None:
    near, process = reader
    desk.connections.note(PEER, near.fileno())
    process.send_signal(signal.SIGSTOP)
    assert desk.witness(1, lambda: near.send(b"ping")) is Outcome.ACKED
    process.kill()
    process.wait()
    assert desk.turn_until(lambda: desk.connections.gone(near.fileno()))
    desk.driver.perform((Witness(PEER, 2),))
    assert [answer.outcome for answer in desk.answers] == [Outcome.ACKED, Outcome.CLOSED], "known at once"


def test_a_connection_that_ends_while_it_is_watched_is_closed(
    patient: None, desk: Desk, reader: tuple[socket.socket, subprocess.Popen[bytes]]
) -> None:
    near, process = reader
    desk.connections.note(PEER, near.fileno())
    assert desk.witness(1, process.kill) is Outcome.CLOSED


def test_who_acknowledges_nothing_is_silent_after_its_time(
    desk: Desk, reader: tuple[socket.socket, subprocess.Popen[bytes]]
) -> None:
    near, _ = reader
    desk.connections.note(PEER, near.fileno())
    begun = time.monotonic_ns()
    assert desk.witness(1) is Outcome.SILENT
    assert time.monotonic_ns() - begun >= WITNESS_NS


def test_who_never_was_connected_cannot_be_asked(desk: Desk) -> None:
    assert desk.witness(1) is Outcome.UNSENT


def test_witnesses_beyond_the_bound_are_unsent_until_others_are_done(
    desk: Desk, reader: tuple[socket.socket, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking_module, "WITNESSES_MAX", 2)
    desk.connections.note(PEER, reader[0].fileno())
    desk.driver.perform(tuple(Witness(PEER, number) for number in range(4)))
    assert [(answer.number, answer.outcome) for answer in desk.answers] == [
        (2, Outcome.UNSENT),
        (3, Outcome.UNSENT),
    ]
    assert desk.turn_until(lambda: len(desk.answers) == 4)
    assert desk.witness(4) is Outcome.SILENT


def test_a_loop_that_stood_still_looks_once_more_before_it_calls_it_silence(
    desk: Desk, reader: tuple[socket.socket, subprocess.Popen[bytes]]
) -> None:
    near, _ = reader
    desk.connections.note(PEER, near.fileno())
    desk.driver.perform((Witness(PEER, 1),))
    stood_until = time.monotonic_ns() + WITNESS_NS + 2 * asking_module.STOOD_STILL_NS
    assert until(lambda: time.monotonic_ns() > stood_until)
    desk.driver.turn()
    assert desk.answers == []
    near.send(b"ping")
    assert until(lambda: unacknowledged(near) == 0)
    assert desk.turn_until(lambda: desk.answers)
    assert desk.answers[0].outcome is Outcome.ACKED
    assert desk.asking.watched == 0


def unacknowledged(near: socket.socket) -> int:
    """Bytes that the other end's kernel has not acknowledged."""
    return int.from_bytes(fcntl.ioctl(near, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


# ---- ask -------------------------------------------------------------------------------------------------


def test_a_refused_port_is_known_before_anything_else_happens(desk: Desk, refusing: int) -> None:
    at_once = []
    for number in range(20):
        desk.driver.perform((ask(Path.TCP, refusing, number),))
        at_once.append(len(desk.answers) > number)
        assert desk.turn_until(lambda number=number: len(desk.answers) > number)  # type: ignore[misc]
    assert {answer.outcome for answer in desk.answers} == {Outcome.REFUSED}
    assert any(at_once), "or later, where a thread of the kernel brings it"


def test_a_core_is_not_called_while_its_own_orders_are_carried_out(desk: Desk, refusing: int) -> None:
    """Else it would hear the answer to its second order before its third was performed."""
    performed_before: list[int] = []

    def receive(sender: str, message: object) -> tuple[Effect, ...]:
        if isinstance(message, Answered):
            performed_before.append(len(desk.performed))
            next_ask = ask(Path.TCP, refusing, 2)
            return (Note("info", "next", {}), next_ask, Note("info", "last", {})) * (message.number == 1)
        return ()

    desk.core.on_receive = receive
    desk.driver.perform((Note("info", "first", {}), ask(Path.TCP, refusing), Note("info", "second", {})))
    assert desk.turn_until(lambda: len(performed_before) == 2)
    assert performed_before == [2, 4]


def test_a_core_that_asks_again_at_each_refusal_does_not_hold_the_loop_up(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    def receive(sender: str, message: object) -> tuple[Effect, ...]:
        nonlocal asked
        if not isinstance(message, Answered) or asked >= 50:
            return ()
        asked += 1
        return (Witness("t/r/nobody", asked),)

    monkeypatch.setattr("hbagent.role.driver.SOON_MAX", 10)
    desk.core.on_receive = receive
    desk.driver.perform((Witness("t/r/nobody", 0),))
    assert len(desk.answers) == 10
    assert desk.turn_until(lambda: len(desk.answers) == 51)


def test_silence_is_told_after_its_time_and_leaves_nothing_open(desk: Desk, refusing: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        desk.driver.perform((ask(Path.UDP, refusing, 1),))
        assert desk.turn_until(lambda: desk.answers)
        before = descriptors()
        begun = time.monotonic_ns()
        desk.driver.perform((ask(Path.UDP, udp.getsockname()[1], 2), ask(Path.UDP, udp.getsockname()[1], 3)))
        assert desk.turn_until(lambda: len(desk.answers) == 3)
        assert time.monotonic_ns() - begun >= ASK_NS
        assert [(answer.number, answer.outcome) for answer in desk.answers] == [
            (1, Outcome.REFUSED),
            (2, Outcome.SILENT),
            (3, Outcome.SILENT),
        ]
        assert descriptors() <= before


def test_an_answer_comes_back_with_its_bytes(desk: Desk) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        desk.driver.perform((ask(Path.UDP, udp.getsockname()[1], 7),))
        _, asker = udp.recvfrom(100)
        answer = b"HBE!" + b"n" * 12 + bytes(32)
        udp.sendto(answer, asker)
        assert desk.turn_until(lambda: desk.answers)
    assert desk.answers == [Answered(peer=PEER, number=7, path=Path.UDP, outcome=Outcome.ANSWERED, data=answer)]


def test_a_process_that_never_asks_does_not_load_what_asks() -> None:
    code = (
        "import sys\n"
        "from hbagent.role.asking import Asking\n"
        "print([name for name in sys.modules if name.endswith(('.asker', '.connections'))])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_wall_clock_is_still_told_meanwhile(desk: Desk) -> None:
    desk.driver.perform((Witness(PEER, 1),))
    assert desk.turn_until(lambda: desk.core.messages(WallTime))
