"""Who comes in at a query socket, what they may, and how long they may stay."""

from __future__ import annotations

import os
import pwd
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from hbagent.core.effects import Answer
from hbagent.core.messages import Order, Ordered, Query, Refused
from hbagent.core.units import MILLISECOND, SECOND
from hbagent.role import visitors
from hbagent.role.driver import Driver
from hbagent.role.questions import Questions
from hbagent.role.visitors import Local, Operators, Users
from hbagent.transport.allow import AllowList, Role
from hbagent.transport.connections import Connections
from hbagent.transport.keys import KeyPair
from hbagent.transport.sockets import (
    Context,
    Host,
    Socket,
    Target,
    connect,
    operator_dealer,
    operator_router,
    query_dealer,
    query_router,
)
from hbagent.transport.zap import ZapServer
from hbagent.wire import codec
from hbagent.wire.version import MINOR
from tests.role.conftest import StartWorker
from tests.role.parts import until
from tests.role.test_driver import turn_until
from tests.role.test_questions import read
from tests.transport.doors import caller, new_keys

ALICE, BOB, EVE = new_keys("alice"), new_keys("bob"), new_keys("eve")
ROOT = new_keys("t/root")
SILENCE = Order(id=7, what="silence", reason="moving it", nodes=("*",), length_ns=MILLISECOND)
STATUS = Query(id=1, what="status")


class Port:
    """A root's operators' port, where alice may write and bob may read."""

    def __init__(self) -> None:
        self.context: Context = zmq.Context()
        self.fed: list[tuple[str, object]] = []
        self.connections = Connections()
        self.operators = Operators(self.connections, self._feed)
        self.zap = ZapServer(self.context, self._list(ALICE, BOB), {"operators": Role.OPERATOR})
        host = Host(keys=ROOT, domain="operators", peers_expected=4)
        self.questions = Questions(operator_router(self.context, host, "tcp://127.0.0.1:*"), self._feed, self.operators)
        endpoint = self.questions.source.getsockopt(zmq.LAST_ENDPOINT)
        assert isinstance(endpoint, bytes)
        self.target = Target(endpoint.rstrip(b"\0").decode(), ROOT.public)
        self.admit(ALICE, BOB)

    def _feed(self, sender: str, message: object) -> None:
        self.fed.append((sender, message))

    @staticmethod
    def _list(*keys: KeyPair) -> AllowList:
        return AllowList().with_operators({pair.name: pair.public for pair in keys})

    def admit(self, *keys: KeyPair) -> None:
        """From now on these."""
        self.zap.replace(self._list(*keys))
        self.operators.use({pair.public: (pair.name, pair is ALICE) for pair in keys})

    def drained(self, condition: Callable[[], object]) -> bool:
        return until(lambda: self.questions.drain() is not None and condition())

    def close(self) -> None:
        self.questions.source.close()
        self.zap.stop()
        self.context.term()


@pytest.fixture
def port() -> Iterator[Port]:
    made = Port()
    yield made
    made.close()


def console(context: Context, port: Port, keys: KeyPair) -> Socket:
    dealer = operator_dealer(context, caller(keys))
    connect(dealer, caller(keys), port.target)
    assert dealer.poll(20_000, zmq.POLLOUT), "admitted"
    return dealer


def ended(monitor: Socket) -> bool:
    return bool(monitor.poll(20_000))


def test_an_operators_name_is_that_of_their_key_and_their_right_is_looked_at_with_each_order(
    port: Port, context: Context
) -> None:
    alice, bob = console(context, port, ALICE), console(context, port, BOB)
    alice.send(codec.encode(SILENCE))
    assert port.drained(lambda: port.fed)
    assert port.fed[0][1] == Ordered(SILENCE, "alice")
    bob.send(codec.encode(SILENCE))
    assert port.drained(lambda: len(port.fed) == 2)
    document, error = read(bob, 7)
    assert document == b""
    assert error.startswith('bob has the right "read" and may change nothing')
    assert 'right = "write" in its [[operator]] table of "bob"' in error
    assert port.fed[1] == ("", Refused("bob", "read-only", "silence"))
    port.operators.use({BOB.public: ("bob", True), ALICE.public: ("alice", False)})
    bob.send(codec.encode(SILENCE))
    assert port.drained(lambda: len(port.fed) == 3)
    assert port.fed[2][1] == Ordered(SILENCE, "bob")
    alice.send(codec.encode(SILENCE))
    assert "alice has the right" in read_after(port, alice, 7)


def read_after(port: Port, dealer: Socket, id: int) -> str:
    assert port.drained(lambda: dealer.poll(0))
    return read(dealer, id)[1]


def test_a_name_or_a_routing_id_of_ones_own_choosing_is_proof_of_nothing(port: Port, context: Context) -> None:
    dealer = operator_dealer(context, caller(BOB))
    dealer.setsockopt(zmq.ROUTING_ID, b"ualice")
    connect(dealer, caller(BOB), port.target)
    assert dealer.poll(20_000, zmq.POLLOUT)
    dealer.send(codec.encode(SILENCE))
    assert "bob has the right" in read_after(port, dealer, 7)
    dealer.send(codec.encode(STATUS))
    assert port.drained(lambda: any(message == STATUS for _, message in port.fed))
    assert port.fed[-1][0] == f"o{chr(MINOR)}ualice"


def test_a_revoked_operators_consoles_are_cut_at_once_and_the_others_stay(port: Port, context: Context) -> None:
    consoles = [console(context, port, keys) for keys in (ALICE, ALICE, BOB)]
    for dealer in consoles:
        dealer.send(codec.encode(STATUS))
    assert port.drained(lambda: len(port.fed) == 3)
    monitors = [dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED) for dealer in consoles]
    port.admit(BOB)
    assert ended(monitors[0]) and ended(monitors[1])
    assert port.operators.cut == 2
    consoles[2].send(codec.encode(STATUS))
    assert port.drained(lambda: len(port.fed) == 4)
    assert not monitors[2].poll(0)
    for monitor, dealer in zip(monitors, consoles, strict=True):
        dealer.disable_monitor()
        monitor.close()


def test_who_says_something_only_after_being_revoked_is_not_heard_and_cut_then(port: Port, context: Context) -> None:
    alice = console(context, port, ALICE)
    monitor = alice.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    port.operators.use({})
    alice.send(codec.encode(SILENCE))
    assert port.drained(lambda: port.fed)
    assert port.fed == [("", Refused("", "unknown-sender"))]
    assert ended(monitor)
    alice.disable_monitor()
    monitor.close()


def test_who_asks_too_often_is_told_so_and_counted(
    port: Port, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visitors, "ASK_BURST", 2)
    alice, bob = console(context, port, ALICE), console(context, port, BOB)

    def noisy() -> bool:
        alice.send(codec.encode(STATUS))
        return ("", Refused("alice", "noisy")) in port.fed

    assert port.drained(noisy)
    assert read(alice, 1) == (b"", "alice asks more than 20 times a second; ask less often")
    bob.send(codec.encode(STATUS))
    assert port.drained(lambda: len({asker for asker, message in port.fed if message == STATUS}) == 2), (
        "bob has an allowance"
    )


def test_one_operator_has_only_so_many_consoles_and_the_oldest_makes_room(
    request: pytest.FixtureRequest, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visitors, "VISITS_MAX", 2)
    port: Port = request.getfixturevalue("port")
    consoles = [console(context, port, ALICE) for _ in range(3)]
    monitor = consoles[0].get_monitor_socket(zmq.EVENT_DISCONNECTED)
    for at, dealer in enumerate(consoles):
        dealer.send(codec.encode(STATUS))
        assert port.drained(lambda at=at: len(port.fed) == at + 1)  # type: ignore[misc]
    assert ended(monitor)
    assert port.operators.cut == 1
    consoles[0].disable_monitor()
    monitor.close()


def test_a_console_that_does_not_read_is_cut(port: Port, context: Context) -> None:
    alice = console(context, port, ALICE)
    alice.send(codec.encode(STATUS))
    assert port.drained(lambda: port.fed)
    asker = port.fed[0][0].encode("latin-1")
    begun = time.monotonic()
    while not port.operators.cut and time.monotonic() - begun < 20:
        port.questions.answer(Answer(asker, 1, ["x" * 1_000] * 10_000))
    assert port.operators.cut == 1


# ---- users of this host ----------------------------------------------------------------------------------


@pytest.fixture
def users(driver: Driver, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch) -> Users:
    """They wait for a name for longer than a machine stalls."""
    monkeypatch.setattr(visitors, "NAME_WAIT_NS", 60 * SECOND)
    return Users(start_worker(), driver)


def test_at_the_unix_socket_the_kernel_says_who_it_is(
    users: Users, driver: Driver, context: Context, socket_dir: Path
) -> None:
    fed: list[tuple[str, object]] = []
    endpoint = f"ipc://{socket_dir}/root.sock"
    questions = Questions(query_router(context, endpoint), lambda *news: fed.append(news), Local(users))
    query_dealer(context, endpoint).send(codec.encode(SILENCE))
    assert turn_until(driver, lambda: questions.drain() is not None and fed)
    me = pwd.getpwuid(os.getuid())
    assert fed[0][1] == Ordered(SILENCE, f"{me.pw_name} (uid {me.pw_uid})")


def test_a_name_is_looked_up_once(users: Users, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def look_up(uid: int) -> pwd.struct_passwd:
        asked.append(uid)
        return pwd.struct_passwd(("alice", "x", uid, uid, "", "/", "/bin/sh"))

    monkeypatch.setattr(pwd, "getpwuid", look_up)
    said: list[str] = []
    for _ in range(3):
        users.name(1000, said.append)
    assert turn_until(driver, lambda: len(said) == 3)
    users.name(1000, said.append)
    assert said == ["alice (uid 1000)"] * 4
    assert asked == [1000]


@pytest.mark.parametrize("name", ["", "x" * 65, "al\x1b[31mice"])
def test_a_name_that_is_none_is_left_out(
    name: str, users: Users, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: pwd.struct_passwd((name, "x", uid, uid, "", "/", "/bin/sh")))
    said: list[str] = []
    users.name(1000, said.append)
    assert turn_until(driver, lambda: said == ["uid 1000"])


def test_a_user_whom_nobody_knows_is_a_number(users: Users, driver: Driver) -> None:
    said: list[str] = []
    users.name(4_000_000_001, said.append)
    assert turn_until(driver, lambda: said == ["uid 4000000001"])


def test_a_directory_that_does_not_answer_holds_nobody_up_for_long(
    users: Users, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = threading.Event()

    def hang(uid: int) -> pwd.struct_passwd:
        hanging.wait(20)
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", hang)
    monkeypatch.setattr(visitors, "NAME_WAIT_NS", 20 * MILLISECOND)
    monkeypatch.setattr(visitors, "WAITING_MAX", 2)
    said: list[str] = []
    for _ in range(3):
        users.name(1000, said.append)
    assert said == ["uid 1000"], "the third does not wait"
    assert turn_until(driver, lambda: len(said) == 3)
    hanging.set()
    assert said == ["uid 1000"] * 3
