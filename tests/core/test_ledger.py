"""The ledger: one batch on its way, nothing promised before it is on disk, nothing begun twice."""

from __future__ import annotations

import msgspec

from hbagent.core.effects import Persist
from hbagent.core.ledger import PATIENCE_NS, RETRY_NS, Ledger
from hbagent.core.records import Batch, Conviction, Mark, NodeState, RunState, Tally
from hbagent.core.states import Cause, Liveness
from tests.build import EPOCH, LEADER, NODE, RACK, T, event, run


def written(ledger: Ledger) -> Persist:
    order = ledger.write(0)
    assert order is not None
    return order


def state(liveness: Liveness) -> NodeState:
    return NodeState(node=NODE, rack=RACK, liveness=liveness)


def mark(number: int) -> Mark:
    return Mark(leader=LEADER, epoch=EPOCH, number=number)


def test_nothing_is_written_when_there_is_nothing() -> None:
    assert Ledger().write(0) is None


def test_while_a_batch_is_on_its_way_the_next_fills_up() -> None:
    ledger = Ledger()
    ledger.event(event(1))
    first = written(ledger)
    ledger.event(event(2))
    ledger.event(event(3))
    assert ledger.write(0) is None
    assert ledger.kept(first.token) == first.batch
    assert written(ledger).batch == Batch(events=(event(2), event(3)))


def test_the_newest_of_everything_is_written() -> None:
    ledger = Ledger()
    ledger.node(state(Liveness.SUSPECT))
    ledger.node(state(Liveness.DEAD))
    ledger.mark(mark(1))
    ledger.mark(mark(2))
    ledger.run(run(1))
    ledger.run(run(1, state=RunState.DONE, attempt=1))
    assert written(ledger).batch == Batch(
        nodes=(state(Liveness.DEAD),), marks=(mark(2),), runs=(run(1, state=RunState.DONE, attempt=1),)
    )


def test_a_node_that_is_forgotten_and_comes_back_is_kept() -> None:
    ledger = Ledger()
    ledger.node(state(Liveness.DEAD))
    ledger.forget(NODE)
    assert written(ledger).batch == Batch(forgotten=(NODE,))
    ledger = Ledger()
    ledger.forget(NODE)
    ledger.node(state(Liveness.ALIVE))
    assert written(ledger).batch == Batch(nodes=(state(Liveness.ALIVE),))


def test_a_batch_that_failed_is_written_again_as_it_was() -> None:
    ledger = Ledger()
    ledger.event(event(1))
    first = written(ledger)
    assert ledger.failed(first.token, "no space", T(1))
    assert ledger.degraded == "store: no space"
    ledger.event(event(2))
    assert ledger.write(0) is None
    assert ledger.deadline() == T(1) + RETRY_NS
    assert ledger.retry(T(1) + RETRY_NS - 1) is None
    again = ledger.retry(T(1) + RETRY_NS)
    assert again is not None and again.batch == first.batch
    assert (ledger.retry(T(100)), ledger.deadline()) == (None, None), "it is on its way"
    assert ledger.kept(again.token) == first.batch
    assert ledger.degraded == ""
    assert written(ledger).batch == Batch(events=(event(2),))


def test_news_of_another_batch_changes_nothing() -> None:
    ledger = Ledger()
    ledger.event(event(1))
    first = written(ledger)
    assert ledger.kept(first.token + 1) is None
    assert not ledger.failed(first.token + 1, "no space", 0)
    ledger.failed(first.token, "no space", 0)
    again = ledger.retry(RETRY_NS)
    assert again is not None
    assert ledger.kept(first.token) is None, "what was given up as failed"
    assert ledger.degraded
    assert ledger.kept(again.token) == first.batch
    assert ledger.kept(again.token) is None
    assert not ledger.failed(again.token, "no space", 0)


def test_a_run_is_begun_when_it_is_on_disk() -> None:
    ledger = Ledger()
    ledger.run(run(1))
    ledger.run(run(2, attempt=1))
    ledger.run(run(3, state=RunState.DEAD))
    batch = ledger.kept(written(ledger).token)
    assert batch is not None
    assert ledger.due(batch) == [run(1)], "not one that was tried before, nor one that is over"


def test_with_a_failing_disk_runs_are_begun_from_memory_and_only_once() -> None:
    ledger = Ledger()
    ledger.run(run(1))
    order = written(ledger)
    ledger.run(run(2))
    ledger.failed(order.token, "no space", 0)
    assert ledger.due_from_memory() == [run(1), run(2)], "also what is not yet on its way"
    ledger.run(run(3))
    assert ledger.due_from_memory() == [run(3)]
    again = ledger.retry(RETRY_NS)
    assert again is not None
    batch = ledger.kept(again.token)
    assert batch is not None and ledger.due(batch) == []
    batch = ledger.kept(written(ledger).token)
    assert batch is not None and ledger.due(batch) == []


def test_with_a_sound_disk_no_run_is_begun_from_memory() -> None:
    ledger = Ledger()
    ledger.run(run(1))
    written(ledger)
    ledger.run(run(2))
    assert ledger.due_from_memory() == []


def test_with_a_disk_that_fails_for_long_the_oldest_lines_are_lost_and_counted() -> None:
    ledger = Ledger(events_max=3)
    ledger.event(event(1))
    order = written(ledger)
    ledger.failed(order.token, "no space", 0)
    for number in range(2, 7):
        ledger.event(event(number))
    assert ledger.degraded == "store: no space; 2 events lost"
    again = ledger.retry(RETRY_NS)
    assert again is not None and ledger.kept(again.token) is not None
    assert (ledger.lost, ledger.degraded) == (0, "")
    assert [e.sequence for e in written(ledger).batch.events] == [4, 5, 6]


def test_with_a_disk_that_fails_for_long_runs_that_are_over_are_lost_first() -> None:
    ledger = Ledger(runs_max=2)
    ledger.event(event(1))
    ledger.failed(written(ledger).token, "no space", 0)
    ledger.run(run(1))
    ledger.run(run(2, state=RunState.DONE))
    ledger.run(run(3))
    again = ledger.retry(RETRY_NS)
    assert again is not None and ledger.kept(again.token) is not None
    assert written(ledger).batch.runs == (run(1), run(3))


def test_a_disk_that_does_not_answer_in_time_holds_up_no_run() -> None:
    ledger = Ledger()
    ledger.run(run(1))
    order = written(ledger)
    assert ledger.deadline() == PATIENCE_NS
    assert not ledger.stuck(PATIENCE_NS - 1)
    assert ledger.stuck(PATIENCE_NS)
    assert not ledger.stuck(PATIENCE_NS + 1), "told once"
    assert ledger.degraded == "store: no answer for 3.0s"
    assert ledger.deadline() is None
    assert ledger.due_from_memory() == [run(1)]
    batch = ledger.kept(order.token)
    assert batch is not None and ledger.due(batch) == []
    assert ledger.degraded == ""
    assert not ledger.stuck(T(100)), "nothing is on its way"


def test_a_run_that_is_owed_since_its_batch_left_begins_when_the_disk_has_that() -> None:
    ledger = Ledger()
    held = msgspec.structs.replace(run(1), state=RunState.HELD)
    ledger.run(held)
    order = written(ledger)
    ledger.run(run(1))
    batch = ledger.kept(order.token)
    assert batch is not None and ledger.due(batch) == [], "it is on disk as one that waits"
    order = written(ledger)
    batch = ledger.kept(order.token)
    assert batch is not None and ledger.due(batch) == [run(1)]


def test_a_disk_that_is_behind_by_more_than_can_wait_is_in_trouble_before_it_fails() -> None:
    ledger = Ledger(events_max=1)
    ledger.event(event(1))
    assert ledger.degraded == ""
    ledger.event(event(2))
    assert ledger.degraded == "store: too slow; 1 events lost"
    ledger = Ledger(runs_max=1)
    ledger.run(run(1))
    ledger.run(run(2))
    assert ledger.degraded == "store: too slow"
    assert ledger.due_from_memory() == [run(1), run(2)]


def conviction(number: int, reason: str = "") -> Conviction:
    return Conviction(event_id=f"e-{number}", node=NODE, cause=Cause.SILENCE, at_wall_ns=number, reason=reason)


def test_the_newest_of_each_verdict_and_of_the_tally_is_written() -> None:
    ledger = Ledger()
    ledger.conviction(conviction(1))
    ledger.conviction(conviction(1, reason="paused"))
    ledger.tally(Tally(life=1, watched_ns=5))
    ledger.tally(Tally(life=1, watched_ns=6))
    order = written(ledger)
    assert order.batch == Batch(convictions=(conviction(1, reason="paused"),), tally=Tally(life=1, watched_ns=6))
    ledger.kept(order.token)
    assert ledger.write(0) is None
    ledger.tally(Tally(life=1, watched_ns=7))
    assert written(ledger).batch == Batch(tally=Tally(life=1, watched_ns=7)), "a tally alone is written too"


def test_a_verdict_that_is_summed_up_before_it_was_written_is_not_written_at_all() -> None:
    ledger = Ledger()
    ledger.conviction(conviction(1))
    ledger.fold("e-1")
    assert ledger.write(0) is None
    ledger.conviction(conviction(2))
    order = written(ledger)
    ledger.conviction(conviction(2, reason="paused"))
    ledger.fold("e-2")
    ledger.kept(order.token)
    assert written(ledger).batch == Batch(folded=("e-2",)), "it was on its way, so it is deleted"
