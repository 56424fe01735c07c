"""Soft and hard states of a probe."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.standing import Standing
from hbagent.core.states import Health

OK, WARN, CRIT, UNKNOWN = Health.OK, Health.WARNING, Health.CRITICAL, Health.UNKNOWN


def after(*runs: Health, rise: int = 2, fall: int = 3, patient: bool = False) -> Standing:
    standing = Standing(0)
    for at, found in enumerate(runs):
        standing.take(found, at, rise=rise, fall=fall, patient=patient)
    return standing


@pytest.mark.parametrize(
    ("runs", "hard", "soft", "attempts"),
    [
        ((), None, None, 0),
        ((OK,), OK, None, 0),
        ((CRIT,), None, CRIT, 1),
        ((CRIT, CRIT, CRIT), CRIT, None, 0),
        ((OK, CRIT, CRIT), OK, CRIT, 2),
        ((OK, CRIT, CRIT, OK), OK, None, 0),
        ((OK, CRIT, CRIT, OK, CRIT, CRIT), OK, CRIT, 2),
        ((OK, WARN, CRIT, UNKNOWN), UNKNOWN, None, 0),
        ((OK, CRIT, CRIT, CRIT, OK), CRIT, OK, 1),
        ((OK, CRIT, CRIT, CRIT, OK, CRIT, OK), CRIT, OK, 1),
        ((OK, CRIT, CRIT, CRIT, OK, OK), OK, None, 0),
        ((OK, CRIT, CRIT, CRIT, WARN), WARN, None, 0),
    ],
)
def test_what_runs_come_to(runs: tuple[Health, ...], hard: Health | None, soft: Health | None, attempts: int) -> None:
    standing = after(*runs)
    assert (standing.health, standing.soft, standing.attempts) == (hard, soft, attempts)


def test_the_hard_state_is_as_old_as_the_run_that_made_it() -> None:
    assert after(OK, CRIT, CRIT, CRIT, CRIT, CRIT).since == 3
    assert after(OK, OK, OK).since == 0


def test_what_never_was_good_may_fail_for_free_while_one_is_patient() -> None:
    assert after(*[CRIT] * 10, patient=True).health is None
    assert after(OK, CRIT, CRIT, CRIT, patient=True).health is CRIT


@given(st.lists(st.sampled_from(Health), max_size=40), st.integers(1, 5), st.integers(1, 5))
def test_a_hard_state_never_changes_between_good_and_bad_without_its_number_of_runs(
    runs: list[Health], rise: int, fall: int
) -> None:
    standing = Standing(0)
    for at, found in enumerate(runs):
        before = standing.health
        changed = standing.take(found, at, rise=rise, fall=fall)
        assert changed == (standing.health is not before)
        if changed and before is not None and (before is OK) != (standing.health is OK):
            needed = rise if standing.health is OK else fall
            assert all((run is OK) == (standing.health is OK) for run in runs[at + 1 - needed : at + 1])
            assert at + 1 >= needed
