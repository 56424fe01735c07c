"""OwnLag: the observer's account of its own lateness."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.observer import LAG_MIN_NS, LAGS_MAX, OwnLag
from hbagent.core.units import MILLISECOND
from tests.build import T


def test_ordinary_lateness_counts_for_nothing() -> None:
    lag = OwnLag()
    assert lag.tick(T(1), T(1) + LAG_MIN_NS - 1) == 0
    assert lag.since(0) == 0


def test_whoever_was_heard_before_a_lag_began_gets_its_whole_length() -> None:
    lag = OwnLag()
    assert lag.tick(T(1), T(3)) == T(2)
    assert lag.since(T(1)) == T(2)
    assert lag.since(T(3)) == 0, "heard after the lag: no excuse"


def test_whoever_was_heard_in_the_middle_of_a_lag_gets_its_rest() -> None:
    lag = OwnLag()
    lag.tick(T(1), T(3))
    assert lag.since(T(2.5)) == T(0.5)


def test_lags_add_up() -> None:
    lag = OwnLag()
    lag.tick(T(1), T(3))
    lag.tick(T(4), T(5))
    assert (lag.since(0), lag.since(T(3)), lag.since(T(5))) == (T(3), T(1), 0)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=3 * LAGS_MAX), st.integers(0, 100))
def test_no_lag_is_ever_forgotten_for_who_was_last_heard_before_it(lags_ms: list[int], since_percent: int) -> None:
    lag = OwnLag()
    now, all_of_it = 0, []
    for length in lags_ms:
        planned = now + 20 * MILLISECOND
        now = planned + length * MILLISECOND
        lag.tick(planned, now)
        if length * MILLISECOND >= LAG_MIN_NS:
            all_of_it.append((now, length * MILLISECOND))
    instant = now * since_percent // 100
    truth = sum(min(length, ended - instant) for ended, length in all_of_it if ended > instant)
    summed_up = len(all_of_it) > LAGS_MAX and instant < all_of_it[-LAGS_MAX][0]
    assert lag.since(instant) == truth or (summed_up and lag.since(instant) >= truth)
    assert lag.since(0) == sum(length for _, length in all_of_it)


def test_a_loop_that_always_lags_takes_no_memory_and_loses_no_lag() -> None:
    lag = OwnLag()
    for number in range(1, 5 * LAGS_MAX):
        lag.tick(T(number) - LAG_MIN_NS, T(number))
        assert len(lag._lags) <= LAGS_MAX
    assert lag.since(0) == (5 * LAGS_MAX - 1) * LAG_MIN_NS


def test_a_hold_is_never_shortened() -> None:
    lag = OwnLag()
    lag.hold(T(5))
    lag.hold(T(3))
    assert (lag.hold_until, lag.stalls) == (T(5), 2)


def test_the_largest_lag_is_shown_for_half_a_minute_to_a_minute() -> None:
    lag = OwnLag()
    lag.tick(T(0), T(0))
    lag.tick(T(1), T(2))
    assert lag.lag_max_ns == T(1)
    lag.tick(T(31), T(31))
    assert lag.lag_max_ns == T(1)
    lag.tick(T(62), T(62))
    assert lag.lag_max_ns == 0


def test_a_lag_within_a_hold_does_not_eat_up_the_hearing_that_the_hold_is_for() -> None:
    lag = OwnLag()
    lag.hold(T(5))
    lag.tick(T(4), T(4.4))
    assert lag.hold_until == T(5.4)
    lag.tick(T(6), T(7))
    assert lag.hold_until == T(5.4)
