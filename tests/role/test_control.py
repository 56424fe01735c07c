"""The control path through real CURVE sockets: who spoke, whom to answer, and what does not belong there."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

import pytest

from hbagent.core import messages as m
from hbagent.core.config import LeaderConfig
from hbagent.core.effects import Send
from hbagent.core.leader import LeaderCore
from hbagent.core.messages import Admission, Farewell, FarewellAck, Hello, Refused, ReportWanted
from hbagent.role import agent, leader, root
from hbagent.role import control as control_module
from hbagent.role.control import ControlDealer, ControlRouter
from hbagent.transport.allow import Role
from hbagent.transport.connections import Connections
from hbagent.transport.keys import KeyPair
from hbagent.transport.sockets import CONTROL_QUEUE_MAX, Context, control_dealer
from hbagent.wire import codec
from hbagent.wire.version import MAGIC, MAJOR
from tests.role.parts import until
from tests.transport.doors import Door, OpenDoor, caller, enrolled, new_keys
from tests.wire import samples

NODE1, NODE2 = new_keys("demo/rack1/node1"), new_keys("demo/rack1/node2")
LEADER = "demo/rack1-leader1"
HELLO = Hello(incarnation=1, interval_ns=1_000_000, version="1.0.0")
WELCOME = Admission(accepted=True, epoch=5)


class Ends:
    """A router, its dealers, and what each was given."""

    def __init__(self, door: Door, context: Context) -> None:
        self.door = door
        self.context = context
        self.heard: list[tuple[str, object]] = []
        senders = door.zap._allow.senders(Role.AGENT)
        self.connections = Connections()
        self.router = ControlRouter(
            door.control,
            lambda name, message: self.heard.append((name, message)),
            senders,
            leader.CONTROL,
            connections=self.connections,
        )
        self.told: list[tuple[str, object]] = []

    def call(self, keys: KeyPair) -> ControlDealer:
        socket = control_dealer(self.context, caller(keys), [self.door.control_target])
        return ControlDealer(socket, LEADER, lambda name, message: self.told.append((name, message)), agent.CONTROL)

    def until(self, condition: Callable[[], object], *dealers: ControlDealer) -> bool:
        """Drain both ends until the condition holds."""

        def drained() -> object:
            self.router.drain()
            for dealer in dealers:
                dealer.drain()
            return condition()

        return until(drained)

    def greet(self, dealer: ControlDealer) -> None:
        """Say hello until it arrives: a DEALER that is not connected yet drops it."""
        before = len(self.heard)

        def said() -> bool:
            dealer.send(HELLO)
            return len(self.heard) > before

        assert self.until(said)
        # What was said in vain may still be on its way, and comes before this.
        last = Farewell(incarnation=1, sequence=1)
        dealer.send(last)
        assert self.until(lambda: self.heard[-1][1] == last)
        self.heard.clear()

    def refusals(self) -> list[Refused]:
        return [message for _, message in self.heard if isinstance(message, Refused)]


@pytest.fixture
def ends(open_door: OpenDoor, context: Context) -> Ends:
    return Ends(open_door(enrolled(NODE1, NODE2)), context)


@pytest.fixture
def node1(ends: Ends) -> ControlDealer:
    dealer = ends.call(NODE1)
    ends.greet(dealer)
    return dealer


def test_a_hello_arrives_under_the_name_of_its_key_and_is_answered(ends: Ends, node1: ControlDealer) -> None:
    node2 = ends.call(NODE2)
    ends.greet(node2)
    node1.send(HELLO)
    assert ends.until(lambda: (NODE1.name, HELLO) in ends.heard)
    ends.router.send(NODE1.name, WELCOME)
    assert ends.until(lambda: ends.told, node1, node2)
    assert ends.told == [(LEADER, WELCOME)]
    assert not node2.drain()
    assert ends.router.unsent == 0


def test_the_answer_goes_to_where_the_key_was_heard_last(ends: Ends, node1: ControlDealer) -> None:
    again = ends.call(NODE1)
    ends.greet(again)
    ends.router.send(NODE1.name, WELCOME)
    assert ends.until(lambda: ends.told, again)
    assert node1.drain() == 0


def test_a_revoked_key_is_neither_heard_nor_answered(ends: Ends, node1: ControlDealer) -> None:
    ends.router.replace_senders(enrolled(NODE2).senders(Role.AGENT))
    for _ in range(20):
        node1.send(HELLO)
    assert ends.until(lambda: len(ends.heard) == 20)
    assert ends.heard == [("", Refused("", "unknown-sender"))] * 20
    ends.router.send(NODE1.name, WELCOME)
    assert ends.router.unsent == 1


def test_the_connection_of_an_old_key_is_not_answered_in_the_place_of_the_new(ends: Ends, node1: ControlDealer) -> None:
    ends.router.replace_senders(enrolled(new_keys(NODE1.name), NODE2).senders(Role.AGENT))
    ends.router.send(NODE1.name, WELCOME)
    assert ends.router.unsent == 1


def test_a_key_that_stays_is_answered_after_a_reload(ends: Ends, node1: ControlDealer) -> None:
    ends.router.replace_senders(enrolled(NODE1).senders(Role.AGENT))
    ends.router.send(NODE1.name, WELCOME)
    assert ends.until(lambda: ends.told, node1)


def test_what_does_not_belong_there_is_refused_and_counted(ends: Ends, node1: ControlDealer) -> None:
    others = [message for message in samples.MESSAGES.values() if type(message) not in leader.CONTROL]
    for message in others:
        node1.send(message)
    assert ends.until(lambda: len(ends.heard) == len(others))
    assert {(refused.sender, refused.reason) for refused in ends.refusals()} == {(NODE1.name, "unexpected-type")}
    assert len(ends.refusals()) == len(others)


def test_garbage_and_parts_are_refused_and_the_next_message_is_heard(ends: Ends, node1: ControlDealer) -> None:
    frame = codec.encode(HELLO)
    node1.source.send(b"")
    node1.source.send(os.urandom(1_000))
    node1.source.send(MAGIC + bytes([MAJOR + 1]) + frame[3:])
    node1.source.send(frame[:4] + b"\x7f" + frame[5:])
    node1.source.send_multipart([frame, frame])
    node1.source.send_multipart([frame] * 50)
    node1.send(HELLO)
    assert ends.until(lambda: (NODE1.name, HELLO) in ends.heard)
    reasons = [refused.reason for refused in ends.refusals()]
    assert reasons == ["malformed", "malformed", "incompatible", "unknown-type", "malformed", "malformed"]
    assert {refused.sender for refused in ends.refusals()} == {NODE1.name}
    assert {name for name, message in ends.heard if isinstance(message, Refused)} <= {"", NODE1.name}


def test_an_agent_believes_its_leader_no_more_than_it_must(ends: Ends, node1: ControlDealer) -> None:
    for message in samples.MESSAGES.values():
        ends.router.send(NODE1.name, message)
    route = ends.router._routes[NODE1.name][0]
    ends.door.control.send_multipart([route, b"garbage"])
    ends.door.control.send_multipart([route, codec.encode(WELCOME), b"parts"])
    expected = len(samples.MESSAGES) + 2
    assert ends.until(lambda: len(ends.told) == expected, node1)
    taken = {type(message) for _, message in ends.told if not isinstance(message, Refused)}
    assert taken == {Admission, FarewellAck, ReportWanted}
    refused = [message for _, message in ends.told if isinstance(message, Refused)]
    assert {one.sender for one in refused} == {LEADER}
    assert {one.reason for one in refused} == {"unexpected-type", "malformed"}
    assert [one.detail for one in refused][-1] == "not one frame"


def test_sending_to_nobody_is_counted_and_never_waits(ends: Ends, node1: ControlDealer, context: Context) -> None:
    begun = time.monotonic()
    ends.router.send("demo/rack1/node9", WELCOME)
    lonely = control_dealer(context, caller(NODE2), [])
    dealer = ControlDealer(lonely, LEADER, lambda name, message: None, ())
    for _ in range(10):
        dealer.send(HELLO)
    assert (ends.router.unsent, dealer.unsent) == (1, 10)
    node1.source.close(linger=0)

    def noticed() -> bool:
        ends.router.send(NODE1.name, WELCOME)
        return ends.router.unsent > 1

    assert ends.until(noticed)
    assert NODE1.name not in ends.router._routes
    assert time.monotonic() - begun < 5


def test_a_peer_that_does_not_read_costs_what_it_is_sent_and_no_waiting(ends: Ends, node1: ControlDealer) -> None:
    long = Admission(accepted=False, epoch=1, reason="x" * 256)
    begun = time.monotonic()

    def full() -> bool:
        for _ in range(10 * CONTROL_QUEUE_MAX):
            ends.router.send(NODE1.name, long)
        return ends.router.unsent > 0

    assert until(full, 20)
    assert time.monotonic() - begun < 20
    assert NODE1.name in ends.router._routes, "full is not gone"


def test_one_draining_takes_no_more_than_its_bound(
    ends: Ends, node1: ControlDealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_module, "DRAIN_MAX", 10)
    for sequence in range(1, 41):
        node1.send(Farewell(incarnation=1, sequence=sequence))
    counts: list[int] = []

    def drained() -> bool:
        counts.append(ends.router.drain())
        return len(ends.heard) == 40

    assert until(drained)
    assert max(counts) == 10


def test_the_longest_refusal_of_a_leader_can_be_read_by_an_agent() -> None:
    racks: dict[str, tuple[str, ...]] = {f"demo/rack{number}": () for number in range(100)}
    core = LeaderCore(LeaderConfig(name=LEADER, racks=racks), random.Random(1), 0)
    sent = [effect.message for effect in core.receive(NODE1.name, HELLO, 1) if isinstance(effect, Send)]
    (refusal,) = [message for message in sent if isinstance(message, Admission)]
    assert not refusal.accepted
    assert codec.decode(codec.encode(refusal)) == refusal


def test_every_message_of_the_wire_is_taken_at_some_door() -> None:
    """A message that no door takes would be refused everywhere, and nobody would notice before production."""
    doors = (agent.CONTROL, leader.PUBLISHED, leader.CONTROL, leader.FROM_ROOT, root.PUBLISHED, root.CONTROL)
    taken = {kind for door in doors for kind in door}
    assert taken == {*codec.TYPES.values()} - {m.Query, m.AnswerPage}
