"""Phi: the level, its inverse, and the detector on top."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.phi import THRESHOLD_MAX, THRESHOLD_MIN, Phi, deviations_at, elapsed_at, phi
from hbagent.core.units import MILLISECOND, SECOND

#: Durations that a window can hold.
NS = st.integers(0, 2**63)
DEVIATIONS = st.integers(MILLISECOND, 1000 * SECOND)
WINDOW, DEVIATION_MIN = 1000, 100 * MILLISECOND


@given(NS, NS, NS, NS)
def test_the_level_never_falls_as_silence_goes_on(one: int, other: int, mean: int, deviation: int) -> None:
    shorter, longer = sorted((one, other))
    # A few units in the last place are rounding.
    assert phi(shorter, mean, deviation) <= phi(longer, mean, deviation) * (1 + 1e-14)


@given(st.integers(), st.integers(), st.integers())
def test_the_level_is_a_finite_number_for_any_integers(elapsed: int, mean: int, deviation: int) -> None:
    level = phi(elapsed, mean, deviation)
    assert math.isfinite(level)
    assert level >= 0.0


@pytest.mark.parametrize("deviations", [-(10**400), -(10**9), -1000, -40, -25, -1, 0, 1, 25, 40, 1000, 10**9, 10**400])
def test_both_tails_are_numbers_where_the_textbook_form_raises(deviations: int) -> None:
    assert 0.0 <= phi(deviations * SECOND, 0, SECOND) < math.inf


@given(st.floats(), st.integers(), st.integers())
def test_the_inverse_is_a_number_for_any_threshold(threshold: float, mean: int, deviation: int) -> None:
    assert isinstance(elapsed_at(threshold, mean, deviation), int)


@pytest.mark.parametrize("threshold", [math.nan, math.inf, -math.inf, 0.0, -1.0, 5e-324, 1e308])
def test_the_inverse_is_a_number_for_thresholds_that_are_none(threshold: float) -> None:
    assert math.isfinite(deviations_at(threshold))


@given(st.floats(0.01, 100.0), NS, DEVIATIONS)
def test_the_inverse_is_exact_to_the_nanosecond(threshold: float, mean: int, deviation: int) -> None:
    elapsed = elapsed_at(threshold, mean, deviation)
    assert phi(elapsed - 2, mean, deviation) <= threshold * (1 + 1e-12)
    assert phi(elapsed + 2, mean, deviation) >= threshold * (1 - 1e-12)
    assert (
        phi(elapsed - deviation // 1000, mean, deviation)
        < threshold
        < phi(elapsed + deviation // 1000, mean, deviation)
    )


@given(st.floats(THRESHOLD_MIN, THRESHOLD_MAX), st.floats(THRESHOLD_MIN, THRESHOLD_MAX))
def test_a_higher_threshold_is_never_reached_sooner(one: float, other: float) -> None:
    lower, higher = sorted((one, other))
    assert deviations_at(lower) <= deviations_at(higher) + 1e-9


@pytest.mark.parametrize("deviation", [1, 0, -5])
def test_no_deviation_at_all_is_taken_as_a_nanosecond(deviation: int) -> None:
    assert elapsed_at(8.0, SECOND, deviation) == SECOND + 6
    assert phi(SECOND + 6, SECOND, deviation) > 8.0 > phi(SECOND + 5, SECOND, deviation)


def test_known_levels() -> None:
    # The logistic form at y = 0 is one half; phi 8 at 5.226 deviations is Akka's published default.
    assert phi(SECOND, SECOND, MILLISECOND) == pytest.approx(math.log10(2))
    assert deviations_at(8.0) == pytest.approx(5.226, abs=0.001)
    assert phi(2 * SECOND, SECOND, SECOND) == pytest.approx(-math.log10(1 / (1 + math.exp(1.5976 + 0.070566))))


def regular(detector: Phi, beats: int, first: int = 0, jitter: int = 0) -> int:
    """Feed beats a second apart; returns how long after the last arrival the deadline lies."""
    now = suspect_at = 0
    for i in range(first, first + beats):
        now = i * SECOND + jitter * (i % 2)
        suspect_at = detector.beat(0, 0, SECOND, now)
    return suspect_at - now


def test_the_first_beat_is_judged_by_the_announced_interval_and_a_quarter_of_it() -> None:
    detector = Phi(8.0, WINDOW, DEVIATION_MIN, 0)
    assert detector.beat(0, 0, SECOND, 5 * SECOND) == 5 * SECOND + elapsed_at(8.0, SECOND, SECOND // 4) - 1
    assert detector.allowed_ns == pytest.approx(5.226 * SECOND / 4, rel=1e-3)


def test_the_deadline_is_where_the_level_reaches_the_threshold() -> None:
    detector = Phi(8.0, WINDOW, DEVIATION_MIN, 0)
    silence = regular(detector, 1001, jitter=300 * MILLISECOND)
    mean, deviation = SECOND, 300 * MILLISECOND
    assert phi(silence, mean, deviation) == pytest.approx(8.0, rel=0.01)


def test_a_quiet_line_is_never_judged_by_less_than_the_least_deviation() -> None:
    detector = Phi(8.0, 10, DEVIATION_MIN, 0)
    assert regular(detector, 100) == pytest.approx(SECOND + 5.226 * DEVIATION_MIN, rel=1e-4)


def test_the_pause_comes_on_top() -> None:
    plain, patient = Phi(8.0, 10, DEVIATION_MIN, 0), Phi(8.0, 10, DEVIATION_MIN, 3 * SECOND)
    assert regular(patient, 20) == regular(plain, 20) + 3 * SECOND
    assert patient.allowed_ns == plain.allowed_ns + 3 * SECOND


def test_the_gap_of_an_outage_is_not_learned() -> None:
    detector = Phi(8.0, WINDOW, DEVIATION_MIN, 0)
    before = regular(detector, 100)
    assert regular(detector, 1, first=1000) == before


def test_a_late_beat_that_was_not_suspected_is_learned() -> None:
    detector = Phi(8.0, WINDOW, DEVIATION_MIN, 0)
    before = regular(detector, 100)
    now = 99 * SECOND + before - 1
    assert detector.beat(0, 0, SECOND, now) - now > before


def test_a_newly_announced_interval_starts_again() -> None:
    detector = Phi(8.0, WINDOW, DEVIATION_MIN, 0)
    regular(detector, 100)
    assert detector.beat(0, 0, 10 * SECOND, 109 * SECOND) == Phi(8.0, WINDOW, DEVIATION_MIN, 0).beat(
        0, 0, 10 * SECOND, 109 * SECOND
    )


def test_a_new_incarnation_starts_with_nothing_learned() -> None:
    detector = Phi(8.0, WINDOW, DEVIATION_MIN, 0)
    fresh = regular(detector, 1)
    regular(detector, 500, first=1)
    detector.reset()
    assert regular(detector, 1, first=600) == fresh


@given(st.floats(), st.integers(), st.integers(), st.lists(st.integers(), max_size=5))
def test_no_numbers_make_the_detector_raise(threshold: float, pause: int, interval: int, nows: list[int]) -> None:
    detector = Phi(threshold, 2, -1, pause)
    for now in nows:
        detector.beat(now, now, interval, now)


def test_doubt_begins_where_one_normal_arrival_in_a_thousand_would_be_later() -> None:
    detector = Phi(8.0, WINDOW, MILLISECOND, 0)
    regular(detector, 1001, jitter=100 * MILLISECOND)
    assert detector.margin_ns - detector.lead_ns == pytest.approx(3.09 * 100 * MILLISECOND, rel=0.03)


def test_neither_the_pause_nor_the_least_deviation_puts_doubt_off() -> None:
    detector = Phi(8.0, WINDOW, 100 * MILLISECOND, 3 * SECOND)
    # The first two samples are made up; a window that is full has forgotten them.
    regular(detector, WINDOW + 2)
    assert detector.margin_ns - detector.lead_ns == 8 * MILLISECOND


def test_an_answer_puts_the_deadline_off_and_its_gap_is_still_not_learned() -> None:
    detector = Phi(8.0, WINDOW, DEVIATION_MIN, 0)
    before = regular(detector, 100)
    assert detector.answered(SECOND, 100 * SECOND + 50 * MILLISECOND) == 100 * SECOND + before
    assert detector.beat(0, 0, SECOND, 101 * SECOND) == 101 * SECOND + before
