"""Orders for drills on their way."""

from __future__ import annotations

from hbagent.core.drills import DRILLS_MAX, LEADER_TIME_NS, ROOT_TIME_NS, Drills, unanswered
from hbagent.core.messages import DrillBegun
from hbagent.core.units import SECOND
from tests.build import LEADER, NODE, NODE2


def answer(number: int, node: str = NODE) -> DrillBegun:
    return DrillBegun(number=number, node=node)


def test_an_answer_counts_once_and_only_from_whom_it_was_asked_of() -> None:
    drills = Drills(7, SECOND)
    number = drills.begin(NODE, LEADER, "console", 3, 0)
    assert number is not None
    assert drills.take("other", answer(number)) is None
    assert drills.take(LEADER, answer(number, NODE2)) is None
    assert drills.take(LEADER, answer(number + 1)) is None
    errand = drills.take(LEADER, answer(number))
    assert errand is not None and (errand.asker, errand.query) == ("console", 3)
    assert drills.take(LEADER, answer(number)) is None


def test_orders_are_few_and_end_when_nobody_answers() -> None:
    drills = Drills(7, SECOND)
    for _ in range(DRILLS_MAX):
        assert drills.begin(NODE, LEADER, "console", 1, 0) is not None
    assert drills.begin(NODE, LEADER, "console", 1, 0) is None
    assert drills.deadline() == SECOND
    assert drills.expired(SECOND - 1) == []
    assert len(drills.expired(SECOND)) == DRILLS_MAX and drills.deadline() is None


def test_numbers_of_two_lives_do_not_meet() -> None:
    first, second = Drills(1, SECOND), Drills(2, SECOND)
    ones = {first.begin(NODE, LEADER, "", n, 0) for n in range(DRILLS_MAX)}
    assert ones.isdisjoint({second.begin(NODE, LEADER, "", n, 0) for n in range(DRILLS_MAX)})


def test_a_leader_gives_up_before_the_root_does_and_both_before_a_console() -> None:
    assert LEADER_TIME_NS < ROOT_TIME_NS < 2 * SECOND
    drills = Drills(1, LEADER_TIME_NS)
    drills.begin(NODE, NODE, LEADER, 1, 0)
    (errand,) = drills.expired(LEADER_TIME_NS)
    assert unanswered(errand) == f"{NODE} did not answer within 1.0s"
