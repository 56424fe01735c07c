"""Calls through real CURVE sockets, and how they move: to what works, and not before it does."""

from __future__ import annotations

import contextlib
import functools
import heapq
import random
import socket as bsd
import threading
import time
from collections.abc import Callable, Iterator

import msgspec
import pytest
import zmq

from hbagent.core.messages import Admission, Hello
from hbagent.core.units import HOUR
from hbagent.role import calls as calls_module
from hbagent.role.calls import Calls
from hbagent.role.control import ControlRouter
from hbagent.role.driver import Driver
from hbagent.role.settings import Endpoint
from hbagent.transport import sockets
from hbagent.transport.allow import AllowList, Role
from hbagent.transport.backoff import Backoff
from hbagent.transport.connections import Connections
from hbagent.transport.keys import KeyPair
from hbagent.transport.sockets import Context
from hbagent.transport.zap import ZapServer
from tests.loopback import OWN
from tests.role.parts import Lines
from tests.role.test_driver import turn_until
from tests.transport.doors import Door, OpenDoor, caller, enrolled, new_keys

NODE, STRANGER = new_keys("demo/rack1/node1"), new_keys("demo/rack1/node2")
LEADER = "demo/rack1-leader1"
HELLO = Hello(incarnation=1, interval_ns=1_000_000, version="1.0.0")
NOBODY = Endpoint(
    name=LEADER, publish="tcp://127.0.0.1:9", control="tcp://127.0.0.1:9", public_key=new_keys(LEADER).public
)


class Leader:
    """One address of a leader, which greets back whoever greets."""

    def __init__(self, door: Door, driver: Driver, accepted: bool = True) -> None:
        self.door, self._driver, self.accepted = door, driver, accepted
        self.greetings = 0
        senders = {NODE.public: NODE.name}
        self._router = ControlRouter(door.control, self._hear, senders, (Hello,), connections=Connections())
        driver.add(self._router)

    def _hear(self, sender: str, message: object) -> None:
        if isinstance(message, Hello):
            self.greetings += 1
            self._router.send(sender, Admission(accepted=self.accepted, epoch=5))

    @property
    def beats(self) -> list[bytes]:
        return [body for _, body in self.door.drain()]

    @property
    def endpoint(self) -> Endpoint:
        assert self.door.keys is not None
        control, publish = self.door.control_target.endpoint, self.door.publish.endpoint
        return Endpoint(name=LEADER, control=control, publish=publish, public_key=self.door.keys.public)

    def leave(self) -> None:
        self._driver.remove(self._router)
        self.door.close()


class Caller:
    """Calls, what was told of them, and one number published each turn."""

    def __init__(self, context: Context, driver: Driver, lines: Lines) -> None:
        self.told: list[tuple[bool, bool, bool]] = []
        self.heard: list[object] = []
        self.published = 0
        self._driver = driver
        self.calls = Calls(
            context,
            caller(NODE),
            driver,
            random.Random(1),
            lines,
            heard=lambda name, message: self.heard.append(message),
            accepts=(Admission,),
            linked=self._linked,
            publishers={"beats": functools.partial(sockets.beat_publisher, context, caller(NODE), ())},
            admits=lambda message: isinstance(message, Admission) and message.accepted,
        )

    def _linked(self, name: str, up: bool, refused: bool, moved: bool) -> None:
        self.told.append((up, refused, moved))
        if up:
            self.calls.send(name, HELLO)

    @property
    def next(self) -> calls_module._Line:
        """The line to the address that it moves to."""
        line = self.calls._calls[LEADER].next
        assert line is not None
        return line

    def beating_until(self, condition: Callable[[], object]) -> bool:
        """Publish a beat each turn until the condition holds."""

        def beat() -> object:
            self.published += 1
            number = self.published
            self.calls.publish("beats", lambda minor: b"%d" % number)
            return condition()

        return turn_until(self._driver, beat)


def an_hour_later(driver: Driver) -> None:
    """Make the calls that are so far away."""
    far = time.monotonic_ns() + HOUR // 2
    for timer in [timer for timer in driver._timers if timer[0] > far]:
        driver._timers.remove(timer)
        timer[2]()
    heapq.heapify(driver._timers)


@pytest.fixture
def leader(open_door: OpenDoor, driver: Driver) -> Leader:
    return Leader(open_door(enrolled(NODE)), driver)


@pytest.fixture
def elsewhere(open_door: OpenDoor, driver: Driver) -> Leader:
    return Leader(open_door(enrolled(NODE)), driver)


@pytest.fixture
def agent(
    context: Context, driver: Driver, lines: Lines, leader: Leader, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Caller]:
    """An agent that beats to the leader."""
    monkeypatch.setattr(calls_module, "SETTLE_NS", 100_000_000)
    monkeypatch.setattr(calls_module, "MOVE_TOLD_NS", HOUR)
    monkeypatch.setattr(
        calls_module, "Backoff", functools.partial(Backoff, minimum_ns=20_000_000, maximum_ns=40_000_000)
    )
    made = Caller(context, driver, lines)
    made.calls.use([leader.endpoint])
    assert made.beating_until(lambda: leader.beats and made.heard)
    made.told.clear()
    yield made
    made.calls.close()


def test_who_is_called_elsewhere_moves_there_without_a_gap(
    agent: Caller, leader: Leader, elsewhere: Leader, lines: Lines
) -> None:
    agent.calls.use([elsewhere.endpoint])
    assert agent.beating_until(lambda: lines.of("moved"))
    assert lines.of("moved") == [
        {"peer": LEADER, "from": leader.endpoint.control, "to": elsewhere.endpoint.control},
    ]
    last = agent.published
    assert agent.beating_until(lambda: elsewhere.beats)
    assert agent.told == [(True, False, True)], "nothing was lost"
    assert elsewhere.greetings == 1
    assert int(elsewhere.beats[0]) > last, "each beat went one way, and the first one to the new address arrived"
    assert int(leader.beats[-1]) <= last


def test_what_never_works_changes_nothing_and_is_told(
    agent: Caller, driver: Driver, leader: Leader, lines: Lines
) -> None:
    agent.calls.use([NOBODY])
    before = len(leader.beats)
    assert agent.beating_until(lambda: len(leader.beats) > before)
    an_hour_later(driver)
    (told,) = lines.of("new-address-does-not-work")
    assert (told["kept"], told["new"]) == (leader.endpoint.control, NOBODY.control)
    assert told["reason"] == "no beats, control"
    before = len(leader.beats)
    assert agent.beating_until(lambda: len(leader.beats) > before)
    assert agent.told == []
    assert lines.of("moved") == []


def test_an_address_that_refuses_our_key_is_not_moved_to_until_it_admits(
    agent: Caller, driver: Driver, elsewhere: Leader, lines: Lines
) -> None:
    elsewhere.door.zap.replace(enrolled(STRANGER))
    agent.calls.use([elsewhere.endpoint])
    assert agent.beating_until(lambda: agent.next.backoffs)
    an_hour_later(driver)
    assert lines.of("new-address-does-not-work")[0]["reason"] == "it refuses our key"
    assert agent.told == [], "there is a connection all the while"
    elsewhere.door.zap.replace(enrolled(NODE))
    assert agent.beating_until(lambda: lines.of("moved"))


def test_a_leader_that_does_not_expect_us_is_not_moved_to(
    agent: Caller, driver: Driver, elsewhere: Leader, lines: Lines
) -> None:
    elsewhere.accepted = False
    agent.calls.use([elsewhere.endpoint])
    assert agent.beating_until(lambda: elsewhere.greetings and agent.next.up == {"beats", "control"})
    an_hour_later(driver)
    assert lines.of("new-address-does-not-work")[0]["reason"] == "not admitted there"
    assert lines.of("moved") == []


def test_who_changes_his_mind_is_back_where_he_was(
    agent: Caller, leader: Leader, elsewhere: Leader, lines: Lines
) -> None:
    elsewhere.accepted = False
    agent.calls.use([elsewhere.endpoint])
    assert agent.beating_until(lambda: elsewhere.greetings)
    greetings = leader.greetings
    agent.calls.use([leader.endpoint])
    assert agent.beating_until(lambda: leader.greetings > greetings)
    assert agent.told == [(True, False, True)] * 2
    agent.calls.use([elsewhere.endpoint])
    elsewhere.accepted = True
    assert agent.beating_until(lambda: lines.of("moved"))


def test_who_has_nobody_left_at_the_old_address_takes_the_new_one_at_once(
    agent: Caller, leader: Leader, elsewhere: Leader, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls_module, "SETTLE_NS", 3_600_000_000_000)
    leader.leave()
    assert agent.beating_until(lambda: agent.told)
    assert agent.told == [(False, False, False)]
    agent.calls.use([elsewhere.endpoint])
    assert agent.beating_until(lambda: elsewhere.beats)
    assert agent.told[1:] == [(True, False, False)]
    assert lines.of("moved") == [], "and leaves the old one when the new one has worked for a while"


def test_the_same_address_and_key_disturb_nobody(agent: Caller, leader: Leader) -> None:
    agent.calls.use([leader.endpoint])
    before = len(leader.beats)
    assert agent.beating_until(lambda: len(leader.beats) > before)
    assert (agent.told, leader.greetings, len(agent.calls)) == ([], 1, 1)
    agent.calls.use([])
    assert len(agent.calls) == 0


# ---- calls that do not come about ------------------------------------------------------------------------------


class Elsewhere:
    """Something that listens and is no hbagent."""

    def __init__(self, says: bytes = b"", hangs_up: bool = False) -> None:
        self._socket = bsd.create_server((OWN, 0))
        self._says, self._hangs_up = says, hangs_up
        self.callers: list[bsd.socket] = []
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    def _answer(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with contextlib.suppress(OSError):
                connection.sendall(self._says)
            if self._hangs_up:
                connection.close()
            else:
                self.callers.append(connection)

    def close(self) -> None:
        self._socket.shutdown(bsd.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        for connection in self.callers:
            connection.close()


@contextlib.contextmanager
def control_at(port: int | str, keys: KeyPair | None) -> Iterator[int]:
    """The control path of a leader at a port, which is the value."""
    context: Context = zmq.Context()
    allow = AllowList.named(Role.AGENT, [NODE.name]) if keys is None else enrolled(NODE)
    zap = ZapServer(context, allow, {"agents": Role.AGENT}, plain=keys is None)
    host = sockets.Host(keys=keys, domain="agents", peers_expected=1)
    control = sockets.control_router(context, host, f"tcp://{OWN}:{port}")
    try:
        yield int(control.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])
    finally:
        control.close()
        zap.stop()
        context.term()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not come about is told at once, and tried again at once."""
    monkeypatch.setattr(calls_module, "TOLD_NS", 100_000_000)
    monkeypatch.setattr(calls_module, "LOOK_AGAIN_NS", 20_000_000)
    monkeypatch.setattr(
        calls_module, "Backoff", functools.partial(Backoff, minimum_ns=20_000_000, maximum_ns=40_000_000)
    )


@pytest.fixture
def calling(context: Context, driver: Driver, lines: Lines, soon: None) -> Iterator[Callable[..., Calls]]:
    """Makes calls to one leader."""
    made: list[Calls] = []

    def call(endpoint: Endpoint, keys: KeyPair | None = NODE, beats: bool = True) -> Calls:
        who = caller(keys, NODE.name)
        made.append(
            Calls(
                context,
                who,
                driver,
                random.Random(1),
                lines,
                heard=lambda name, message: None,
                accepts=(Admission,),
                linked=lambda name, up, refused, moved: lines("info", "linked", {"up": up, "refused": refused}),
                publishers={"beats": functools.partial(sockets.beat_publisher, context, who, ())} if beats else {},
            )
        )
        made[-1].use([endpoint])
        return made[-1]

    yield call
    for calls in made:
        calls.close()


def at(port: int, key: str = "") -> Endpoint:
    address = f"tcp://{OWN}:{port}"
    return Endpoint(name=LEADER, publish=address, control=address, public_key=key)


UP = {"up": True, "refused": False}


def reasons(lines: Lines) -> set[str]:
    return {str(line["reason"]) for line in lines.of("not-connected")}


@pytest.mark.parametrize(
    ("plain", "why"),
    [
        (False, "it has a key, and this side says plain = true"),
        (True, "it says plain = true, and this side has a key"),
    ],
)
def test_a_call_in_the_other_mode_is_told_with_its_remedy_and_works_once_it_is_mended(
    calling: Callable[..., Calls], driver: Driver, lines: Lines, plain: bool, why: str
) -> None:
    keys = new_keys(LEADER)
    with control_at("*", None if plain else keys) as port:
        calling(at(port, keys.public if plain else ""), NODE if plain else None, beats=False)
        # Who finds out first is a matter of luck, and the other one does not learn why.
        assert turn_until(driver, lambda: why in reasons(lines))
        line = next(line for line in lines.of("not-connected") if line["reason"] == why)
        assert (line["peer"], line["address"], line["for"]) == (LEADER, f"tcp://{OWN}:{port}", "control")
        assert "both sides or on none" in line["remedy"]
        assert reasons(lines) <= {why, "it breaks off before anybody can be admitted"}
    # libzmq has given up by now. Whoever mends the leader need not restart its agents.
    with control_at(port, keys if plain else None):
        assert turn_until(driver, lambda: UP in lines.of("linked"))


@pytest.mark.parametrize(
    ("says", "hangs_up", "why"),
    [
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", False, "what listens there is something else"),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", True, "what listens there is something else"),
        (b"", False, "something takes the connection and says nothing"),
        (b"", True, "it breaks off before anybody can be admitted"),
    ],
)
def test_what_listens_there_and_is_no_leader_is_told_once_and_called_again_until_it_is_one(
    calling: Callable[..., Calls],
    driver: Driver,
    lines: Lines,
    says: bytes,
    hangs_up: bool,
    why: str,
) -> None:
    other = Elsewhere(says, hangs_up)
    keys = new_keys(LEADER)
    try:
        calling(at(other.port, keys.public))
        assert turn_until(driver, lambda: why in reasons(lines))
        (line,) = [line for line in lines.of("not-connected") if line["reason"] == why]
        assert (line["peer"], line["for"]) == (LEADER, "beats,control")
        assert line["address"] == f"tcp://{OWN}:{other.port}" and line["remedy"]
    finally:
        other.close()

    with control_at(other.port, keys):
        assert turn_until(driver, lambda: UP in lines.of("linked"))


def test_a_leader_that_does_not_run_and_one_with_another_key_are_told_of(
    calling: Callable[..., Calls], open_door: OpenDoor, driver: Driver, lines: Lines
) -> None:
    calls = calling(NOBODY)
    assert turn_until(driver, lambda: lines.of("not-connected"))
    (line,) = lines.of("not-connected")
    assert line["reason"] == "nobody answers there"
    calls.close()
    door = open_door(enrolled(NODE))
    calling(msgspec.structs.replace(NOBODY, control=door.control_target.endpoint, publish=door.publish.endpoint))
    assert turn_until(driver, lambda: len(lines.of("not-connected")) >= 3)
    assert {line["for"] for line in lines.of("not-connected")[1:]} == {"control", "beats"}
    for line in lines.of("not-connected")[1:]:
        assert line["reason"] == "it breaks off before anybody can be admitted"
        assert line["remedy"].startswith("compare public_key with `hbagent keys show` over there")


def test_exchanged_ports_are_told_of(
    calling: Callable[..., Calls], open_door: OpenDoor, driver: Driver, lines: Lines
) -> None:
    door = open_door(enrolled(NODE))
    assert door.keys is not None
    control, publish = door.publish.endpoint, door.control_target.endpoint
    calling(Endpoint(name=LEADER, publish=publish, control=control, public_key=door.keys.public))
    assert turn_until(driver, lambda: len(lines.of("not-connected")) >= 2)
    assert {line["for"] for line in lines.of("not-connected")} == {"control", "beats"}
    for line in lines.of("not-connected"):
        assert "publish and control" in str(line["remedy"])


def test_who_is_refused_hears_of_that_and_of_nothing_else(
    calling: Callable[..., Calls], open_door: OpenDoor, driver: Driver, lines: Lines
) -> None:
    door = open_door(enrolled(STRANGER))
    assert door.keys is not None
    control, publish = door.control_target.endpoint, door.publish.endpoint
    calling(Endpoint(name=LEADER, publish=publish, control=control, public_key=door.keys.public))
    refused = {"up": False, "refused": True}
    assert turn_until(driver, lambda: lines.of("linked").count(refused) >= 5)
    assert lines.of("not-connected") == []


def test_a_leader_that_is_away_for_a_moment_is_no_trouble_and_one_that_stays_away_is_told_once(
    agent: Caller, leader: Leader, driver: Driver, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls_module, "TOLD_NS", 300_000_000)
    monkeypatch.setattr(calls_module, "LOOK_AGAIN_NS", 20_000_000)
    leader.leave()
    assert turn_until(driver, lambda: (False, False, False) in agent.told)
    assert lines.of("not-connected") == []
    assert turn_until(driver, lambda: len(lines.of("not-connected")) >= 2)
    attempts = agent.calls._calls[LEADER].line.attempts["control"]
    count = attempts.count
    assert turn_until(driver, lambda: attempts.count >= count + 10)
    assert [line["reason"] for line in lines.of("not-connected")] == ["nobody answers there"] * 2
