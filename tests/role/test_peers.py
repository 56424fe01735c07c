"""Leaders that call one another through real CURVE sockets: asked, answered, refused, called again."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator

import pytest
import zmq

from hbagent.core.messages import HeardWanted, LastHeard, Refused
from hbagent.role import calls as calls_module
from hbagent.role import leader as leader_module
from hbagent.role.control import ControlRouter
from hbagent.role.driver import Driver
from hbagent.role.peers import QUESTIONS, Peers, user_ids
from hbagent.role.settings import Endpoint
from hbagent.transport.allow import AllowList, Role
from hbagent.transport.backoff import Backoff
from hbagent.transport.connections import Connections
from hbagent.transport.sockets import Context, control_dealer
from hbagent.wire import codec
from hbagent.wire.version import MINOR, MINOR_ASSUMED
from tests.role.parts import Lines, SmallCore
from tests.role.test_driver import turn_until
from tests.transport.doors import Door, OpenDoor, caller, enrolled, new_keys
from tests.wire import samples

OWN, OTHER, THIRD = (new_keys(f"demo/rack1-leader{number}") for number in (1, 2, 3))
NODE = new_keys("demo/rack1/node1")
QUESTION = HeardWanted(number=7, node=NODE.name, reads=MINOR)
SECOND_QUESTION = HeardWanted(number=8, node=NODE.name, reads=MINOR)
ANSWER = LastHeard(number=7, node=NODE.name, age_ns=5, reads=MINOR)
#: Everything there is on the wire; an answer and a question once more, should the samples lack them.
ALL = (*samples.MESSAGES.values(), QUESTION, ANSWER)
DOMAINS = {"agents": (Role.AGENT, Role.LEADER)}


def listed(*leaders: str) -> AllowList:
    """The node, and these leaders by their keys."""
    return enrolled(NODE).with_leaders({f"leader {at}": (key,) for at, key in enumerate(leaders)})


class Other:
    """The other leader's bound end: what it hears, and an answer to each question."""

    def __init__(self, door: Door, driver: Driver) -> None:
        self.door = door
        self.heard: list[tuple[str, object]] = []
        self.greetings = 0
        senders = {OWN.public: OWN.name, NODE.public: NODE.name}
        self.router = ControlRouter(
            door.control, self._hear, senders, leader_module.CONTROL, {OWN.name: QUESTIONS}, connections=Connections()
        )
        driver.add(self.router)

    def _hear(self, sender: str, message: object) -> None:
        if isinstance(message, HeardWanted) and message.node.endswith("/nobody"):
            self.greetings += 1
            return
        self.heard.append((sender, message))
        if isinstance(message, HeardWanted):
            self.router.send(sender, ANSWER)

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(name=OTHER.name, control=self.door.control_target.endpoint, public_key=OTHER.public)


@pytest.fixture
def other(open_door: OpenDoor, driver: Driver) -> Other:
    return Other(open_door(listed(OWN.public), keys=OTHER, domains=DOMAINS), driver)


@pytest.fixture
def peers(context: Context, driver: Driver, lines: Lines, monkeypatch: pytest.MonkeyPatch) -> Iterator[Peers]:
    """The calls of one leader, which calls again soon."""
    quick = functools.partial(Backoff, minimum_ns=20_000_000, maximum_ns=40_000_000)
    monkeypatch.setattr(calls_module, "Backoff", quick)
    made = Peers(context, caller(OWN), driver, random.Random(1), lines)
    yield made
    made.close()


def connected(lines: Lines, times: int = 1) -> Callable[[], bool]:
    return lambda: len(lines.of("peer-connected")) == times


def test_a_question_goes_out_and_its_answer_comes_back_under_the_leaders_name(
    peers: Peers, other: Other, driver: Driver, core: SmallCore, lines: Lines
) -> None:
    peers.use([other.endpoint])
    assert turn_until(driver, connected(lines))
    peers.send(OTHER.name, QUESTION)
    assert turn_until(driver, lambda: core.messages(LastHeard))
    assert other.heard == [(OWN.name, QUESTION)]
    assert (OTHER.name, ANSWER) in core.story


def test_a_leader_that_is_called_knows_by_whom(peers: Peers, other: Other, driver: Driver) -> None:
    peers.use([other.endpoint])
    assert turn_until(driver, lambda: other.greetings)
    assert other.router.heard_here() == [OWN.name]
    assert other.heard == []


def test_a_question_to_nobody_costs_nothing(peers: Peers, other: Other, driver: Driver, lines: Lines) -> None:
    peers.send(OTHER.name, QUESTION)
    peers.use([other.endpoint])
    peers.send(OTHER.name, QUESTION)
    assert turn_until(driver, connected(lines))
    peers.send(OTHER.name, SECOND_QUESTION)
    assert turn_until(driver, lambda: other.heard)
    assert other.heard == [(OWN.name, SECOND_QUESTION)], "nothing waits for a leader that is not connected"


def test_a_leader_asks_and_says_nothing_else(
    other: Other, context: Context, driver: Driver, core: SmallCore, peers: Peers, lines: Lines
) -> None:
    peers.use([other.endpoint])
    assert turn_until(driver, connected(lines))
    for message in ALL:
        peers.send(OTHER.name, message)
    known = [message for message in ALL if codec.exists(message, MINOR_ASSUMED)]
    assert turn_until(driver, lambda: len(other.heard) == len(known))
    taken = {type(message) for _, message in other.heard if not isinstance(message, Refused)}
    assert taken == {HeardWanted}
    refused = [message for _, message in other.heard if isinstance(message, Refused)]
    assert {(one.sender, one.reason) for one in refused} == {(OWN.name, "unexpected-type")}


def test_an_agent_asks_a_leader_nothing(other: Other, context: Context, driver: Driver) -> None:
    agent = control_dealer(context, caller(NODE), [other.door.control_target])

    def asked() -> bool:
        if agent.poll(0, zmq.POLLOUT):
            agent.send(codec.encode(QUESTION))
        return bool(other.heard)

    assert turn_until(driver, asked)
    assert other.heard[0] == ("", Refused(NODE.name, "unexpected-type", "HeardWanted"))


def test_a_leader_is_told_nothing_but_answers(
    peers: Peers, other: Other, driver: Driver, core: SmallCore, lines: Lines
) -> None:
    peers.use([other.endpoint])
    assert turn_until(driver, connected(lines))
    peers.send(OTHER.name, QUESTION)
    assert turn_until(driver, lambda: core.messages(LastHeard))
    core.story.clear()
    for message in ALL:
        other.router.send(OWN.name, message)
    assert turn_until(driver, lambda: len([1 for _, message in core.story if message != "wake"]) >= len(ALL))
    assert {type(message) for sender, message in core.story if sender} == {LastHeard}
    assert {one.sender for one in core.messages(Refused)} == {OTHER.name}


def test_who_is_refused_says_so_and_calls_again(
    peers: Peers, other: Other, driver: Driver, core: SmallCore, lines: Lines
) -> None:
    other.door.zap.replace(listed(THIRD.public))
    peers.use([other.endpoint])
    assert turn_until(driver, lambda: len(lines.of("peer-refused-our-key")) >= 2)
    assert lines.of("peer-refused-our-key")[0]["leader"] == OTHER.name
    assert lines.of("peer-lost") == [], "it was never there"
    other.door.zap.replace(listed(OWN.public))
    assert turn_until(driver, connected(lines))
    peers.send(OTHER.name, QUESTION)
    assert turn_until(driver, lambda: core.messages(LastHeard))


def test_the_config_says_who_is_called(
    peers: Peers, other: Other, open_door: OpenDoor, driver: Driver, core: SmallCore, lines: Lines
) -> None:
    peers.use([other.endpoint])
    assert turn_until(driver, connected(lines))
    peers.use([other.endpoint])
    elsewhere = Other(open_door(listed(OWN.public), keys=THIRD, domains=DOMAINS), driver)
    peers.use([Endpoint(name=OTHER.name, control=elsewhere.endpoint.control, public_key=THIRD.public)])
    assert turn_until(driver, connected(lines, 2))
    peers.send(OTHER.name, QUESTION)
    assert turn_until(driver, lambda: core.messages(LastHeard))
    peers.use([])
    peers.send(OTHER.name, QUESTION)
    assert (len(elsewhere.heard), other.heard) == (1, [])
    assert lines.of("peer-lost") == [], "who hung up by itself lost nobody"


def test_a_leader_that_is_gone_is_told_of_once(peers: Peers, other: Other, driver: Driver, lines: Lines) -> None:
    peers.use([other.endpoint])
    assert turn_until(driver, connected(lines))
    driver.remove(other.router)
    other.door.close()
    assert turn_until(driver, lambda: lines.of("peer-lost"))
    assert lines.of("peer-lost") == [{"leader": OTHER.name}]
    peers.send(OTHER.name, QUESTION)


def test_a_leader_is_known_by_its_key_and_in_plain_text_by_its_name() -> None:
    plain = Endpoint(name=THIRD.name, control="tcp://127.0.0.1:1", public_key="")
    known = Endpoint(name=OTHER.name, control="tcp://10.0.0.2:5702", public_key=OTHER.public)
    assert user_ids([known, plain]) == {OTHER.name: (OTHER.public,), THIRD.name: (THIRD.name,)}
    assert user_ids([]) == {}
