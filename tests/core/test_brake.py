"""Brake: how many notifications one receiver gets one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.brake import Brake
from hbagent.core.config import BrakeConfig
from hbagent.core.units import SECOND

CONFIG = BrakeConfig(window_ns=10 * SECOND, node_max=2, rack_max=3, all_max=5)


def sent(brake: Brake, *subjects: str, now: int = 0, receiver: str = "page") -> list[str]:
    return [brake.admit(receiver, subject, subject.rpartition("/")[0], now) for subject in subjects]


def test_each_limit_is_named_when_it_is_reached() -> None:
    brake = Brake(CONFIG)
    assert sent(brake, "d/r1/a", "d/r1/a", "d/r1/a") == ["", "", "node"]
    assert sent(brake, "d/r1/b", "d/r1/c") == ["", "rack"]
    assert sent(brake, "d/r2/a", "d/r3/a", "d/r4/a") == ["", "", "all"]


def test_what_is_about_no_rack_counts_for_no_rack() -> None:
    brake = Brake(CONFIG)
    assert [brake.admit("page", f"d/leader{i}", "", 0) for i in range(6)] == ["", "", "", "", "", "all"]


def test_receivers_are_counted_apart() -> None:
    brake = Brake(CONFIG)
    assert sent(brake, "d/r1/a", "d/r1/a") == ["", ""]
    assert sent(brake, "d/r1/a", receiver="mail") == [""]
    assert sent(brake, "d/r1/a") == ["node"]


def test_what_was_sent_a_window_ago_counts_no_more_and_not_a_moment_earlier() -> None:
    brake = Brake(CONFIG)
    assert sent(brake, "d/r1/a", "d/r1/a", now=5) == ["", ""]
    assert sent(brake, "d/r1/a", now=5 + CONFIG.window_ns - 1) == ["node"]
    assert sent(brake, "d/r1/a", now=5 + CONFIG.window_ns) == [""]


def test_what_was_refused_does_not_count() -> None:
    brake = Brake(CONFIG)
    sent(brake, "d/r1/a", "d/r1/a")
    for now in range(SECOND, CONFIG.window_ns, SECOND):
        assert sent(brake, "d/r1/a", now=now) == ["node"]
    assert sent(brake, "d/r1/a", now=CONFIG.window_ns) == [""]


@given(st.lists(st.tuples(st.integers(0, 4 * SECOND), st.integers(0, 2), st.integers(0, 3)), max_size=80))
def test_no_window_has_more_than_the_limits_and_no_more_is_refused_than_they_demand(
    steps: list[tuple[int, int, int]],
) -> None:
    brake = Brake(CONFIG)
    now = 0
    admitted: list[tuple[int, str, str]] = []
    for wait, rack_number, node in steps:
        now += wait
        rack = f"d/r{rack_number}"
        subject = f"{rack}/n{node}"
        within = [each for each in admitted if each[0] > now - CONFIG.window_ns]
        full = {
            "node": sum(each[1] == subject for each in within) >= CONFIG.node_max,
            "rack": sum(each[2] == rack for each in within) >= CONFIG.rack_max,
            "all": len(within) >= CONFIG.all_max,
        }
        verdict = brake.admit("page", subject, rack, now)
        assert verdict == next((limit for limit, reached in full.items() if reached), "")
        if not verdict:
            admitted.append((now, subject, rack))
