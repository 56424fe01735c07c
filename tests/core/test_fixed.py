"""Fixed: one interval and a margin after the arrival."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.fixed import Fixed
from hbagent.core.units import MILLISECOND, SECOND


def test_the_deadline_is_an_interval_and_a_margin_after_the_arrival() -> None:
    assert Fixed(150 * MILLISECOND).beat(5, 900 * MILLISECOND, SECOND, 7 * SECOND) == 8150 * MILLISECOND


@given(st.integers(), st.integers(0, 2**63), st.integers(0, 10 * SECOND))
def test_the_senders_clock_and_schedule_change_nothing(sent: int, due_in: int, now: int) -> None:
    assert Fixed(MILLISECOND).beat(sent, due_in, SECOND, now) == now + SECOND + MILLISECOND


def test_nothing_is_learned() -> None:
    fixed = Fixed(MILLISECOND)
    before = fixed.beat(0, SECOND, SECOND, 0)
    fixed.beat(SECOND, SECOND, SECOND, 60 * SECOND)
    fixed.reset()
    assert fixed.beat(0, SECOND, SECOND, 0) == before
    assert fixed.allowed_ns == MILLISECOND
    assert fixed.remember() == []


def test_doubt_begins_8_ms_after_the_beat_was_due_and_never_after_suspicion() -> None:
    assert Fixed(150 * MILLISECOND).lead_ns == 142 * MILLISECOND
    assert Fixed(5 * MILLISECOND).lead_ns == 0


def test_an_answer_puts_the_deadline_off_by_whole_intervals() -> None:
    fixed = Fixed(150 * MILLISECOND)
    deadline = fixed.beat(0, SECOND, SECOND, 0)
    assert fixed.answered(SECOND, 1010 * MILLISECOND) == deadline + SECOND
    assert fixed.answered(SECOND, 4500 * MILLISECOND) == deadline + 4 * SECOND
    assert fixed.beat(SECOND, SECOND, SECOND, 5 * SECOND) == 5 * SECOND + deadline
