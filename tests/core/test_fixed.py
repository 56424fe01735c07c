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
