"""Window: exact mean and deviation of the last so many durations."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.window import DURATION_MAX_NS, Window

DURATIONS = st.lists(st.integers(0, DURATION_MAX_NS), max_size=40)


@given(DURATIONS, st.integers(2, 12))
def test_mean_and_deviation_are_those_of_the_last_samples_exactly(durations: list[int], size: int) -> None:
    window = Window(size)
    for i, duration in enumerate(durations):
        window.append(duration)
        last = durations[: i + 1][-size:]
        count = len(last)
        assert len(window) == count
        assert window.mean_ns == sum(last) // count
        assert (
            window.deviation_ns == math.isqrt(sum((count * each - sum(last)) ** 2 for each in last) // count) // count
        )


def test_an_empty_window_is_all_zero() -> None:
    window = Window(5)
    window.append(7)
    window.clear()
    assert (len(window), window.mean_ns, window.deviation_ns) == (0, 0, 0)


@given(DURATIONS, DURATIONS, st.integers(2, 6))
def test_a_cleared_window_is_as_good_as_a_new_one(before: list[int], after: list[int], size: int) -> None:
    used, new = Window(size), Window(size)
    for duration in before:
        used.append(duration)
    used.clear()
    for duration in after:
        used.append(duration)
        new.append(duration)
        assert (used.mean_ns, used.deviation_ns) == (new.mean_ns, new.deviation_ns)


def test_equal_samples_deviate_by_exactly_nothing_after_any_number_of_them() -> None:
    window = Window(3)
    for duration in [DURATION_MAX_NS, 1, 10**15] + [10**9 + 1] * 3:
        window.append(duration)
    assert (window.mean_ns, window.deviation_ns) == (10**9 + 1, 0)


@given(st.integers(), st.integers())
def test_what_no_clock_can_measure_is_held_within_bounds(one: int, other: int) -> None:
    window = Window(2)
    window.append(one)
    window.append(other)
    assert 0 <= window.mean_ns <= DURATION_MAX_NS


@pytest.mark.parametrize("size", [1, 0, -1])
def test_a_window_too_small_for_a_deviation_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        Window(size)
