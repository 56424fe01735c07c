"""Order: which of a sender's beats is news."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.order import RETIRED_MAX, Order, Verdict

BEATS = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 30)), max_size=120)


class NaiveOrder:
    """The same rules over the whole history of beats, without anything forgotten but the oldest retired."""

    def __init__(self) -> None:
        self.lives: list[tuple[int, list[int]]] = []

    def judge(self, incarnation: int, sequence: int) -> Verdict:
        if not self.lives or incarnation not in [life for life, _ in self.lives]:
            self.lives.append((incarnation, [sequence]))
            self.lives = self.lives[-RETIRED_MAX - 1 :]
            return Verdict.FRESH if len(self.lives) == 1 else Verdict.RESTART
        current, heard = self.lives[-1]
        if incarnation != current:
            return Verdict.RETIRED
        if sequence in heard and sequence == max(heard):
            return Verdict.DUPLICATE
        if sequence < max(heard):
            return Verdict.STALE
        heard.append(sequence)
        return Verdict.FRESH

    @property
    def lost(self) -> int:
        heard = self.lives[-1][1] if self.lives else []
        return sum(after - before - 1 for before, after in pairwise(heard))


@given(BEATS)
def test_every_history_is_judged_as_the_naive_model_judges_it(beats: list[tuple[int, int]]) -> None:
    order, naive = Order(), NaiveOrder()
    for incarnation, sequence in beats:
        assert order.judge(incarnation, sequence) is naive.judge(incarnation, sequence)
        assert (order.incarnation, order.sequence) == (naive.lives[-1][0], max(naive.lives[-1][1]))
        assert order.lost == naive.lost
        assert order.retired == [life for life, _ in naive.lives[:-1]]


@given(BEATS)
def test_within_an_incarnation_the_sequence_never_moves_back(beats: list[tuple[int, int]]) -> None:
    order = Order()
    for incarnation, sequence in beats:
        before = (order.incarnation, order.sequence)
        order.judge(incarnation, sequence)
        if order.incarnation == before[0]:
            assert order.sequence >= before[1]


def test_the_first_beat_is_fresh_and_what_was_sent_before_it_is_not_lost() -> None:
    order = Order()
    assert order.judge(7, 500) is Verdict.FRESH
    assert order.lost == 0


def test_a_gap_counts_as_lost() -> None:
    order = Order()
    order.judge(7, 1)
    order.judge(7, 5)
    assert order.lost == 3


def test_a_copy_and_an_overtaken_beat_change_nothing() -> None:
    order = Order()
    order.judge(7, 5)
    assert order.judge(7, 5) is Verdict.DUPLICATE
    assert order.judge(7, 4) is Verdict.STALE
    assert (order.incarnation, order.sequence, order.lost) == (7, 5, 0)


def test_an_incarnation_never_met_replaces_the_current_one_whatever_its_number() -> None:
    order = Order()
    order.judge(7, 900)
    order.judge(7, 950)
    assert order.judge(3, 1) is Verdict.RESTART
    assert (order.incarnation, order.sequence, order.lost, order.retired) == (3, 1, 0, [7])


def test_a_replaced_incarnation_that_beats_again_changes_nothing() -> None:
    order = Order()
    order.judge(7, 900)
    order.judge(3, 1)
    assert order.judge(7, 901) is Verdict.RETIRED
    assert (order.incarnation, order.sequence) == (3, 1)


def test_a_crash_loop_keeps_a_bounded_list_of_its_lives() -> None:
    order = Order()
    for incarnation in range(100):
        order.judge(incarnation, 1)
    assert order.retired == list(range(99 - RETIRED_MAX, 99))


def test_a_restored_pair_goes_on_without_counting_the_absence_as_loss() -> None:
    order = Order()
    order.restore(7, 100, [1, 2])
    assert order.judge(7, 100) is Verdict.DUPLICATE
    assert order.judge(7, 160) is Verdict.FRESH
    assert order.lost == 0
    assert order.judge(7, 162) is Verdict.FRESH
    assert order.lost == 1
    assert order.judge(2, 9) is Verdict.RETIRED


def test_a_gap_after_a_usual_beat_taken_in_by_hand_counts_even_after_a_restore() -> None:
    order = Order()
    order.restore(7, 100)
    order.sequence += 1
    order.judge(7, 104)
    assert order.lost == 2


def test_a_gap_of_the_incarnation_after_a_restored_one_counts() -> None:
    order = Order()
    order.restore(7, 100)
    order.judge(8, 100)
    order.judge(8, 105)
    assert order.lost == 4


def test_restoring_starts_the_count_of_losses_again() -> None:
    order = Order()
    order.judge(7, 1)
    order.judge(7, 9)
    order.restore(7, 9)
    assert order.lost == 0


def test_restoring_too_many_or_contradicting_lives_keeps_the_newest_and_never_retires_the_current() -> None:
    order = Order()
    order.restore(50, 1, range(60))
    assert order.retired == [52, 53, 54, 55, 56, 57, 58, 59]
    order.restore(59, 1, range(60))
    assert order.retired == [51, 52, 53, 54, 55, 56, 57, 58]
    assert order.judge(59, 2) is Verdict.FRESH
