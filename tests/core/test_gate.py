"""Gate: peers that are late together, the hold and its end, and the brake on mass deaths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.gate import LOOK_NS, MASS_MIN, Gate
from hbagent.core.units import MILLISECOND, SECOND
from tests.build import T

HOLD = 5 * SECOND
GRACE = 100 * MILLISECOND


def gate(watched: int = 12) -> Gate:
    made = Gate(0.25, 3, HOLD)
    made.watched = watched
    return made


def late(made: Gate, count: int, now: int) -> None:
    for number in range(count):
        made.late(f"node{number}", now)


def heard(made: Gate, count: int, now: int) -> None:
    for number in range(count):
        made.heard(f"node{number}", now)


def test_a_quarter_of_the_rack_late_at_once_holds_judgement() -> None:
    made = gate()
    late(made, 2, T(1))
    assert made.hold_until(T(1), GRACE) == 0
    late(made, 3, T(1))
    assert made.hold_until(T(1), GRACE) == T(1) + GRACE
    assert (made.late_count, made.closed) == (3, True)


@pytest.mark.parametrize(("watched", "enough"), [(1, 3), (4, 3), (12, 3), (13, 4), (32, 8), (100, 25)])
def test_both_the_share_and_the_number_are_needed(watched: int, enough: int) -> None:
    made = gate(watched)
    late(made, enough - 1, T(1))
    assert not made.closed
    late(made, enough, T(1))
    assert made.closed


def test_a_rack_in_which_nobody_is_late_is_open_whatever_is_asked_for() -> None:
    made = Gate(0.25, 0, HOLD)
    assert made.hold_until(T(1), GRACE) == 0


def test_a_grace_longer_than_a_hold_ends_with_the_hold() -> None:
    made = gate()
    late(made, 3, T(1))
    made.heard("node0", T(2))
    assert made.hold_until(T(2), T(60)) == T(1) + HOLD


def test_a_member_late_twice_is_one_member() -> None:
    made = gate()
    for _ in range(5):
        made.late("node1", T(1))
    assert (made.late_count, made.closed) == (1, False)


def test_who_is_still_late_when_the_peers_are_heard_is_judged_after_the_grace() -> None:
    made = gate()
    late(made, 6, T(1))
    heard(made, 5, T(2))
    assert made.hold_until(T(2), GRACE) == T(2) + GRACE
    assert made.hold_until(T(2) + GRACE, GRACE) == 0


def test_a_full_hold_ends_and_is_not_begun_again_by_the_same_crowd() -> None:
    made = gate()
    late(made, 6, T(1))
    assert made.hold_until(T(6) - 1, GRACE) == T(6)
    assert made.hold_until(T(6), GRACE) == 0
    late(made, 7, T(7))
    assert made.hold_until(T(7), GRACE) == 0


def test_a_new_crowd_after_the_old_one_thinned_out_is_held_again() -> None:
    made = gate()
    late(made, 6, T(1))
    assert made.hold_until(T(6), GRACE) == 0
    heard(made, 4, T(7))
    late(made, 6, T(8))
    assert made.hold_until(T(8), GRACE) == T(8) + GRACE


def test_a_member_that_leaves_the_watch_is_late_no_longer() -> None:
    made = gate()
    late(made, 3, T(1))
    made.watched -= 1
    made.heard("node0", T(2))
    assert (made.late_count, made.closed) == (2, False)


def test_an_opening_too_short_to_judge_in_prolongs_nothing() -> None:
    made = gate()
    now = T(1)
    late(made, 3, now)
    assert made.hold_until(now, GRACE)
    while now < T(6):
        made.heard("node0", now)
        now += GRACE // 2
        made.late("node0", now)
    assert made.hold_until(T(6), GRACE) == 0


def test_an_opening_long_enough_to_judge_in_starts_a_new_hold() -> None:
    made = gate()
    late(made, 3, T(1))
    assert made.hold_until(T(1), GRACE)
    made.heard("node0", T(5))
    made.late("node0", T(5.5))
    assert made.hold_until(T(10), GRACE) == T(10) + GRACE
    assert made.hold_until(T(10.5), GRACE) == 0


@given(
    st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.integers(0, 700)), max_size=200),
    st.integers(0, 1500),
    st.integers(1, 12),
)
def test_whoever_asks_when_told_is_let_through_within_one_hold(
    turns: list[tuple[int, bool, int]], grace_ms: int, watched: int
) -> None:
    """`dead` is silent for ever and its owner asks at the instant it was told; others come and go as they like."""
    made = gate(watched)
    grace = grace_ms * MILLISECOND
    now = T(1)
    made.late("dead", now)
    ask = made.hold_until(now, grace)
    for number, is_late, pause_ms in turns:
        if not ask:
            return
        now += pause_ms * MILLISECOND
        while ask and ask <= now:
            after = made.hold_until(ask, grace)
            assert after == 0 or after > ask
            ask = after
        (made.late if is_late else made.heard)(f"node{number}", now)
        assert not ask or ask <= T(1) + HOLD
    while ask:
        ask = made.hold_until(ask, grace)
        assert ask <= T(1) + HOLD


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=60))
def test_it_counts_as_a_set_would(turns: list[tuple[str, bool]]) -> None:
    made, naive = gate(8), set[str]()
    for number, (name, is_late) in enumerate(turns):
        if is_late:
            naive.add(name)
            made.late(name, T(number * 10))
        else:
            naive.discard(name)
            made.heard(name, T(number * 10))
        assert made.late_count == len(naive)


def test_a_look_is_never_asked_for_at_once() -> None:
    made = gate()
    late(made, 3, T(1))
    assert made.hold_until(T(1), 0) == T(1) + LOOK_NS


def test_a_mass_of_deaths_is_held_once_and_then_goes_on() -> None:
    made = gate(20)
    assert made.brake(7, T(1), HOLD) == T(6)
    assert made.brake(1, T(2), HOLD) == T(6), "one of the mass, looked at apart from the others"
    assert made.brake(7, T(6), HOLD) == 0


def test_few_deaths_pass_the_brake() -> None:
    assert gate(4).brake(MASS_MIN, T(1), HOLD) == 0
    assert gate(20).brake(6, T(1), HOLD) == 0
    assert gate(4).brake(MASS_MIN + 1, T(1), HOLD) == T(6)


def test_a_later_mass_is_held_again() -> None:
    made = gate(20)
    made.brake(7, T(1), HOLD)
    assert made.brake(7, T(10.9), HOLD) == 0
    assert made.brake(7, T(11), HOLD) == T(16)
