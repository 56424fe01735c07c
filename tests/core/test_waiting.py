from __future__ import annotations

from typing import Any

from hbagent.core.states import Reason
from hbagent.core.waiting import Waiting, WaitingRoom
from tests.build import RACK, run


def waiting(number: int, until: int, reason: Reason = Reason.HOLD, **fields: Any) -> Waiting:
    one = Waiting(run(number, reason=reason, **{"rack": RACK, **fields}), 0)
    one.until = until
    return one


def ids(found: list[Waiting]) -> list[int]:
    return [one.run.queued for one in found]


def test_whoever_is_due_is_called_once_in_the_order_of_time() -> None:
    room = WaitingRoom()
    for number, until in ((1, 30), (2, 10), (3, 20)):
        room.seat(waiting(number, until))
    assert room.deadline() == 10
    assert ids(room.due(20)) == [2, 3]
    assert ids(room.due(20)) == []
    assert (len(room), room.deadline()) == (1, 30)


def test_who_was_taken_out_or_seated_anew_is_not_called_for_the_old_time() -> None:
    room = WaitingRoom()
    gone, moved = waiting(1, 10), waiting(2, 10)
    room.seat(gone)
    room.seat(moved)
    assert room.take(gone.run.run_id) is gone
    assert room.take(gone.run.run_id) is None
    moved.until = 50
    room.seat(moved)
    assert room.due(40) == []
    assert ids(room.due(50)) == [2]


def test_companions_have_the_receiver_and_rack_of_one_that_is_called() -> None:
    room = WaitingRoom()
    room.seat(waiting(1, 15))
    room.seat(waiting(2, 15, rack="dc1/rack2"))
    room.seat(waiting(3, 15, hook="other"))
    room.seat(waiting(4, 99))
    room.seat(waiting(5, 15, Reason.BRAKE))
    assert ids(room.companions([waiting(9, 10)], 20)) == [1]
    assert len(room) == 5, "they stay seated"


def test_a_summary_is_due_with_the_first_that_waits_for_it() -> None:
    room = WaitingRoom()
    assert room.summary_due(run(1), Reason.BRAKE, 100) == 100
    room.seat(waiting(1, 40, Reason.BRAKE))
    assert room.summary_due(run(2), Reason.BRAKE, 100) == 40
    assert room.summary_due(run(2, end=True), Reason.BRAKE, 100) == 100
    assert room.summary_due(run(2, hook="other"), Reason.BRAKE, 100) == 100


def test_ends_that_wait_for_nobody_any_more_are_due_at_once() -> None:
    room = WaitingRoom()
    room.seat(waiting(1, 90, Reason.GROUPED, end=True))
    room.seat(waiting(2, 90, Reason.GROUPED))
    room.hasten("page", Reason.GROUPED, 5)
    assert ids(room.due(5)) == [1]


def test_the_doubts_of_a_rack_are_known_until_they_end() -> None:
    room = WaitingRoom()
    room.seat(waiting(1, 30, Reason.DOUBT))
    assert room.doubted_until("page", RACK, 29) == 30
    assert room.doubted_until("page", "dc1/rack2", 29) is None
    assert room.doubted_until("page", RACK, 30) is None


def test_an_end_that_waits_can_be_taken_out_by_whom_it_is_about() -> None:
    room = WaitingRoom()
    end = waiting(1, 90, Reason.GROUPED, end=True, subject="n1")
    room.seat(end)
    assert room.take_end("other", "n1", None) is None
    assert room.take_end("page", "n1", None) is end
    assert room.take_end("page", "n1", None) is None
    room.seat(end)
    assert room.due(90) == [end]
    assert room.take_end("page", "n1", None) is None
