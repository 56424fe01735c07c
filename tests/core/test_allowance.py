"""So many at once, and so many over time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.allowance import Allowance
from hbagent.core.units import SECOND
from tests.build import T


def test_a_burst_is_allowed_and_then_one_at_a_time() -> None:
    allowance = Allowance(SECOND, 3)
    assert [allowance.take(T(100)) for _ in range(5)] == [True, True, True, False, False]
    assert not allowance.take(T(100.9))
    assert [allowance.take(T(101)) for _ in range(2)] == [True, False]


def test_what_is_not_taken_is_saved_for_one_burst_and_no_more() -> None:
    allowance = Allowance(SECOND, 3)
    assert allowance.take(0)
    assert sum(allowance.take(T(1000)) for _ in range(10)) == 3


@given(st.lists(st.integers(0, SECOND), max_size=200))
def test_whatever_the_times_no_more_is_taken_than_the_rate_and_one_burst(pauses: list[int]) -> None:
    allowance = Allowance(SECOND // 10, 5)
    now = taken = 0
    for pause in pauses:
        now += pause
        taken += allowance.take(now)
        assert taken <= 5 + now * 10 // SECOND
