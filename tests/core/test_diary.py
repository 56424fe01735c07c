"""What an agent remembers of its own running: nothing is lost, nothing is counted twice, and pages stay few."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.diary import LEVELS_MAX, PAGES_OF_LEVEL_MAX, Diary, Page
from hbagent.core.messages import Effort
from hbagent.core.units import MILLISECOND, SECOND
from tests.build import T


def effort(run_delay: float = 0, throttled: float = 0, suspended: float = 0) -> Effort:
    return Effort(T(run_delay), T(throttled), T(suspended))


def pages_of(diary: Diary) -> list[Page]:
    """The newest first."""
    return [page for pages in diary._levels for page in reversed(pages)]


def lived(seconds: int, diary: Diary | None = None, begin: int = 0) -> Diary:
    """So many seconds with a beat in each and nothing else."""
    diary = diary or Diary(begin)
    for second in range(1, seconds + 1):
        diary.beat(0)
        diary.turn(begin + second * SECOND)
    return diary


def test_a_quiet_time_has_its_beats_and_nothing_else() -> None:
    page = lived(20).back(T(5), T(20))
    assert page == Page(length_ns=T(5), beats=5)


def test_a_life_that_is_shorter_than_the_question_says_so() -> None:
    page = lived(3).back(T(60), T(3.5))
    assert (page.length_ns, page.beats) == (T(3.5), 3)


def test_a_late_beat_is_remembered_with_the_largest_and_the_sum() -> None:
    diary = lived(10)
    for gap in (0.2, 1.5, 0.3):
        diary.beat(T(gap))
    page = diary.back(T(5), T(13))
    assert (page.gap_max_ns, page.gap_ns, page.beats) == (T(1.5), T(2), 3 + 2)


def test_a_beat_that_is_overdue_now_counts_before_it_was_sent() -> None:
    page = lived(10).back(T(4), T(13), late_ns=T(2))
    assert (page.gap_max_ns, page.gap_ns) == (T(2), T(2))


def test_what_happened_before_the_time_in_question_is_left_out() -> None:
    diary = Diary(0)
    diary.beat(T(3))
    diary.turn(T(4))
    assert lived(10, diary, T(4)).back(T(5), T(14)).gap_ns == 0


def test_of_a_page_that_is_cut_no_more_is_told_than_fits() -> None:
    diary = Diary(0)
    diary.beat(T(3))
    diary.turn(T(4))
    page = lived(2, diary, T(4)).back(T(3), T(6))
    assert (page.length_ns, page.gap_ns, page.gap_max_ns) == (T(3), T(1), T(1))


def test_counters_are_told_by_what_they_grew_and_the_first_only_begins() -> None:
    diary = Diary(0)
    diary.effort(effort(7, 8, 9))
    diary.effort(effort(7.1, 8.2, 9.3))
    diary.turn(T(1))
    diary.effort(effort(7.2, 8.2, 9.3))
    page = diary.back(T(2), T(2))
    assert (page.run_delay_ns, page.throttled_ns, page.suspended_ns) == (T(0.2), T(0.2), T(0.3))


def test_a_counter_that_went_back_tells_nothing() -> None:
    diary = Diary(0)
    diary.effort(effort(5, 5, 5))
    diary.effort(effort(1, 1, 1))
    diary.effort(effort(1.5, 1, 1))
    assert diary.back(T(9), T(1)) == Page(length_ns=T(1), run_delay_ns=T(0.5))


@pytest.mark.parametrize("counted_first", [True, False])
def test_a_suspension_that_is_told_and_counted_is_one(counted_first: bool) -> None:
    diary = Diary(0)
    diary.effort(effort())
    for total in (3, 5):
        if counted_first:
            diary.effort(effort(suspended=total + 0.05))
            diary.suspended(T(3 if total == 3 else 2))
        else:
            diary.suspended(T(3 if total == 3 else 2))
            diary.effort(effort(suspended=total + 0.05))
        diary.turn(T(total))
    assert diary.back(T(60), T(5)).suspended_ns == T(5.05), "and the twentieth that was only counted"


def test_time_that_the_host_slept_belongs_to_the_time_in_question() -> None:
    diary = lived(10)
    diary.suspended(T(30))
    diary.beat(0)
    page = lived(1, diary, T(10)).back(T(31), T(11))
    assert (page.suspended_ns, page.length_ns) == (T(30), T(1))
    page = diary.back(T(35), T(11))
    assert (page.suspended_ns, page.length_ns, page.beats) == (T(30), T(5), 6)
    page = diary.back(T(10), T(11))
    assert (page.suspended_ns, page.length_ns, page.beats) == (T(10), 0, 0), "nothing is longer than what is asked"


@given(st.integers(0, 3000), st.integers(1, 3000), st.integers(0, 2**32))
def test_pages_are_few_and_a_whole_life_is_on_them_to_the_last_number(lives: int, since: int, seed: int) -> None:
    rng = random.Random(seed)
    diary, whole, now, counters = Diary(0), Page(), 0, [0, 0, 0]
    diary.effort(Effort(0, 0, 0))
    for _ in range(lives):
        gap = rng.choice([0, 0, MILLISECOND, 3 * SECOND])
        diary.beat(gap)
        grown = [rng.choice([0, 0, rng.randrange(SECOND)]) for _ in counters]
        counters = [counter + more for counter, more in zip(counters, grown, strict=True)]
        diary.effort(Effort(*counters))
        length = SECOND + gap
        now += length
        diary.turn(now)
        delay, throttled, suspended = grown
        whole.add(Page(length, gap, gap, delay, throttled, suspended, beats=1))
        assert len(pages_of(diary)) <= LEVELS_MAX * PAGES_OF_LEVEL_MAX
    assert diary.back(1 << 62, now) == whole
    part = diary.back(T(since), now)
    assert part.length_ns + part.suspended_ns == min(T(since), whole.length_ns + whole.suspended_ns)
    assert max(part.gap_ns, part.run_delay_ns, part.throttled_ns) <= part.length_ns


@pytest.mark.parametrize("seconds", [1700, 1800, 1777])
def test_for_half_an_hour_no_page_is_longer_than_a_seventh_of_its_age_and_a_second(seconds: int) -> None:
    diary = lived(seconds)
    age = 0
    for page in pages_of(diary):
        assert page.length_ns <= SECOND + age // 7
        age += page.length_ns
    assert age == T(seconds)


def test_of_folded_pages_an_old_stop_is_spread_and_not_moved_into_the_present() -> None:
    diary = Diary(0)
    diary.beat(T(10))
    diary.turn(T(11))
    lived(200, diary, T(11))
    assert diary.back(T(170), T(211)).gap_ns == 0
    assert 0 < diary.back(T(205), T(211)).gap_ns < T(10)
    assert diary.back(T(211), T(211)).gap_ns == T(10)
