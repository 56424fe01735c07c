"""Adaptive: sender's schedule, largest view of the delay, margin."""

from __future__ import annotations

import random
import sys
import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.adaptive import LEVEL_BEATS, MEAN_BEATS, QUICK_BEATS, Adaptive
from hbagent.core.units import DAY, HOUR, MICROSECOND, MILLISECOND, SECOND

MARGIN = 150 * MILLISECOND
#: An observer that booted 40 days after the sender: their clocks have nothing to do with one another.
OFFSET = 40 * DAY


class NaiveAdaptive:
    """The same rule over lists: the delays since the last new start, averaged afresh for each beat."""

    def __init__(self) -> None:
        self.delays: list[int] = []
        self.above = 0

    def suspect_at(self, sent: int, due_in: int, interval: int, now: int) -> int:
        delay = now - sent
        counted = delay
        if self.delays:
            mean = self.mean()
            self.above = self.above + 1 if delay > mean + interval else 0
            if delay < mean - interval or self.above == LEVEL_BEATS:
                self.delays.clear()
                self.above = 0
            elif self.above:
                counted = mean + interval
        self.delays.append(counted)
        return sent + due_in + max(self.mean(), delay, self.quick()) + MARGIN

    def mean(self) -> int:
        total = sum(self.delays[:MEAN_BEATS])
        for delay in self.delays[MEAN_BEATS:]:
            total += delay - total // MEAN_BEATS
        return total // min(len(self.delays), MEAN_BEATS)

    def quick(self) -> int:
        quick = self.delays[0]
        for delay in self.delays[1:]:
            quick += (delay - quick) // QUICK_BEATS
        return quick


def calm(adaptive: Adaptive, beats: int, offset: int = OFFSET, first: int = 0) -> int:
    """Feed beats a second apart with a delay of 200 us; returns how long after due the last deadline lies."""
    suspect_at = 0
    for i in range(first, first + beats):
        suspect_at = adaptive.beat(i * SECOND, SECOND, SECOND, i * SECOND + offset + 200 * MICROSECOND)
    return suspect_at - ((first + beats) * SECOND + offset)


def spiky_delays(seed: int, beats: int) -> list[int]:
    """Delays with jitter, spikes on both sides of an interval, long pauses, and steps of either clock."""
    rng = random.Random(seed)
    step = rng.randrange(-DAY, DAY)
    delays = []
    for _ in range(beats):
        if rng.random() < 0.01:
            step += rng.randrange(-5 * SECOND, 5 * SECOND)
        delay = step + rng.randrange(MILLISECOND)
        if rng.random() < 0.1:
            delay += rng.randrange(3 * SECOND)
        delays.append(delay)
    return delays


@given(st.lists(st.integers(-3 * SECOND, 3 * SECOND), min_size=1, max_size=60), st.integers(-DAY, DAY))
def test_every_history_gives_the_deadline_of_the_naive_model(delays: list[int], offset: int) -> None:
    adaptive, naive = Adaptive(MARGIN), NaiveAdaptive()
    for i, delay in enumerate(delays):
        beat = (i * SECOND, SECOND, SECOND, i * SECOND + offset + delay)
        assert adaptive.beat(*beat) == naive.suspect_at(*beat)
        assert adaptive.allowed_ns >= MARGIN


def test_the_mean_is_exact_far_beyond_its_thousand_beats() -> None:
    adaptive, naive = Adaptive(MARGIN), NaiveAdaptive()
    rng = random.Random(1)
    for i in range(3 * MEAN_BEATS):
        beat = (i * SECOND, SECOND, SECOND, i * SECOND + OFFSET + rng.randrange(400 * MILLISECOND))
        suspect_at = adaptive.beat(*beat)
        if i % 100:
            naive.delays.append(beat[3] - beat[0])
        else:
            assert suspect_at == naive.suspect_at(*beat)


@pytest.mark.parametrize("seed", range(5))
def test_pauses_and_clock_steps_give_the_deadline_of_the_naive_model(seed: int) -> None:
    adaptive, naive = Adaptive(MARGIN), NaiveAdaptive()
    for i, delay in enumerate(spiky_delays(seed, 400)):
        beat = (i * SECOND, SECOND, SECOND, i * SECOND + delay)
        assert adaptive.beat(*beat) == naive.suspect_at(*beat)


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


def test_a_late_beat_is_allowed_for_at_once_and_soon_forgotten() -> None:
    adaptive = Adaptive(MARGIN)
    calm(adaptive, 100)
    sent = 100 * SECOND
    adaptive.beat(sent, SECOND, SECOND, sent + OFFSET + 500 * MILLISECOND)
    assert adaptive.allowed_ns > MARGIN + 490 * MILLISECOND
    assert calm(adaptive, 1, first=101) < MARGIN + 90 * MILLISECOND
    assert calm(adaptive, 10, first=102) < MARGIN + 15 * MILLISECOND


def test_a_pause_of_a_minute_lifts_no_later_deadline() -> None:
    adaptive = Adaptive(MARGIN)
    calm(adaptive, 2000)
    resumed = 2060 * SECOND
    for i in range(2000, 2060):
        adaptive.beat(i * SECOND, SECOND, SECOND, resumed + OFFSET)
    assert calm(adaptive, 20, first=2060) < MARGIN + 100 * MILLISECOND
    assert calm(adaptive, 20, first=2080) < MARGIN + 40 * MILLISECOND


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


@pytest.mark.parametrize("before", [[0, *[HOUR] * LEVEL_BEATS], [2 * HOUR, *[3 * HOUR] * (LEVEL_BEATS - 1), HOUR]])
def test_a_pause_right_after_a_new_level_is_a_pause(before: list[int]) -> None:
    adaptive, naive = Adaptive(MARGIN), NaiveAdaptive()
    for i, delay in enumerate([*before, HOUR + 2 * SECOND, *[HOUR] * 4]):
        beat = (i * SECOND, SECOND, SECOND, i * SECOND + delay)
        assert adaptive.beat(*beat) == naive.suspect_at(*beat)


def test_pauses_apart_from_one_another_are_no_new_level() -> None:
    adaptive = Adaptive(MARGIN)
    calm(adaptive, 2000)
    for i in range(2000, 2000 + 4 * LEVEL_BEATS, 2):
        adaptive.beat(i * SECOND, SECOND, SECOND, i * SECOND + OFFSET + 10 * SECOND)
        assert calm(adaptive, 1, first=i + 1) < MARGIN + SECOND


def test_a_new_incarnation_starts_with_nothing_learned() -> None:
    adaptive = Adaptive(MARGIN)
    for i in range(100):
        adaptive.beat(i * SECOND, SECOND, SECOND, i * SECOND + 900 * MILLISECOND * (i % 2))
    adaptive.reset()
    assert adaptive.beat(5, SECOND, SECOND, 7) == 7 + SECOND + MARGIN


@pytest.mark.skipif(sys.gettrace() is not None, reason="a tracer is on; the time would be its own")
def test_a_beat_costs_less_than_a_microsecond() -> None:
    names = {"beat": Adaptive(MARGIN).beat, "bare": lambda a, b, c, d: a + b + c + d}
    arguments = "(3456000000000000, 1000000000, 1000000000, 123000000000)"
    times = [timeit.repeat(f"{name}{arguments}", globals=dict(names), number=5000, repeat=9) for name in names]
    beat, bare = (min(each) / 5000 for each in times)
    # On a machine so slow that this fails, the bare call tells it from a slow rule.
    assert beat < 1e-6 or beat < 10 * bare
