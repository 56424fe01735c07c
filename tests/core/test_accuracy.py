"""The book of verdicts: who was called dead, who came back, and for how long the living were watched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core import accuracy as accuracy_module
from hbagent.core.accuracy import CONVICTIONS_MAX, NODE_YEAR_NS, Accuracy, percentile
from hbagent.core.records import Conviction, Restored
from hbagent.core.states import Cause
from tests.build import INCARNATION, NODE, NODE2, WALL_NS, T


def conviction(number: int = 1, node: str = NODE, cause: Cause = Cause.SILENCE, **fields: object) -> Conviction:
    defaults = {"event_id": f"e-{number}", "at_wall_ns": WALL_NS + T(number), "detection_ns": T(number)}
    return Conviction(**{**defaults, "node": node, "cause": cause, "incarnation": INCARNATION, **fields})  # type: ignore[arg-type]


def test_who_comes_back_in_the_same_life_was_not_dead() -> None:
    book = Accuracy(1)
    book.convict(conviction(1))
    wrong = book.back(NODE, INCARNATION, WALL_NS + T(4))
    assert wrong is not None and wrong.back_after_ns == T(3)
    assert (book.told(), book.wrong()) == (1, 1)
    assert book.back(NODE, INCARNATION, WALL_NS + T(9)) is None, "and is booked once"
    assert book.mistakes(5) == [wrong]


def test_who_comes_back_in_another_life_was_dead() -> None:
    book = Accuracy(1)
    book.convict(conviction(1))
    assert book.back(NODE, INCARNATION + 1, WALL_NS + T(4)) is None
    assert book.back(NODE, None, WALL_NS + T(4)) is None
    assert book.back(NODE2, INCARNATION, WALL_NS + T(4)) is None
    assert (book.told(), book.wrong()) == (1, 0)


def test_the_reason_of_a_wrong_verdict_is_the_first_that_its_node_gives() -> None:
    book = Accuracy(1)
    book.convict(conviction(1))
    assert book.account(NODE, INCARNATION, "too early") is None, "it is not yet back"
    book.back(NODE, INCARNATION, WALL_NS + T(4))
    assert book.account(NODE, INCARNATION + 1, "another life") is None
    told = book.account(NODE, INCARNATION, "its loop stood still")
    assert told is not None and (told.reason, told.wrong) == ("its loop stood still", True)
    assert book.account(NODE, INCARNATION, "the other leader's word") is None


def test_counts_and_detection_times_are_told_by_cause() -> None:
    book = Accuracy(1)
    for number in range(1, 101):
        book.convict(conviction(number, f"dc1/rack1/n{number}", Cause.HOST_GONE))
    book.convict(conviction(500, cause=Cause.PROCESS_FROZEN))
    book.back(NODE, INCARNATION, WALL_NS + T(600))
    assert book.causes() == [Cause.HOST_GONE, Cause.PROCESS_FROZEN]
    assert [book.told(cause) for cause in (None, *book.causes())] == [101, 100, 1]
    assert [book.wrong(cause) for cause in (None, *book.causes())] == [1, 0, 1]
    assert percentile(book.detections(Cause.HOST_GONE), 50) == T(50)
    assert percentile(book.detections(Cause.HOST_GONE), 99) == T(99)
    assert book.detections(Cause.PROCESS_FROZEN) == [], "what was wrong has detected nothing"


def test_a_rate_is_per_year_that_living_nodes_were_watched() -> None:
    book = Accuracy(1)
    assert book.per_node_year(1) is None
    book.watch(NODE_YEAR_NS // 4)
    book.watch(NODE_YEAR_NS // 4)
    assert book.per_node_year(3) == 6.0


def test_old_verdicts_are_summed_up_and_counts_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy_module, "CONVICTIONS_MAX", 3)
    book = Accuracy(1)
    folded = []
    for number in range(1, 6):
        folded += book.convict(conviction(number))
        book.back(NODE, INCARNATION, WALL_NS + T(number + 1))
    assert folded == ["e-1", "e-2"]
    assert (book.kept, book.told(Cause.SILENCE), book.wrong(Cause.SILENCE)) == (3, 5, 5)
    assert (book.tally().told, book.tally().wrong) == ({"silence": 2}, {"silence": 2})
    assert CONVICTIONS_MAX == 10_000


def test_a_node_whose_verdict_was_summed_up_is_booked_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy_module, "CONVICTIONS_MAX", 1)
    book = Accuracy(1)
    book.convict(conviction(1))
    book.convict(conviction(2, NODE2))
    assert book.back(NODE, INCARNATION, WALL_NS + T(9)) is None
    assert book.account(NODE, INCARNATION, "late") is None


def test_the_next_life_goes_on_and_takes_over_every_tally() -> None:
    first = Accuracy(1)
    first.watch(T(100))
    first.since_wall_ns = WALL_NS
    first.convict(conviction(1))
    blind = Accuracy(2)
    blind.watch(T(7))
    blind.since_wall_ns = WALL_NS + T(50)
    third = Accuracy(3, Restored(tallies=(first.tally(), blind.tally()), convictions=(conviction(1),)))
    assert (third.watched_ns, third.since_wall_ns, third.told()) == (T(107), WALL_NS, 1)
    tally = third.tally()
    assert (tally.life, tally.replaces, tally.watched_ns) == (3, (1, 2), T(107))
    assert third.back(NODE, INCARNATION, WALL_NS + T(9)) is not None


@given(st.lists(st.integers(0, 1000), min_size=1), st.integers(1, 100))
def test_a_percentile_is_the_nearest_rank(values: list[int], percent: int) -> None:
    values.sort()
    found = percentile(values, percent)
    assert found in values and found is not None
    assert 100 * sum(value <= found for value in values) >= percent * len(values)
    assert 100 * sum(value < found for value in values) < percent * len(values)


def test_without_values_there_is_no_percentile() -> None:
    assert percentile([], 50) is None
