from __future__ import annotations

from hbagent.core.leaderrecord import LeaderRecord, Standing
from hbagent.core.lease import Lease
from hbagent.core.messages import STEPS_MAX, Step
from hbagent.core.records import MARKS_MAX, Mark
from hbagent.core.states import Cause, Outcome
from tests.build import EPOCH, LEADER, RACK, T


def make(*marks: Mark) -> LeaderRecord:
    leader = LeaderRecord(LEADER, (RACK,), Lease(LEADER, T(5), T(10)))
    for mark in marks:
        leader.restore(mark)
    return leader


def test_what_is_taken_in_is_not_yet_on_disk() -> None:
    leader = make()
    mark = leader.take(700, 5)
    assert mark == Mark(leader=LEADER, epoch=700, number=5, life=0)
    assert (leader.taken(700), leader.kept(700)) == (5, 0)
    leader.keep(mark)
    assert (leader.taken(700), leader.kept(700)) == (5, 5)


def test_each_life_of_a_leader_has_a_mark_of_its_own() -> None:
    leader = make()
    leader.take(700, 5)
    leader.take(31, 1)
    leader.take(700, 6)
    assert (leader.taken(700), leader.taken(31), leader.taken(8)) == (6, 1, 0)


def test_after_a_restart_of_the_root_every_life_goes_on_where_it_was() -> None:
    leader = make(Mark(leader=LEADER, epoch=700, number=5, life=3), Mark(leader=LEADER, epoch=31, number=2, life=4))
    assert (leader.taken(700), leader.kept(700), leader.kept(31)) == (5, 5, 2)
    assert leader.take(31, 3).life == 4
    assert leader.take(8, 1).life == 5, "and the next life takes the place of none of them"


def test_only_the_newest_lives_are_remembered_and_each_has_a_slot() -> None:
    leader = make()
    marks = [leader.take(1000 - epoch, 1) for epoch in range(MARKS_MAX + 1)]
    assert leader.taken(1000) == 0
    assert [leader.taken(mark.epoch) for mark in marks[1:]] == [1] * MARKS_MAX
    assert len({mark.slot for mark in marks[1:]}) == MARKS_MAX
    assert marks[MARKS_MAX].slot == marks[0].slot, "the newest is kept in the place of the oldest"
    leader.keep(marks[0])
    assert leader.kept(1000) == 0, "a life that is forgotten stays so"


# ---- is it there? ------------------------------------------------------------------------------------------


def silent() -> LeaderRecord:
    """Heard at 1 s, asked at 4 s."""
    leader = make()
    leader.lease.renew(EPOCH, T(1))
    leader.heard(T(3.5))
    leader.ask(7, T(4))
    return leader


def test_a_leader_whose_kernel_answers_and_who_does_not_is_stalled() -> None:
    leader = silent()
    found = [leader.stalled]
    leader.witness(Outcome.ACKED, T(4.01))
    found.append(leader.stalled)
    # That is the answer to an older question.
    leader.answer(6, T(4.02))
    found.append(leader.stalled)
    leader.answer(7, T(4.03))
    found.append(leader.stalled)
    assert found == [False, True, True, False]


def test_a_leader_whose_connection_closes_is_not_stalled() -> None:
    leader = silent()
    leader.witness(Outcome.ACKED, T(4.01))
    leader.witness(Outcome.CLOSED, T(4.5))
    assert not leader.stalled


def test_each_question_counts_for_itself() -> None:
    leader = silent()
    leader.witness(Outcome.ACKED, T(4.01))
    leader.answer(7, T(4.02))
    leader.ask(8, T(5))
    assert leader.stalled, "until the next summary, what its kernel said last"


def test_a_summary_ends_all_questions() -> None:
    leader = silent()
    leader.witness(Outcome.ACKED, T(4.01))
    leader.standing, leader.cause = Standing.LOST, Cause.OBSERVER_STALLED
    leader.heard(T(9))
    assert (leader.standing, leader.cause, leader.ask_at) == (Standing.HELD, Cause.LEADER_LOST, T(9))
    assert (leader.stalled, leader.steps) == (False, [])


def test_the_story_of_a_silence_is_told_from_the_newest_summary_on_and_has_an_end() -> None:
    leader = silent()
    leader.witness(Outcome.ACKED, T(4.01))
    leader.witness(Outcome.ACKED, T(4.2))
    assert leader.steps == [
        Step(T(3), "asked whether it is there"),
        Step(T(3.01), "the kernel of its host acknowledges"),
    ]
    for number in range(100):
        leader.ask(number, T(5))
    assert len(leader.steps) == STEPS_MAX


def test_of_a_leader_that_was_never_heard_there_is_no_story() -> None:
    leader = make()
    leader.witness(Outcome.UNSENT, T(4))
    assert leader.steps == []
