"""The waits of a refused caller: bounded, growing, spread."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.units import SECOND
from hbagent.transport.backoff import BACKOFF_MAX_NS, BACKOFF_MIN_NS, Backoff


def waits(seed: int, count: int) -> list[int]:
    backoff = Backoff(Random(seed))
    now, found = 0, []
    for _ in range(count):
        at = backoff.refused(now)
        found.append(at - now)
        now = at
        assert backoff.due(now)
    return found


@given(st.integers(), st.integers(1, 40))
def test_every_wait_is_within_its_bounds(seed: int, count: int) -> None:
    for number, wait in enumerate(waits(seed, count), start=1):
        assert BACKOFF_MIN_NS <= wait <= min(BACKOFF_MAX_NS, BACKOFF_MIN_NS * 2**number)


def test_the_waits_grow_to_the_longest_and_two_callers_are_not_in_step() -> None:
    assert max(waits(1, 30)) > 45 * SECOND
    assert len({waits(seed, 1)[0] for seed in range(50)}) == 50


def test_the_same_seed_gives_the_same_waits() -> None:
    assert waits(7, 10) == waits(7, 10)


def test_it_is_due_once_and_not_early() -> None:
    backoff = Backoff(Random(1))
    assert not backoff.due(0)
    at = backoff.refused(0)
    assert backoff.retry_at == at
    assert not backoff.due(at - 1)
    assert backoff.due(at)
    assert not backoff.due(at)


def test_a_second_refusal_while_waiting_changes_nothing() -> None:
    backoff = Backoff(Random(1))
    at = backoff.refused(0)
    assert backoff.refused(SECOND) == at


def test_an_admission_starts_over() -> None:
    backoff = Backoff(Random(1))
    for _ in range(10):
        assert backoff.due(backoff.refused(0))
    backoff.refused(0)
    backoff.admitted()
    assert backoff.retry_at is None
    assert backoff.refused(0) <= 2 * BACKOFF_MIN_NS


@pytest.mark.parametrize(("minimum", "maximum"), [(0, 1), (2, 1), (-1, 5)])
def test_senseless_bounds_are_refused(minimum: int, maximum: int) -> None:
    with pytest.raises(ValueError, match="needs 0 < minimum <= maximum"):
        Backoff(Random(1), minimum, maximum)
