"""One node: the road of the ordinary beat, and what a beat proves by its age."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.config import DetectorConfig
from hbagent.core.detector import make_detector
from hbagent.core.member import AGED_NS, FLOOR_TURN_NS, Member
from hbagent.core.states import Cause, Liveness
from hbagent.core.units import MILLISECOND, SECOND
from tests.build import INCARNATION, NODE, T

#: The sender's clock is off by this.
OFFSET = T(12345)


def living() -> Member:
    """A node that was heard at 1 s with sequence 1, 1 ms after it was sent."""
    member = Member(NODE, make_detector(DetectorConfig()), SECOND, 0)
    member.order.judge(INCARNATION, 1)
    member.liveness, member.cause = Liveness.ALIVE, None
    member.heard_at = T(1)
    member.fresh_ns = T(1.15)
    member.age_of(T(1) - (T(1) - MILLISECOND + OFFSET), T(1))
    return member


def hear(
    member: Member,
    sequence: int,
    sent: float,
    arrived: float,
    *,
    incarnation: int = INCARNATION,
    interval: int = SECOND,
    due_in: int = SECOND,
    gap: int = 0,
) -> bool:
    return member.beat(incarnation, sequence, T(sent) + OFFSET, due_in, interval, gap, 7, 8, T(arrived))


def test_an_ordinary_beat_moves_everything_that_is_known_of_a_living_node() -> None:
    member = living()
    assert hear(member, 2, sent=2, arrived=2.001)
    assert (member.order.sequence, member.order.lost, member.beats) == (2, 0, 1)
    assert (member.heard_at, member.silent_from) == (T(2.001), T(2.001))
    assert (member.progress, member.digest) == (7, 8)
    assert T(3) < member.suspect_at < T(3.2)


@pytest.mark.parametrize("sequence", [5, 9])
def test_a_gap_is_counted(sequence: int) -> None:
    member = living()
    assert hear(member, sequence, sent=5, arrived=5.001)
    assert member.order.lost == sequence - 2


@pytest.mark.parametrize(
    "unusual",
    [
        {"sequence": 1},
        {"sequence": 0},
        {"incarnation": INCARNATION + 1},
        {"interval": 2 * SECOND},
        {"due_in": SECOND + 1},
        {"arrived": 2.102},
    ],
)
def test_what_is_not_ordinary_is_left_untouched(unusual: dict[str, float]) -> None:
    member = living()
    before = (member.order.sequence, member.order.lost, member.beats, member.heard_at, member.suspect_at)
    assert not hear(member, **{"sequence": 2, "sent": 2, "arrived": 2.001, **unusual})  # type: ignore[arg-type]
    assert (member.order.sequence, member.order.lost, member.beats, member.heard_at, member.suspect_at) == before


@pytest.mark.parametrize("liveness", [value for value in Liveness if value is not Liveness.ALIVE])
def test_a_beat_of_a_node_that_is_not_alive_is_a_matter_for_the_roster(liveness: Liveness) -> None:
    member = living()
    member.liveness, member.cause = liveness, Cause.SILENCE
    assert not hear(member, 2, sent=2, arrived=2.001)


def test_the_first_beat_in_a_life_of_the_leader_is_a_matter_for_the_roster() -> None:
    member = living()
    member.heard_at = None
    assert not hear(member, 2, sent=2, arrived=2.001)


def test_a_node_that_beats_too_often_is_a_matter_for_the_roster() -> None:
    member = living()
    member.beats_limit = 1
    assert hear(member, 2, sent=2, arrived=2.001)
    assert not hear(member, 3, sent=2.1, arrived=2.101)


def test_a_beat_proves_life_when_it_was_sent_and_not_when_it_arrived() -> None:
    member = living()
    assert hear(member, 2, sent=2, arrived=2.091)
    assert member.heard_at == T(2.001), "of its way 90 ms are above the least"


def test_a_beat_that_looks_old_is_a_matter_for_the_roster() -> None:
    assert not hear(living(), 2, sent=2, arrived=2.102)


def test_the_least_offset_is_that_of_the_last_half_to_whole_minute() -> None:
    member = living()
    now = T(1)
    for _ in range(3):
        now += FLOOR_TURN_NS
        # The sender's clock lost a second against this one.
        age = member.age_of(T(1) + MILLISECOND - OFFSET, now)
    assert age == 0


def test_the_largest_loop_gap_is_shown_for_half_a_minute_to_a_minute() -> None:
    member = living()
    hear(member, 2, sent=2, arrived=2.001, gap=T(0.5))
    hear(member, 3, sent=3, arrived=3.001, gap=T(0.1))
    assert member.loop_gap_ns == T(0.5)
    hear(member, 4, sent=32, arrived=32.001)
    assert member.loop_gap_ns == T(0.5)
    hear(member, 5, sent=63, arrived=63.001)
    assert member.loop_gap_ns == 0


def test_another_clock_starts_without_a_least_offset() -> None:
    member = living()
    member.forget_offsets()
    assert member.age_of(T(99), T(2)) == 0
    assert member.age_of(T(100), T(3)) == T(1)


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 150)), min_size=1, max_size=60))
def test_written_out_or_called_the_age_is_the_same(steps: list[tuple[int, int]]) -> None:
    """`beat` has the common half of `age_of` written out; this holds the two together."""
    fast, slow = living(), living()
    sent = T(1)
    for sequence, (passed_ms, delay_ms) in enumerate(steps, 2):
        sent += passed_ms * MILLISECOND
        now = sent + delay_ms * MILLISECOND
        age = slow.age_of(now - sent - OFFSET, now)
        taken = fast.beat(INCARNATION, sequence, sent + OFFSET, SECOND, SECOND, 0, 0, 0, now)
        assert taken is (age <= AGED_NS)
        if taken:
            assert fast.heard_at == now - age
        assert (fast.floor_now, fast.floor_before, fast.floor_turn) == (
            slow.floor_now,
            slow.floor_before,
            slow.floor_turn,
        )
