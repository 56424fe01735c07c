from __future__ import annotations

from hbagent.core.chronicle import Chronicle
from hbagent.core.states import Cause, Kind, Liveness
from tests.build import NODE, RACK, WALL_NS


def test_an_event_has_a_number_and_an_id_of_this_life() -> None:
    event = Chronicle(0xABC).make(Kind.NODE_DEAD, WALL_NS, node=NODE, rack=RACK, cause=Cause.SILENCE)
    assert (event.event_id, event.sequence, event.at_wall_ns) == ("00000abc-1", 1, WALL_NS)
    assert (event.kind, event.node, event.cause) == (Kind.NODE_DEAD, NODE, Cause.SILENCE)


def test_numbers_go_on_after_a_restart_and_ids_never_repeat() -> None:
    first, second = Chronicle(1), Chronicle(2)
    made = [first.make(Kind.NODE_DEAD, 0)]
    second.newest = made[0].sequence
    made += [second.make(Kind.NODE_DEAD, 0), Chronicle(3).make(Kind.NODE_DEAD, 0)]
    assert [event.sequence for event in made] == [1, 2, 1]
    assert len({event.event_id for event in made}) == 3


def test_a_sign_of_life_takes_no_number_of_the_history() -> None:
    chronicle = Chronicle(1)
    signs = [chronicle.watchdog(0), chronicle.watchdog(0)]
    assert chronicle.make(Kind.NODE_DEAD, 0).sequence == 1
    assert len({event.event_id for event in signs}) == 2


def test_a_host_is_only_said_to_be_up_when_its_agent_is() -> None:
    chronicle = Chronicle(1)
    assert chronicle.make(Kind.NODE_JOINED, 0, liveness_to=Liveness.ALIVE).host == "up"
    assert chronicle.make(Kind.NODE_DEAD, 0, liveness_to=Liveness.DEAD).host == "unknown"
