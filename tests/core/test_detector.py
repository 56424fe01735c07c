"""The one contract that every detector keeps."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.config import DetectorConfig
from hbagent.core.detector import KINDS, Detector, make_detector
from hbagent.core.units import MILLISECOND, SECOND

MARGIN = 150 * MILLISECOND


def made(kind: str) -> Detector:
    return make_detector(DetectorConfig(kind=kind, margin_ns=MARGIN))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_makes_the_detector_of_that_name(kind: str) -> None:
    assert made(kind).name == kind


def test_the_default_is_adaptive() -> None:
    assert make_detector(DetectorConfig()).name == "adaptive"


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'psi' is not one of adaptive, phi, fixed"):
        made("psi")


def test_settings_reach_the_detector() -> None:
    config = DetectorConfig(kind="phi", phi_threshold=1.0, deviation_min_ns=SECOND, pause_ns=3 * SECOND)
    strict = make_detector(DetectorConfig(kind="phi", phi_threshold=1.0, deviation_min_ns=SECOND))
    assert make_detector(config).beat(0, SECOND, SECOND, 0) == strict.beat(0, SECOND, SECOND, 0) + 3 * SECOND
    assert strict.allowed_ns > SECOND
    small = make_detector(DetectorConfig(kind="phi", window_samples=2, deviation_min_ns=MILLISECOND))
    for i in range(4):
        small.beat(0, SECOND, SECOND, i * SECOND)
    assert small.allowed_ns < 10 * MILLISECOND


@pytest.mark.parametrize("kind", KINDS)
def test_a_silent_sender_is_suspected_within_three_intervals(kind: str) -> None:
    detector = made(kind)
    suspect_at = 0
    for i in range(2000):
        suspect_at = detector.beat(i * SECOND, SECOND, SECOND, i * SECOND + MILLISECOND)
    assert 2000 * SECOND < suspect_at <= 2002 * SECOND


@pytest.mark.parametrize("kind", KINDS)
def test_a_regular_sender_is_never_suspected(kind: str) -> None:
    detector = made(kind)
    rng = random.Random(1)
    suspect_at = SECOND
    for i in range(2000):
        now = i * SECOND + rng.randrange(40 * MILLISECOND)
        assert now < suspect_at
        suspect_at = detector.beat(i * SECOND, SECOND, SECOND, now)


@pytest.mark.parametrize("kind", KINDS)
@given(beats=st.lists(st.tuples(st.integers(), st.integers(), st.integers(), st.integers()), max_size=6))
def test_no_beat_makes_a_detector_raise(kind: str, beats: list[tuple[int, int, int, int]]) -> None:
    detector = made(kind)
    for beat in beats:
        assert isinstance(detector.beat(*beat), int)
        assert isinstance(detector.allowed_ns, int)
        assert isinstance(detector.answered(beat[2], beat[3]), int)
    detector.reset()
    assert isinstance(detector.beat(1, 2, 3, 4), int)


@pytest.mark.parametrize("kind", KINDS)
@given(
    delays=st.lists(st.integers(0, 5 * SECOND), min_size=1, max_size=40),
    asked=st.integers(0, 10 * SECOND),
    margin=st.integers(0, SECOND),
)
def test_doubt_begins_no_later_than_suspicion_and_after_an_answer_both_lie_ahead(
    kind: str, delays: list[int], asked: int, margin: int
) -> None:
    detector = make_detector(DetectorConfig(kind=kind, margin_ns=margin, mistakes_per_day=100.0))
    now = suspect_at = 0
    for i, delay in enumerate(delays):
        now = max(now, i * SECOND + delay)
        suspect_at = detector.beat(i * SECOND, SECOND, SECOND, now)
        assert detector.lead_ns >= 0
        assert detector.margin_ns >= 0
    put_off = detector.answered(SECOND, now + asked)
    assert put_off - detector.lead_ns > now + asked or put_off > suspect_at
    assert put_off >= suspect_at


@pytest.mark.parametrize("kind", KINDS)
def test_what_one_remembers_another_recalls(kind: str) -> None:
    one, other = made(kind), made(kind)
    for i in range(100):
        one.beat(i * SECOND, SECOND, SECOND, i * SECOND + (i % 9) * 20 * MILLISECOND)
    other.recall(one.remember())
    other.recall([-1, 5])
    assert other.remember() == one.remember() or kind == "adaptive"
