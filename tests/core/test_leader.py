from __future__ import annotations

import random

import pytest

from hbagent.core.config import LeaderConfig
from hbagent.core.effects import Effects, Send
from hbagent.core.leader import LeaderCore
from hbagent.core.messages import Linked, RackSummary, Report, ReportWanted, Transitions, TransitionsAck
from hbagent.core.states import Liveness
from hbagent.core.units import MILLISECOND, SECOND
from tests.build import NODE, leader_core

RACK = "dc1/rack1"
NODES = (f"{RACK}/node1", f"{RACK}/node2")
ROOT = "dc1/root"


def make_leader() -> LeaderCore:
    config = LeaderConfig(name="dc1/rack1-leader1", racks={RACK: NODES}, root=ROOT)
    return LeaderCore(config, random.Random(1), 0)


def beat(leader: LeaderCore, node: str, sequence: int, now: int) -> Effects:
    return leader.beat(node, 77, sequence, now, SECOND, SECOND, 0, 0, 0, False, now)


def let_pass(leader: LeaderCore, begin: int, end: int) -> Effects:
    """Wake the leader whenever it wants; no more than 200 times a second, or it turns in place."""
    effects: list[object] = []
    now = begin
    for _ in range(10 + 200 * (1 + (end - begin) // SECOND)):
        deadline = leader.deadline()
        assert deadline is not None
        if deadline > end:
            return tuple(effects)  # type: ignore[arg-type]
        now = max(now, deadline)
        effects += leader.wake(now)
    raise AssertionError("the leader turns in place")


def test_an_acknowledgement_that_comes_after_the_link_was_lost_does_not_make_the_leader_turn_in_place() -> None:
    leader = make_leader()
    leader.wake(0)
    leader.receive("", Linked(ROOT, True), 0)
    beat(leader, NODES[0], 1, SECOND)
    beat(leader, NODES[1], 1, SECOND)
    leader.receive("", Linked(ROOT, False), SECOND)
    leader.receive(ROOT, TransitionsAck(epoch=leader.epoch, number=1), SECOND)
    let_pass(leader, SECOND, 10 * SECOND)
    sent = leader.receive("", Linked(ROOT, True), 10 * SECOND)
    again = [effect.message for effect in sent if isinstance(effect, Send)]
    assert next(t.number for m in again if isinstance(m, Transitions) for t in m.items) == 2


def test_what_was_not_acknowledged_is_sent_again_in_time_however_much_follows_it() -> None:
    leader = make_leader()
    leader.wake(0)
    leader.receive("", Linked(ROOT, True), 0)
    first = beat(leader, NODES[0], 1, SECOND)
    assert numbers(first) == [[1]]
    restarts: list[list[int]] = []
    for count in range(2, 8):
        # A second node is started again each second: always something new to send.
        now = count * SECOND
        leader.beat(NODES[1], count, 1, now, SECOND, SECOND, 0, 0, 0, False, now)
        restarts += numbers(let_pass(leader, now, now + SECOND))
    assert [sent[0] for sent in restarts].count(1) == 3


def numbers(effects: Effects) -> list[list[int]]:
    """Transition numbers in each message that goes to the root."""
    sent = [effect.message for effect in effects if isinstance(effect, Send)]
    return [[t.number for t in message.items] for message in sent if isinstance(message, Transitions)]


def test_a_report_that_was_lost_is_asked_for_until_it_arrives() -> None:
    leader = make_leader()
    leader.beat(NODES[0], 77, 1, SECOND, SECOND, SECOND, 0, 0, 42, False, SECOND)
    asked = [effect for effect in leader.wake(2 * SECOND) if isinstance(effect, Send)]
    assert asked == [Send(NODES[0], ReportWanted(have=0))]
    leader.receive(NODES[0], Report(incarnation=77, number=1, digest=42), 2 * SECOND)
    leader.beat(NODES[0], 77, 2, 2 * SECOND, SECOND, SECOND, 0, 0, 42, False, 2 * SECOND)
    assert [effect for effect in leader.wake(4 * SECOND) if isinstance(effect, Send)] == []


def test_a_beat_cannot_put_its_own_suspicion_off() -> None:
    leader = make_leader()
    for sequence in (1, 2):
        at = sequence * SECOND
        leader.beat(NODES[0], 77, sequence, at, 3600 * SECOND, SECOND, 0, 0, 0, False, at)
    for at in range(2 * SECOND, 4 * SECOND, SECOND // 50):
        leader.wake(at)
    assert leader.roster.members[NODES[0]].liveness is Liveness.SUSPECT


def test_a_root_that_is_linked_is_given_the_lease_before_the_news() -> None:
    leader = make_leader()
    leader.wake(0)
    beat(leader, NODES[0], 1, SECOND)
    sent = [e.message for e in leader.receive("", Linked(ROOT, True), 2 * SECOND) if isinstance(e, Send)]
    assert [type(message) for message in sent] == [RackSummary, Transitions]


@pytest.mark.parametrize(("pause", "first"), [(SECOND, False), (6 * SECOND, True)])
def test_a_leader_that_stood_still_takes_its_lease_before_it_tells_the_news(pause: int, first: bool) -> None:
    leader = make_leader()
    leader.wake(0)
    leader.receive("", Linked(ROOT, True), 0)
    let_pass(leader, 0, 5 * SECOND)
    # What its sockets hold is read before the next summary is sent.
    sent = [e.message for e in beat(leader, NODES[0], 1, 5 * SECOND + pause) if isinstance(e, Send)]
    assert [type(message) for message in sent] == [*[RackSummary] * first, Transitions]


@pytest.mark.parametrize("told", [True, False])
def test_a_pause_of_the_leaders_loop_is_learned_of_no_node_when_it_is_told_before_draining(told: bool) -> None:
    core = leader_core("node1")
    for number in range(1, 20_000):
        now = number * SECOND
        core.wake(now)
        beat(core, NODE, number, now)
    detector = core.roster.members[NODE].detector
    before = detector.margin_ns
    now = 20_000 * SECOND + 900 * MILLISECOND
    if told:
        core.lagged(now)
    core.beat(NODE, 77, 20_000, 20_000 * SECOND, SECOND, SECOND, 0, 0, 0, False, now)
    assert (detector.margin_ns == before) is told
