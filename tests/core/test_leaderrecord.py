from __future__ import annotations

from hbagent.core.leaderrecord import LeaderRecord
from hbagent.core.lease import Lease
from hbagent.core.records import MARKS_MAX, Mark
from tests.build import LEADER, RACK, T


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
