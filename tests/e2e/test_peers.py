"""Two leaders of one rack over their real doors: each asks the other, and nobody else asks anything."""

from __future__ import annotations

import time

import pytest
import zmq

from hbagent.core.messages import HeardWanted, Hello, LastHeard
from hbagent.demo.datacenter import Plan
from hbagent.wire import codec
from tests.conftest import Figures
from tests.e2e.conftest import Build
from tests.e2e.fleet import Fleet, ids, node_of
from tests.e2e.intruder import Intruder, beat
from tests.e2e.patient import PATIENT
from tests.e2e.test_intruders import knock

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("healed"), pytest.mark.paired, pytest.mark.timeout(90)]

INTERVAL = 0.2
LEADER1, LEADER2, NODE = "rack1-leader1", "rack1-leader2", "rack1-node1"
#: A leader of another rack, which the first rack's leaders do not know.
STRANGER = "rack2-leader1"
QUESTION = HeardWanted(number=7, node=node_of(NODE))
PLAN = Plan(racks=2, nodes=2, leaders=2, interval="200ms", leader_tables=PATIENT)


@pytest.fixture(scope="module")
def fleet(build: Build) -> Fleet:
    made = build(PLAN)
    made.wake_up()
    return made


def test_each_leader_calls_the_other(fleet: Fleet) -> None:
    for leader, other in ((LEADER1, LEADER2), (LEADER2, LEADER1)):
        fleet.until(lambda: fleet.lines(leader, "peer-connected", f"demo/{other}"), "connected")  # noqa: B023
        assert not fleet.lines(leader, "peer-refused-our-key")


def answers(asker: Intruder) -> list[LastHeard]:
    """The answers among what has come in. Whoever comes with a node's key is also asked whether that node lives."""
    told = []
    while asker.socket.poll(0):
        told.append(codec.decode(asker.socket.recv()))
    return [message for message in told if isinstance(message, LastHeard)]


def test_a_leader_answers_its_peer_what_it_has_heard(fleet: Fleet) -> None:
    with knock(fleet, LEADER1, LEADER2, "control") as peer:
        fleet.until(lambda: peer.socket.poll(0, zmq.POLLOUT), "let in")
        peer.tell(QUESTION)
        assert peer.socket.poll(30_000), "no answer"
        (heard,) = answers(peer)
    assert (heard.number, heard.node) == (7, node_of(NODE))
    assert heard.age_ns is not None
    # The last beats; as many as a busy machine may keep back.
    assert heard.age_ns < 20 * INTERVAL * 1e9


def test_a_leader_s_key_publishes_nothing_and_greets_nobody(fleet: Fleet, figures: Figures) -> None:
    mark, before = fleet.newest(), fleet.refused("unexpected-type", LEADER1)
    with knock(fleet, LEADER1, LEADER2) as publishing, knock(fleet, LEADER1, LEADER2, "control") as control:
        assert not publishing.is_admitted(1.0)
        publishing.say(beat(7, 1))
        fleet.until(lambda: control.socket.poll(0, zmq.POLLOUT), "let in")
        for _ in range(20):
            control.tell(Hello(incarnation=7, interval_ns=200_000_000, version="1"))
        fleet.until(lambda: fleet.refused("unexpected-type", LEADER1) - before >= 20, "all refused")
    fleet.until(lambda: fleet.lines(LEADER1, "handshake-refused", "wrong-role"), "it is logged")
    assert ids(fleet.events(mark)) == []
    figures("F20", "another leader's key: 0 beats admitted, 20 of 20 messages that are no question refused")


def test_nobody_else_asks(fleet: Fleet) -> None:
    before = fleet.refused("unexpected-type", LEADER1)
    with knock(fleet, LEADER1, NODE, "control") as agent, knock(fleet, LEADER1, STRANGER, "control") as stranger:
        fleet.until(lambda: agent.socket.poll(0, zmq.POLLOUT), "let in")
        agent.tell(QUESTION)
        fleet.until(lambda: fleet.refused("unexpected-type", LEADER1) == before + 1, "refused")
        for _ in range(20):
            stranger.tell(QUESTION)
            time.sleep(0.05)
        assert answers(agent) == []
        assert not stranger.socket.poll(0)
    assert fleet.refused("unexpected-type", LEADER1) == before + 1
