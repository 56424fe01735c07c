"""Tail: the marks of the largest latenesses, and the margin that lets the accepted number of them pass."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.tail import EPOCH_MISTAKES, LATENESS_MAX_NS, MARKS_MAX, Tail
from hbagent.core.units import DAY, HOUR, MICROSECOND, MILLISECOND, SECOND

START = 150 * MILLISECOND
LATE = st.integers(MICROSECOND, 10 * SECOND)


def watched(rate: float = 240.0) -> Tail:
    tail = Tail(rate)
    tail.watch(0, 0)
    return tail


def test_nothing_known_is_the_start_value() -> None:
    assert Tail(1.0).margin_ns(HOUR, START) == START
    assert watched().margin_ns(0, START) == START


@given(st.lists(LATE, min_size=1, max_size=60))
def test_a_margin_lets_as_many_pass_as_were_accepted_in_that_time(latenesses: list[int]) -> None:
    """Ten an hour, so after `hours` hours 10 * hours of the latenesses may lie above."""
    tail = watched()
    for number, lateness in enumerate(latenesses):
        tail.add(lateness, (number + 1) * SECOND)
    for accepted in range(1, EPOCH_MISTAKES):
        margin = tail.margin_ns(accepted * HOUR // 10, START)
        # As many as accepted lie at or above it, when there are as many.
        assert sum(lateness >= margin for lateness in latenesses) >= min(accepted, len(latenesses))
        assert sum(lateness > margin for lateness in latenesses) <= accepted


def test_a_cluster_is_hit_exactly_and_not_stepped_over() -> None:
    tail = watched()
    rng = random.Random(1)
    latenesses = [100 * MILLISECOND + rng.randrange(300 * MICROSECOND) for _ in range(40)]
    for number, lateness in enumerate(latenesses):
        tail.add(lateness, (number + 1) * 90 * SECOND)
    assert tail.margin_ns(HOUR, START) == sorted(latenesses)[-10]


@given(st.lists(LATE, max_size=200))
def test_only_the_largest_are_kept_and_the_floor_is_the_smallest_of_them(latenesses: list[int]) -> None:
    tail = watched(1.0)
    for number, lateness in enumerate(latenesses):
        tail.add(lateness, number)
    kept = sorted(latenesses)[-MARKS_MAX:]
    assert tail.dump(0)[4:] == [mark // MICROSECOND for mark in kept]
    assert tail.floor_ns == (kept[0] if len(latenesses) > MARKS_MAX else 0)


def test_what_is_below_the_floor_would_change_nothing() -> None:
    told, spared = watched(), watched()
    rng = random.Random(7)
    for number in range(5000):
        lateness, now = round(rng.paretovariate(1.2) * MILLISECOND), number * 10 * SECOND
        told.add(lateness, now)
        if lateness > spared.floor_ns:
            spared.add(lateness, now)
        assert told.margin_ns(now, START) == spared.margin_ns(now, START)


def test_an_old_trouble_is_forgotten_after_two_epochs() -> None:
    tail = watched()
    epoch = EPOCH_MISTAKES * HOUR // 10
    for number in range(MARKS_MAX):
        tail.add(SECOND, number * SECOND)
    tail.add(SECOND, HOUR)
    assert tail.floor_ns == tail.margin_ns(HOUR, START) == SECOND
    now = 0
    for now in range(HOUR, 3 * epoch, HOUR // 60):
        tail.add(30 * MILLISECOND, now)
    assert tail.margin_ns(now, START) == 30 * MILLISECOND
    tail.margin_ns(now + epoch, START)
    assert tail.floor_ns == 0


def test_fewer_late_beats_than_mistakes_accepted_need_no_margin() -> None:
    tail = watched()
    tail.add(SECOND, HOUR)
    assert tail.margin_ns(HOUR + 1, START) == 0


def test_before_the_first_mistake_is_due_the_record_is_continued_as_it_runs() -> None:
    """A tail that halves for each doubling of the lateness reaches far beyond the largest that was seen."""
    tail = watched(1.0)
    for number in range(20):
        tail.add(400 * MILLISECOND // (number + 1), HOUR)
    # Four times as long as was watched: 1.6 s, trusted by half.
    assert tail.margin_ns(DAY // 4, START) == pytest.approx((START * 1600 * MILLISECOND) ** 0.5, rel=0.15)


def test_a_record_without_a_tail_is_hardly_continued() -> None:
    tail = watched(1.0)
    for number in range(20):
        tail.add(400 * MILLISECOND + number, HOUR)
    assert tail.margin_ns(DAY - HOUR, START) == pytest.approx(400 * MILLISECOND, rel=0.03)


def test_a_record_is_continued_in_proportion_to_the_time_at_most() -> None:
    tail = watched(1.0)
    for power in range(8):
        tail.add(4**power * MILLISECOND, HOUR)
    twice = 2 * 4**7 * MILLISECOND
    assert tail.margin_ns(DAY // 2, START) == pytest.approx(START * (twice / START) ** 0.5**0.5, rel=1e-3)


def test_an_outage_of_any_length_is_kept_as_a_day() -> None:
    tail = watched()
    tail.add(10**30, HOUR)
    assert tail.dump(HOUR)[4:] == [LATENESS_MAX_NS // MICROSECOND]


def test_a_bad_first_minute_hardly_moves_the_margin() -> None:
    tail = watched(1.0)
    for number in range(20):
        tail.add(2 * SECOND * (number + 1), 3 * number * SECOND)
    assert START < tail.margin_ns(60 * SECOND, START) < 2 * START


def test_a_margin_gets_bolder_than_the_start_value_only_when_the_first_mistake_is_due() -> None:
    tail = watched(1.0)
    tail.add(5 * MILLISECOND, SECOND)
    assert [tail.margin_ns(hours * HOUR, START) for hours in (1, 12, 23)] == [START] * 3
    assert tail.margin_ns(DAY, START) == 5 * MILLISECOND


def test_time_in_which_nobody_was_watched_does_not_count() -> None:
    one, other = watched(), watched()
    for tail, away in ((one, 0), (other, 50 * DAY)):
        tail.add(SECOND, HOUR)
        tail.add(40 * MILLISECOND, HOUR)
        tail.watch(HOUR + away, HOUR)
        assert tail.dump(HOUR + away)[1] == HOUR // MICROSECOND
        assert tail.margin_ns(HOUR + away + HOUR // 10, START) == one.margin_ns(HOUR + HOUR // 10, START)


@given(st.lists(st.integers(5 * MILLISECOND, 10 * SECOND), max_size=100), st.integers(0, 40))
def test_a_dump_loads_into_the_same_margin(latenesses: list[int], hours: int) -> None:
    tail = watched()
    for number, lateness in enumerate(latenesses):
        tail.add(lateness, number * HOUR // 20)
    now = (len(latenesses) * HOUR // 20) + hours * HOUR
    dumped = tail.dump(now)
    assert len(dumped) <= 4 + 2 * MARKS_MAX
    assert all(0 <= number < 2**63 for number in dumped)
    again = Tail(240.0)
    assert again.load(dumped, 7 * DAY)
    assert again.dump(7 * DAY) == dumped
    # Dumped in microseconds, so a hair off.
    assert again.margin_ns(7 * DAY, START) == pytest.approx(tail.margin_ns(now, START), rel=1e-3, abs=2 * MICROSECOND)


GOOD = [1, 1000, 2000, 1, 5, 6, 7]


@pytest.mark.parametrize(
    "bad",
    [
        [],
        GOOD[:3],
        [2, *GOOD[1:]],
        [*GOOD[:3], 4, 5, 6, 7],
        [*GOOD, -1],
        [1, 10**16, 0, 0],
        [1, 0, 0, 0, LATENESS_MAX_NS],
        [1, 0, 0, 0, *range(MARKS_MAX + 1)],
        [1, 0, 0, MARKS_MAX + 1, *range(MARKS_MAX + 1)],
    ],
)
def test_a_dump_that_nobody_made_changes_nothing(bad: list[int]) -> None:
    tail = watched()
    before = tail.dump(SECOND)
    assert tail.load(GOOD, SECOND)
    assert tail.load(before, SECOND)
    assert not tail.load(bad, SECOND)
    assert tail.dump(SECOND) == before


def test_more_mistakes_accepted_than_marks_were_kept_is_the_least_of_these() -> None:
    rare = watched(1.0)
    for number in range(1000):
        rare.add(number * MILLISECOND, HOUR)
    often = Tail(24_000.0)
    assert often.load(rare.dump(DAY), DAY)
    assert often.margin_ns(DAY, START) == (1000 - MARKS_MAX) * MILLISECOND


def test_learned_from_one_half_the_other_has_as_many_mistakes_as_were_accepted() -> None:
    """Twenty nodes with a heavy tail, each learning for itself; counted together."""
    counted = 0
    for seed in range(20):
        rng = random.Random(seed)
        tail = watched(240.0)
        latenesses = [round(rng.paretovariate(1.1) * MILLISECOND) for _ in range(7200)]
        for number, lateness in enumerate(latenesses[:3600]):
            tail.add(lateness, number * SECOND)
        margin = tail.margin_ns(HOUR, START)
        counted += sum(lateness > margin for lateness in latenesses[3600:])
    # 200 accepted; learning from as many and counting adds two deviations of 14 each way.
    assert 150 < counted < 260


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_rate_of_nothing_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="more than 0"):
        Tail(rate)


@given(st.floats(1e-300, 1e300), st.lists(st.integers(), max_size=40), st.integers(0, 10**18))
def test_no_rate_lateness_or_time_makes_it_raise(rate: float, latenesses: list[int], step: int) -> None:
    tail = watched(rate)
    for number, lateness in enumerate(latenesses):
        tail.add(lateness, number * step)
        assert isinstance(tail.margin_ns(number * step, START), int)
        assert len(tail.dump(number * step)) <= 4 + 2 * MARKS_MAX
