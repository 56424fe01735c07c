"""The brake on restarting units."""

from __future__ import annotations

import pytest

from hbagent.core.restarts import Restarts
from hbagent.core.units import MINUTE


def test_three_in_ten_minutes_and_no_more_until_the_first_is_older_than_that() -> None:
    restarts = Restarts(3, 10 * MINUTE)
    assert [restarts.may("web", at * MINUTE) for at in range(5)] == [True, True, True, False, False]
    assert restarts.may("web", 10 * MINUTE + 1)
    assert not restarts.may("web", 10 * MINUTE + 2)


def test_units_do_not_share_the_brake() -> None:
    restarts = Restarts(1, MINUTE)
    assert restarts.may("a", 0) and restarts.may("b", 0) and not restarts.may("a", 0)


def test_giving_up_is_said_once_until_the_next_restart() -> None:
    restarts = Restarts(1, MINUTE)
    restarts.may("web", 0)
    assert [restarts.give_up("web"), restarts.give_up("web")] == [True, False]
    assert restarts.may("web", 2 * MINUTE) and restarts.give_up("web")


def test_what_an_earlier_life_restarted_counts() -> None:
    before = Restarts(2, 10 * MINUTE)
    before.may("web", MINUTE)
    before.may("web", 2 * MINUTE)
    after = Restarts(2, 10 * MINUTE)
    after.restore(before.keep(3 * MINUTE), 100 * MINUTE)
    assert not after.may("web", 101 * MINUTE)
    assert after.may("web", 108 * MINUTE + 1)


@pytest.mark.parametrize("kept", [None, 7, [], {"web": 7}, {"web": ["x", -1, None]}, {7: [1]}])
def test_a_memory_that_makes_no_sense_is_passed_over(kept: object) -> None:
    restarts = Restarts(1, MINUTE)
    restarts.restore(kept, 0)
    assert restarts.may("web", 0)
