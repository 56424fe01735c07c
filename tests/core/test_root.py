from __future__ import annotations

import random

import msgspec

from hbagent.core.config import RackConfig, RootConfig
from hbagent.core.effects import Effects, Happened, Note, Persist, Send
from hbagent.core.messages import Evidence, Kept, NodeRow, RackSummary, Transition, Transitions
from hbagent.core.root import RootCore
from hbagent.core.rootviews import rack_view
from hbagent.core.states import Cause, Kind, Liveness
from hbagent.core.units import SECOND

LEADER = "dc1/rack1-leader1"
RACK = "dc1/rack1"
NODE = "dc1/rack1/node1"


def make_root() -> RootCore:
    config = RootConfig(name="dc1/root", racks=(RackConfig(name=RACK, leaders=(LEADER,)),))
    return RootCore(config, random.Random(1), 0)


def summary(number: int, liveness: Liveness = Liveness.ALIVE, *, epoch: int = 1, sequence: int = 0) -> RackSummary:
    row = NodeRow(
        node="node1",
        liveness=liveness,
        cause=None if liveness is Liveness.ALIVE else Cause.SILENCE,
        age_ns=0,
        incarnation=7,
        sequence=sequence or number,
    )
    return RackSummary(rack=RACK, epoch=epoch, number=number, newest=0, nodes=(row,))


def kinds(effects: Effects) -> list[Kind]:
    return [effect.kind for effect in effects if isinstance(effect, Happened)]


def death(number: int = 1, *, epoch: int = 1) -> Transitions:
    transition = Transition(
        number=number,
        node=NODE,
        kind=Kind.NODE_DEAD,
        before=Liveness.SUSPECT,
        after=Liveness.DEAD,
        cause=Cause.SILENCE,
        evidence=Evidence(text="no beat for 5.0s", silent_ns=5 * SECOND),
        incarnation=7,
        sequence=1,
    )
    return Transitions(epoch=epoch, base=number, after=number - 1, items=(transition,))


def keep(root: RootCore, effects: Effects, now: int) -> Effects:
    """The disk does what it was told."""
    (order,) = [effect for effect in effects if isinstance(effect, Persist)]
    return root.receive("", Kept(order.token), now)


def test_a_transition_is_acknowledged_when_it_is_on_disk() -> None:
    root = make_root()
    keep(root, root.receive(LEADER, summary(1), SECOND), SECOND)
    effects = root.receive(LEADER, death(), 2 * SECOND)
    assert kinds(effects) == [Kind.NODE_DEAD]
    assert not any(isinstance(effect, Send) for effect in effects)
    acknowledged = [effect for effect in keep(root, effects, 2 * SECOND) if isinstance(effect, Send)]
    assert [effect.peer for effect in acknowledged] == [LEADER]


def test_a_transition_of_a_leader_that_may_not_speak_yet_is_left_for_later_and_not_lost() -> None:
    root = make_root()
    early = root.receive(LEADER, death(epoch=1), SECOND)
    assert early == ()
    # The leader's next life knows of the death, but has not judged the node itself.
    row = NodeRow(node="node1", liveness=Liveness.DEAD, cause=Cause.SILENCE, incarnation=7, sequence=1)
    root.receive(LEADER, RackSummary(rack=RACK, epoch=2, number=1, newest=0, nodes=(row,)), 2 * SECOND)
    assert kinds(root.receive(LEADER, death(epoch=1), 3 * SECOND)) == [Kind.NODE_DEAD]


def test_that_a_leader_folded_verdicts_away_is_said_once_and_shown() -> None:
    root = make_root()
    keep(root, root.receive(LEADER, summary(1), SECOND), SECOND)
    folded = msgspec.structs.replace(death(), dropped=7)
    (note,) = [effect for effect in root.receive(LEADER, folded, SECOND) if isinstance(effect, Note)]
    assert (note.what, note.fields) == ("verdicts-folded", {"leader": LEADER, "verdicts": 7})
    assert not [effect for effect in root.receive(LEADER, folded, SECOND) if isinstance(effect, Note)]
    assert rack_view(root, RACK, SECOND).leaders[0].folded == 7
