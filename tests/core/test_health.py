"""What parts come to together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.health import combined, worse, worst
from hbagent.core.states import HEALTH_ORDER, Health

OK, WARN, CRIT, DEADLOCKED = Health.OK, Health.WARNING, Health.CRITICAL, Health.DEADLOCKED
PARTS = st.lists(st.tuples(st.sampled_from(Health), st.floats(0, 10, allow_subnormal=False)), max_size=8)


def test_the_worst_part_decides_whatever_its_weight() -> None:
    assert combined([(OK, 100.0), (CRIT, 0.1), (WARN, 50.0)]) is CRIT
    assert combined([(OK, 1.0), (Health.UNKNOWN, 1.0)]) is Health.UNKNOWN
    assert combined([]) is OK


@pytest.mark.parametrize(
    ("parts", "health"),
    [
        ([(CRIT, 1.0), (OK, 1.0)], CRIT),
        ([(CRIT, 1.0), (OK, 2.0)], WARN),
        ([(CRIT, 1.0), (DEADLOCKED, 1.0), (OK, 2.0)], CRIT),
        ([(DEADLOCKED, 0.0), (OK, 1.0)], OK),
        ([(DEADLOCKED, 0.0)], OK),
        ([(WARN, 0.1), (OK, 9.0)], WARN),
    ],
)
def test_with_a_quorum_a_state_counts_once_enough_weight_is_in_it_or_beyond(
    parts: list[tuple[Health, float]], health: Health
) -> None:
    assert combined(parts, 0.5) is health


@given(PARTS)
def test_the_whole_is_ok_without_a_quorum_exactly_when_all_parts_are(parts: list[tuple[Health, float]]) -> None:
    assert (combined(parts) is OK) == all(health is OK for health, _ in parts)


@given(PARTS, st.floats(0.01, 1))
def test_a_quorum_makes_nothing_worse_and_hides_no_part_that_counts(
    parts: list[tuple[Health, float]], quorum: float
) -> None:
    whole = combined(parts, quorum)
    assert worse(whole, combined(parts)) is combined(parts) or whole is WARN
    counting = [health for health, weight in parts if weight > 0]
    assert (whole is OK) == all(health is OK for health in counting)


def test_worse_follows_the_order() -> None:
    for rank, health in enumerate(HEALTH_ORDER):
        for other in HEALTH_ORDER[rank:]:
            assert worse(health, other) is worse(other, health) is health


def test_the_worst_of_several_is_by_order_and_of_none_is_ok() -> None:
    assert worst([Health.WARNING, Health.UNKNOWN, Health.OK]) is Health.UNKNOWN
    assert worst([Health.UNKNOWN, Health.CRITICAL]) is Health.CRITICAL
    assert worst([]) is Health.OK
