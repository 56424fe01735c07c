"""Calls through real CURVE sockets, and how they move: to what works, and not before it does."""

from __future__ import annotations

import functools
import heapq
import random
import time
from collections.abc import Callable, Iterator

import pytest

from hbagent.core.messages import Admission, Hello
from hbagent.core.units import HOUR
from hbagent.role import calls as calls_module
from hbagent.role.calls import Calls
from hbagent.role.control import ControlRouter
from hbagent.role.driver import Driver
from hbagent.role.settings import Endpoint
from hbagent.transport import sockets
from hbagent.transport.backoff import Backoff
from hbagent.transport.connections import Connections
from hbagent.transport.sockets import Context
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
