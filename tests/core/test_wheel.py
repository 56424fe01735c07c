"""The wheel: nobody is handed out early, nobody is forgotten, and nobody waits longer than one slot."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.units import MILLISECOND
from hbagent.core.wheel import SLOT_SHIFT, Wheel

SLOT = 1 << SLOT_SHIFT
STEPS = st.lists(st.tuples(st.integers(0, 40 * SLOT), st.integers(0, 3 * SLOT)), max_size=60)


@given(STEPS)
def test_everybody_is_handed_out_as_a_sorted_list_would_do_it(steps: list[tuple[int, int]]) -> None:
    wheel: Wheel[int] = Wheel()
    waiting: list[tuple[int, int, int]] = []
    now = 0
    for number, (at, passed) in enumerate(steps):
        wheel.add(number, at)
        waiting.append((at // SLOT + 1, number, at))
        waiting.sort()
        assert wheel.deadline() == waiting[0][0] * SLOT
        now += passed
        due = [entry for entry in waiting if entry[0] <= now // SLOT]
        waiting = waiting[len(due) :]
        assert wheel.due(now) == [number for _, number, _ in due]
        assert all(at < now for _, _, at in due), "nobody early"
        assert all(at + SLOT > now for _, _, at in waiting), "nobody later than a slot"
        assert len(wheel) == len(waiting)


def test_a_core_that_wakes_at_the_deadline_finds_somebody() -> None:
    wheel: Wheel[str] = Wheel()
    wheel.add("node1", 7 * MILLISECOND)
    deadline = wheel.deadline()
    assert deadline is not None and deadline >= 7 * MILLISECOND
    assert wheel.due(deadline - 1) == []
    assert wheel.due(deadline) == ["node1"]
    assert (wheel.deadline(), len(wheel)) == (None, 0)


def test_one_instant_is_one_slot_however_many_wait_for_it() -> None:
    wheel: Wheel[int] = Wheel()
    for number in range(1000):
        wheel.add(number, 5 * SLOT)
    assert wheel.due(6 * SLOT) == list(range(1000)), "in the order of being added"
    assert wheel.due(7 * SLOT) == []


def test_an_instant_that_has_passed_is_due_in_the_next_slot() -> None:
    wheel: Wheel[str] = Wheel()
    wheel.add("node1", 0)
    assert wheel.due(100 * SLOT) == ["node1"]
