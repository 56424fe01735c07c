from __future__ import annotations

from hbagent.core.chronicle import Chronicle
from hbagent.core.ledger import Ledger
from hbagent.core.records import Batch
from hbagent.core.states import Cause, Kind, Liveness
from tests.build import NODE, RACK, WALL_NS, hook


def batch(ledger: Ledger) -> Batch:
    order = ledger.write(0)
    assert order is not None
    made: Batch = order.batch
    return made


def test_an_event_and_the_runs_that_it_makes_are_written_together() -> None:
    ledger = Ledger()
    chronicle = Chronicle(ledger, (hook("page"), hook("log", Kind.NODE_SUSPECT)), 0xABC)
    event = chronicle.add(Kind.NODE_DEAD, WALL_NS, node=NODE, rack=RACK, cause=Cause.SILENCE)
    assert (event.event_id, event.sequence, event.at_wall_ns) == ("00000abc-1", 1, WALL_NS)
    written = batch(ledger)
    assert written.events == (event,)
    assert [(run.hook, run.event_id) for run in written.runs] == [("page", "00000abc-1")]


def test_numbers_go_on_after_a_restart_and_ids_never_repeat() -> None:
    ledger = Ledger()
    first = Chronicle(ledger, (), 1)
    second = Chronicle(ledger, (), 2)
    second.newest = first.add(Kind.WATCHDOG, 0).sequence
    again, lost = second.add(Kind.WATCHDOG, 0), Chronicle(ledger, (), 3).add(Kind.WATCHDOG, 0)
    assert (again.sequence, lost.sequence) == (2, 1)
    assert len({event.event_id for event in batch(ledger).events}) == 3


def test_a_host_is_only_said_to_be_up_when_its_agent_is() -> None:
    chronicle = Chronicle(Ledger(), (), 1)
    assert chronicle.add(Kind.NODE_JOINED, 0, liveness_to=Liveness.ALIVE).host == "up"
    assert chronicle.add(Kind.NODE_DEAD, 0, liveness_to=Liveness.DEAD).host == "unknown"
