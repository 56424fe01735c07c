"""Adaptive: sender's schedule, largest view of the delay, margin."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.adaptive import LEVEL_BEATS, MEAN_BEATS, QUICK_BEATS, Adaptive
from hbagent.core.units import DAY, HOUR, MICROSECOND, MILLISECOND, SECOND

MARGIN = 150 * MILLISECOND
#: An observer that booted 40 days after the sender: their clocks have nothing to do with one another.
OFFSET = 40 * DAY


def calm(adaptive: Adaptive, beats: int, offset: int = OFFSET, first: int = 0) -> int:
    """Feed beats a second apart with a delay of 200 us; returns how long after due the last deadline lies."""
    suspect_at = 0
    for i in range(first, first + beats):
        suspect_at = adaptive.beat(i * SECOND, SECOND, SECOND, i * SECOND + offset + 200 * MICROSECOND)
    return suspect_at - ((first + beats) * SECOND + offset)


@pytest.mark.parametrize("seed", range(5))
def test_a_deadline_lies_between_the_mean_alone_and_the_largest_view(seed: int) -> None:
    adaptive = Adaptive(MARGIN)
    rng = random.Random(seed)
    delays: list[int] = []
    quick = 0
    for i in range(3 * MEAN_BEATS):
        delay = OFFSET + round(rng.lognormvariate(17, 1.0)) % (SECOND // 2)
        delays.append(delay)
        suspect_at = adaptive.beat(i * SECOND, SECOND, SECOND, i * SECOND + delay)
        mean = naive_mean(delays)
        quick = delay if i == 0 else quick + (delay - quick) // QUICK_BEATS
        expected = (i + 1) * SECOND + mean
        # What is left of a burst is reckoned from the mean, which moves meanwhile.
        largest = max(0, delay - mean, quick - mean)
        assert expected + MARGIN <= suspect_at <= expected + largest + MARGIN + 10 * MILLISECOND
        assert adaptive.allowed_ns >= MARGIN


def naive_mean(delays: list[int]) -> int:
    """Over lists: the mean of the first thousand, then a thousandth of each difference."""
    total = sum(delays[:MEAN_BEATS])
    for delay in delays[MEAN_BEATS:]:
        total += delay - total // MEAN_BEATS
    return total // min(len(delays), MEAN_BEATS)


@given(st.lists(st.integers(-3 * SECOND, 3 * SECOND), min_size=1, max_size=60), st.integers(-DAY, DAY))
def test_the_distance_between_the_clocks_moves_deadlines_by_as_much(delays: list[int], offset: int) -> None:
    near, far = Adaptive(MARGIN, 10.0), Adaptive(MARGIN, 10.0)
    for i, delay in enumerate(delays):
        now = i * SECOND + delay
        assert near.beat(i * SECOND, SECOND, SECOND, now) == far.beat(i * SECOND - offset, SECOND, SECOND, now)
        assert near.lead_ns == far.lead_ns >= 0


@given(st.integers(), st.integers(), st.integers(), st.integers(), st.integers(0))
def test_no_numbers_make_it_raise(sent: int, due_in: int, interval: int, now: int, margin: int) -> None:
    adaptive = Adaptive(margin)
    adaptive.beat(sent, due_in, interval, now)
    adaptive.beat(now, interval, due_in, sent)


def test_the_first_beat_is_allowed_its_own_delay_and_the_margin() -> None:
    adaptive = Adaptive(MARGIN)
    assert adaptive.beat(10 * SECOND, SECOND, SECOND, 4 * SECOND) == 5 * SECOND + MARGIN
    assert adaptive.allowed_ns == MARGIN


@given(st.integers(-(10**18), 10**18))
def test_the_distance_between_the_clocks_changes_nothing(offset: int) -> None:
    assert calm(Adaptive(MARGIN), 50, offset) == MARGIN + 200 * MICROSECOND


def test_a_sender_that_slips_its_schedule_is_followed_at_once() -> None:
    adaptive = Adaptive(MARGIN)
    calm(adaptive, 100)
    sent = 100 * SECOND + 700 * MILLISECOND
    assert adaptive.beat(sent, 300 * MILLISECOND, SECOND, sent + OFFSET) < 101 * SECOND + OFFSET + MARGIN + MILLISECOND


def test_a_late_beat_is_allowed_for_in_part_at_once_and_soon_forgotten() -> None:
    adaptive = Adaptive(MARGIN)
    calm(adaptive, 100)
    sent = 100 * SECOND
    adaptive.beat(sent, SECOND, SECOND, sent + OFFSET + 200 * MILLISECOND)
    assert MARGIN + 45 * MILLISECOND < adaptive.allowed_ns < MARGIN + 55 * MILLISECOND
    assert calm(adaptive, 1, first=101) < MARGIN + 15 * MILLISECOND
    assert calm(adaptive, 10, first=102) < MARGIN + 3 * MILLISECOND


def test_a_beat_an_interval_late_is_a_stall_and_allowed_for_in_full() -> None:
    adaptive = Adaptive(MARGIN)
    calm(adaptive, 100)
    sent = 100 * SECOND
    adaptive.beat(sent, SECOND, SECOND, sent + OFFSET + SECOND + 500 * MICROSECOND)
    assert MARGIN + 990 * MILLISECOND < adaptive.allowed_ns < MARGIN + 1010 * MILLISECOND


def test_where_late_beats_come_together_each_is_allowed_for_in_full() -> None:
    """Delays that wander slowly, as on a congested route, beside the same ones in any order."""
    rng = random.Random(3)
    delays = []
    wander = 0.0
    for _ in range(6000):
        wander = 0.95 * wander + rng.gauss(0, 0.31)
        delays.append(100 * MILLISECOND + round(20 * MILLISECOND * math.exp(wander)))
    mixed = rng.sample(delays, len(delays))
    lateness = {}
    for name, order in (("wandering", delays), ("mixed", mixed)):
        adaptive = Adaptive(0)
        deadlines = []
        for i, delay in enumerate(order):
            deadlines.append(adaptive.beat(i * SECOND, SECOND, SECOND, i * SECOND + delay))
            assert adaptive.allowed_ns >= 0
        late = [(i + 1) * SECOND + delay - deadlines[i] for i, delay in enumerate(order[1:])]
        lateness[name] = sorted(late[1000:])[-50]
    assert lateness["wandering"] < 0.35 * lateness["mixed"]


def test_a_pause_of_a_minute_lifts_no_later_deadline() -> None:
    adaptive = Adaptive(MARGIN)
    calm(adaptive, 2000)
    resumed = 2060 * SECOND
    for i in range(2000, 2060):
        adaptive.beat(i * SECOND, SECOND, SECOND, resumed + OFFSET)
    assert calm(adaptive, 20, first=2060) < MARGIN + 100 * MILLISECOND
    assert calm(adaptive, 20, first=2080) < MARGIN + 60 * MILLISECOND


def test_one_beat_that_was_an_hour_under_way_counts_as_one_interval_late() -> None:
    adaptive = Adaptive(MARGIN)
    calm(adaptive, 100)
    adaptive.beat(100 * SECOND, SECOND, SECOND, 100 * SECOND + OFFSET + HOUR)
    assert calm(adaptive, 1, first=101) < MARGIN + 200 * MILLISECOND
    assert calm(adaptive, 40, first=102) < MARGIN + 15 * MILLISECOND


def test_a_step_of_the_observers_clock_backwards_does_not_blind_it() -> None:
    adaptive = Adaptive(MARGIN)
    calm(adaptive, 2000)
    assert calm(adaptive, 1, OFFSET - HOUR, first=2000) == MARGIN + 200 * MICROSECOND


def test_a_sender_whose_clock_stood_still_is_not_suspected_for_ever_after() -> None:
    adaptive = Adaptive(MARGIN)
    calm(adaptive, 2000)
    for i in range(2000, 2000 + LEVEL_BEATS):
        assert calm(adaptive, 1, OFFSET + HOUR, first=i) >= MARGIN
    assert adaptive.allowed_ns == MARGIN


def test_a_pause_right_after_a_new_level_is_a_pause() -> None:
    adaptive = Adaptive(MARGIN)
    for i, delay in enumerate([0, *[HOUR] * LEVEL_BEATS, HOUR + 2 * SECOND]):
        adaptive.beat(i * SECOND, SECOND, SECOND, i * SECOND + delay)
    calm(adaptive, 20, HOUR, first=20)
    assert adaptive.allowed_ns < MARGIN + 60 * MILLISECOND


def test_pauses_apart_from_one_another_are_no_new_level() -> None:
    adaptive = Adaptive(MARGIN)
    calm(adaptive, 2000)
    for i in range(2000, 2000 + 4 * LEVEL_BEATS, 2):
        adaptive.beat(i * SECOND, SECOND, SECOND, i * SECOND + OFFSET + 10 * SECOND)
        assert calm(adaptive, 1, first=i + 1) < MARGIN + SECOND


def test_pauses_apart_from_one_another_leave_the_long_mean() -> None:
    adaptive = Adaptive(MARGIN)
    for i in range(2000):
        calm(adaptive, 1, OFFSET + 200 * MILLISECOND * (i % 2), first=i)
    for i in range(2000, 2000 + 4 * LEVEL_BEATS, 2):
        adaptive.beat(i * SECOND, SECOND, SECOND, i * SECOND + OFFSET + 10 * SECOND)
        assert calm(adaptive, 1, first=i + 1) > MARGIN + 90 * MILLISECOND


def test_a_new_incarnation_starts_with_nothing_learned() -> None:
    adaptive = Adaptive(MARGIN)
    for i in range(100):
        adaptive.beat(i * SECOND, SECOND, SECOND, i * SECOND + 900 * MILLISECOND * (i % 2))
    adaptive.reset()
    assert adaptive.beat(5, SECOND, SECOND, 7) == 7 + SECOND + MARGIN


# ---- doubt -----------------------------------------------------------------------------------------------


def lateness(adaptive: Adaptive, late_ns: int, number: int) -> None:
    """The `number`-th beat comes so much later than expected; the one after it as usual."""
    sent = number * SECOND
    adaptive.beat(sent, SECOND, SECOND, sent + OFFSET + 200 * MICROSECOND + late_ns)


def test_doubt_begins_8_ms_after_a_beat_was_expected() -> None:
    adaptive = Adaptive(MARGIN)
    assert calm(adaptive, 100) - adaptive.lead_ns == 8 * MILLISECOND + 200 * MICROSECOND


@given(st.integers(0, 8 * MILLISECOND))
def test_doubt_never_begins_after_suspicion(margin: int) -> None:
    assert Adaptive(margin).lead_ns == 0


def test_where_more_than_one_beat_in_a_thousand_is_late_doubt_waits_longer() -> None:
    adaptive = Adaptive(MARGIN)
    rng = random.Random(2)
    doubted = 0
    for i in range(30_000):
        late = round(rng.expovariate(1 / (3 * MILLISECOND)))
        doubt_at = adaptive.beat(i * SECOND, SECOND, SECOND, i * SECOND + late) - adaptive.lead_ns
        doubted += i > 10_000 and (i + 1) * SECOND + late > doubt_at
    assert 12 * MILLISECOND < MARGIN - adaptive.lead_ns < 37.5 * MILLISECOND
    assert doubted < 60


def test_lost_beats_do_not_put_doubt_off() -> None:
    adaptive = Adaptive(MARGIN)
    for i in range(5000):
        if i % 10:
            calm(adaptive, 1, first=i)
    assert MARGIN - adaptive.lead_ns == 8 * MILLISECOND


def test_an_answer_puts_the_deadline_off_to_the_next_beat() -> None:
    adaptive = Adaptive(MARGIN)
    calm(adaptive, 100)
    expected = 100 * SECOND + OFFSET + 200 * MICROSECOND
    asked = expected + 10 * MILLISECOND
    assert adaptive.answered(SECOND, asked) == expected + SECOND + MARGIN
    assert adaptive.answered(SECOND, asked + 3 * SECOND) == expected + 4 * SECOND + MARGIN


# ---- the learned margin ----------------------------------------------------------------------------------


def test_without_a_wanted_rate_the_margin_stays() -> None:
    adaptive = Adaptive(MARGIN)
    calm(adaptive, 100)
    lateness(adaptive, SECOND, 101)
    assert (adaptive.margin_ns, adaptive.remember()) == (MARGIN, [])


def test_a_margin_is_learned_from_the_nodes_own_lateness_and_kept_between_its_bounds() -> None:
    loose, tight = (
        Adaptive(MARGIN, 240.0, low, high) for low, high in ((MILLISECOND, SECOND), (60_000_000, 70_000_000))
    )
    rng = random.Random(4)
    for i in range(40_000):
        late = 45 * MILLISECOND if rng.random() < 0.01 else 0
        for adaptive in (loose, tight):
            lateness(adaptive, late, i)
            assert adaptive.lead_ns >= 0
    assert 40 * MILLISECOND < loose.margin_ns < 46 * MILLISECOND
    assert tight.margin_ns == 60 * MILLISECOND


def test_what_was_learned_outlives_the_detector_and_a_new_incarnation() -> None:
    first = Adaptive(MARGIN, 240.0)
    for i in range(20_000):
        lateness(first, 45 * MILLISECOND if i % 100 == 50 else 0, i)
    kept = first.remember()
    assert kept and max(kept) < 2**63
    second = Adaptive(MARGIN, 240.0)
    second.recall(kept)
    assert second.margin_ns == pytest.approx(first.margin_ns, abs=MILLISECOND)
    second.beat(5 * DAY, SECOND, SECOND, 9 * DAY)
    second.reset()
    second.beat(DAY, SECOND, SECOND, 10 * DAY)
    lateness(second, 9 * MILLISECOND - OFFSET + 9 * DAY, 86_401)
    assert second.margin_ns == pytest.approx(first.margin_ns, abs=MILLISECOND)


@given(st.lists(st.integers(), max_size=80))
def test_nothing_that_is_recalled_makes_it_raise(numbers: list[int]) -> None:
    adaptive = Adaptive(MARGIN, 1.0)
    adaptive.recall(numbers)
    adaptive.beat(0, SECOND, SECOND, DAY)
    adaptive.beat(SECOND, SECOND, SECOND, DAY + 5 * SECOND)
    assert 20 * MILLISECOND <= adaptive.margin_ns <= 3 * SECOND


def test_an_answer_to_a_question_is_how_late_the_node_was() -> None:
    passive, asking = Adaptive(MARGIN, 240.0), Adaptive(MARGIN, 240.0)
    for i in range(20_000):
        if i % 50:
            calm(passive, 1, first=i)
            calm(asking, 1, first=i)
        elif i:
            asking.answered(SECOND, i * SECOND + OFFSET + 10 * MILLISECOND)
    assert passive.margin_ns > SECOND - MILLISECOND
    assert asking.margin_ns == 20 * MILLISECOND


def steps(call: Callable[[], object]) -> int:
    """How many instructions of Python a call takes, in it and in all that it calls."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def test_a_beat_in_time_costs_few_steps() -> None:
    """Under a microsecond each; what they take on this machine `hbagent bench intake` tells."""
    detector = Adaptive(MARGIN)
    calm(detector, 10)
    taken = [
        steps(lambda at=at: detector.beat(at, SECOND, SECOND, at + OFFSET))  # type: ignore[misc]
        for at in range(10 * SECOND, 1000 * SECOND, SECOND)
    ]
    # 88; each Python counts a little differently.
    assert max(taken) < 140


def test_an_outage_that_no_margin_may_cover_lifts_none() -> None:
    detector = Adaptive(150 * MILLISECOND, mistakes_per_day=1.0)
    at = SECOND
    for _ in range(100):
        at += SECOND
        detector.beat(at, SECOND, SECOND, at)
    margin = detector.margin_ns
    at += 11 * SECOND
    detector.beat(at, SECOND, SECOND, at)
    at += 86_400 * SECOND
    detector.beat(at, SECOND, SECOND, at)
    assert detector.margin_ns <= margin


def test_a_pause_of_the_observer_is_no_lateness_of_the_node() -> None:
    lag = {"since": 0, "lag": 0}
    detector = Adaptive(150 * MILLISECOND, 1.0, own_lag=lambda instant: lag["lag"] if instant < lag["since"] else 0)
    at = SECOND
    for _ in range(100):
        at += SECOND
        detector.beat(at, SECOND, SECOND, at)
    margin, slack = detector.margin_ns, detector.lead_ns
    lag.update(since=at + 2 * SECOND, lag=900 * MILLISECOND)
    detector.beat(at + SECOND, SECOND, SECOND, at + 1900 * MILLISECOND)
    assert (detector.margin_ns, detector.lead_ns) == (margin, slack)


def test_a_silence_that_the_node_accounts_for_lifts_no_margin() -> None:
    detector = Adaptive(150 * MILLISECOND, 1.0)
    at = SECOND
    for _ in range(20_000):
        at += SECOND
        detector.beat(at, SECOND, SECOND, at)
    margin = detector.margin_ns
    at += 3 * SECOND
    detector.beat(at, SECOND, SECOND, at)
    assert detector.margin_ns > margin
    detector.forgive(3 * SECOND)
    assert detector.margin_ns <= margin
