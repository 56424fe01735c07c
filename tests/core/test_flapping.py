"""Flapping: one start and one end, and that it always ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core import flapping as module
from hbagent.core.config import FlapConfig
from hbagent.core.flapping import QUIET_HALF_LIVES, Flapping
from hbagent.core.states import Axis
from hbagent.core.units import DAY, MINUTE, SECOND

NODE = "d/r1/n1"
CONFIG = FlapConfig(start=3.0, stop=1.0, half_life_ns=5 * MINUTE)


def begin(flapping: Flapping, subject: str = NODE, axis: Axis = Axis.LIVENESS, now: int = 0) -> None:
    """Trouble after trouble at one moment, until it flaps."""
    for _ in range(10):
        if flapping.trouble(subject, axis, now):
            return
    raise AssertionError("it does not begin to flap")


def test_the_third_trouble_at_once_and_the_fourth_within_minutes_begin_it() -> None:
    flapping = Flapping(CONFIG)
    assert [flapping.trouble(NODE, Axis.LIVENESS, 0) for _ in range(3)] == [False, False, True]
    flapping = Flapping(CONFIG)
    assert [flapping.trouble(NODE, Axis.LIVENESS, i * MINUTE) for i in range(4)] == [False, False, False, True]


def test_one_trouble_in_each_half_life_never_flaps() -> None:
    flapping = Flapping(CONFIG)
    assert not any(flapping.trouble(NODE, Axis.LIVENESS, i * CONFIG.half_life_ns) for i in range(1000))


def test_it_is_over_at_its_deadline_and_not_before_and_is_told_once() -> None:
    flapping = Flapping(CONFIG)
    begin(flapping)
    due = flapping.deadline()
    assert due is not None
    # From the weight three down to one.
    assert due == pytest.approx(1.585 * CONFIG.half_life_ns, rel=0.001)
    assert flapping.steady(due - 1) == []
    assert flapping.is_flapping(NODE, Axis.LIVENESS)
    assert flapping.steady(due) == [(NODE, Axis.LIVENESS, "")]
    assert not flapping.is_flapping(NODE, Axis.LIVENESS)
    assert flapping.steady(due + DAY) == []
    assert flapping.deadline() is None


def test_each_further_trouble_puts_the_end_off() -> None:
    flapping = Flapping(CONFIG)
    begin(flapping)
    due = flapping.deadline()
    assert due is not None
    assert not flapping.trouble(NODE, Axis.LIVENESS, due - SECOND)
    assert flapping.steady(due) == []
    later = flapping.deadline()
    assert later is not None and later > due
    assert flapping.steady(later) == [(NODE, Axis.LIVENESS, "")]


def test_however_bad_it_was_it_is_over_within_four_half_lives() -> None:
    flapping = Flapping(CONFIG)
    for i in range(1000):
        flapping.trouble(NODE, Axis.LIVENESS, i * SECOND)
    quiet = 999 * SECOND + QUIET_HALF_LIVES * CONFIG.half_life_ns
    assert flapping.steady(quiet - MINUTE) == []
    assert flapping.steady(quiet + 1) == [(NODE, Axis.LIVENESS, "")]


def test_liveness_and_health_flap_apart() -> None:
    flapping = Flapping(CONFIG)
    begin(flapping, axis=Axis.HEALTH)
    assert flapping.is_flapping(NODE, Axis.HEALTH)
    assert not flapping.is_flapping(NODE, Axis.LIVENESS)


def test_what_was_forgotten_ends_without_a_word_and_may_begin_anew() -> None:
    flapping = Flapping(CONFIG)
    begin(flapping)
    begin(flapping, "d/r1/n2")
    flapping.forget(NODE)
    assert not flapping.is_flapping(NODE, Axis.LIVENESS)
    assert not flapping.trouble(NODE, Axis.LIVENESS, 1)
    begin(flapping, now=2)
    assert sorted(flapping.steady(DAY)) == [(NODE, Axis.LIVENESS, ""), ("d/r1/n2", Axis.LIVENESS, "")]


class Compared(str):
    """A name that counts how often it is compared with another."""

    times = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Compared.times += 1
        return str.__eq__(self, other)

    __ne__ = str.__ne__


def test_one_of_many_is_forgotten_without_looking_at_the_others() -> None:
    flapping = Flapping(CONFIG)
    for number in range(500):
        begin(flapping, f"d/r1/n{number}")
        flapping.trouble(f"d/r2/n{number}", Axis.HEALTH, 0, "part")

    for number in range(10):
        flapping.forget(Compared(f"d/r1/n{number}"))
        flapping.forget(Compared(f"d/r2/n{number}"))

    assert Compared.times <= 100
    assert not flapping.is_flapping("d/r1/n9", Axis.LIVENESS)
    assert flapping.is_flapping("d/r1/n10", Axis.LIVENESS)
    assert len(flapping.steady(DAY)) == 490


def test_what_is_forgotten_and_begins_again_and_again_is_remembered_once() -> None:
    flapping = Flapping(CONFIG)
    for _ in range(100):
        begin(flapping)
        begin(flapping, axis=Axis.HEALTH)
        flapping.forget(NODE)
    assert flapping.deadline() is None, "nothing is left to look at"
    begin(flapping)
    assert flapping.steady(DAY) == [(NODE, Axis.LIVENESS, "")]


def test_what_flapped_in_an_earlier_life_is_taken_up_and_ends_once() -> None:
    flapping = Flapping(CONFIG)
    flapping.resume(NODE, Axis.LIVENESS, 0)
    flapping.resume(NODE, Axis.LIVENESS, 0)
    assert flapping.is_flapping(NODE, Axis.LIVENESS)
    assert not flapping.trouble(NODE, Axis.LIVENESS, 1)
    assert flapping.steady(DAY) == [(NODE, Axis.LIVENESS, "")]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20 * MINUTE)), max_size=60),
    st.floats(1.5, 6.0),
)
def test_starts_and_ends_take_turns_and_it_ends_within_four_half_lives(
    troubles: list[tuple[int, int]], start: float
) -> None:
    config = FlapConfig(start=start, stop=1.0, half_life_ns=5 * MINUTE)
    flapping = Flapping(config)
    now = 0
    on: dict[str, int] = {}
    for number, wait in troubles:
        now += wait
        for subject, *_ in flapping.steady(now):
            del on[subject]
        subject = f"d/r1/n{number}"
        began = flapping.trouble(subject, Axis.LIVENESS, now)
        assert began <= (subject not in on)
        if began or subject in on:
            on[subject] = now
        assert flapping.is_flapping(subject, Axis.LIVENESS) == (subject in on)
        assert (flapping.deadline() is None) == (not on)
    assert len(flapping.steady(now + QUIET_HALF_LIVES * config.half_life_ns + 1)) == len(on)
    assert flapping.deadline() is None


def test_a_flood_under_many_names_takes_no_memory_and_what_flaps_is_not_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "KEYS_MAX", 10)
    flapping = Flapping(CONFIG)
    begin(flapping)
    for i in range(100):
        flapping.trouble(f"d/r2/n{i}", Axis.LIVENESS, i)
        assert len(flapping._calm) + len(flapping._flapping) <= 10
    assert flapping.is_flapping(NODE, Axis.LIVENESS)
    for i in range(100):
        for _ in range(5):
            flapping.trouble(f"d/r3/n{i}", Axis.LIVENESS, 100)
    assert len(flapping._flapping) == 10
    assert len(flapping._due) == 10


def test_what_was_calm_for_long_is_forgotten_at_the_next_trouble() -> None:
    flapping = Flapping(CONFIG)
    flapping.trouble(NODE, Axis.LIVENESS, 0)
    flapping.trouble("d/r1/n2", Axis.LIVENESS, 1 * DAY)
    assert list(flapping._calm) == [("d/r1/n2", Axis.LIVENESS, "")]
