"""One symbol for whatever is worst, and never a colour alone."""

from __future__ import annotations

import itertools

import pytest

from hbagent.core.states import Health, Liveness
from hbagent.web.looks import LOOK, LOOKS, look_of, marked, tone_of, verdict_of
from tests.web.parts import cell


@pytest.mark.parametrize(
    ("liveness", "health", "cause", "look"),
    [
        ("ALIVE", "OK", None, "alive"),
        ("ALIVE", "UNKNOWN", None, "blank"),
        ("ALIVE", "OK", "link-cut", "cut"),
        ("ALIVE", "DEADLOCKED", "link-cut", "deadlocked"),
        ("ALIVE", "WARNING", None, "warning"),
        ("SUSPECT", "OK", "silence", "suspect"),
        ("SUSPECT", "CRITICAL", "silence", "critical"),
        ("SUSPECT", "WARNING", "silence", "suspect"),
        ("DEAD", "UNKNOWN", "host-gone", "dead"),
        ("UNKNOWN", "UNKNOWN", "leader-lost", "unknown"),
        ("LEFT", "UNKNOWN", "left", "left"),
        ("LEFT", "CRITICAL", "left", "left"),
    ],
)
def test_the_worst_of_a_node_is_shown(liveness: str, health: str, cause: str | None, look: str) -> None:
    assert look_of(cell(liveness=liveness, health=health, cause=cause)) == look


def test_nothing_but_a_plain_alive_and_ok_looks_well() -> None:
    green = [
        (liveness, health)
        for liveness, health in itertools.product(Liveness, Health)
        if LOOK[look_of(cell(liveness=liveness.value, health=health.value))].tone == "good"
    ]
    assert green == [(Liveness.ALIVE, Health.OK)]


def test_every_look_has_a_symbol_of_its_own() -> None:
    assert len({look.symbol for look in LOOKS}) == len(LOOKS)
    assert all(len(look.symbol) == 1 for look in LOOKS)


@pytest.mark.parametrize(
    ("counts", "states", "verdict"),
    [
        ({"alive": 9, "left": 1, "blank": 1}, {"OK": 2}, "OK"),
        ({"suspect": 1, "alive": 9}, {"DEGRADED": 1}, "WARNING"),
        ({"cut": 1, "alive": 9}, {"DEGRADED": 1}, "OK"),
        ({"unknown": 1, "suspect": 1}, {}, "UNKNOWN"),
        ({"alive": 9}, {"LEADER-LOST": 1}, "UNKNOWN"),
        ({"critical": 1, "unknown": 5}, {}, "CRITICAL"),
        ({"unknown": 5}, {"DARK": 1}, "CRITICAL"),
    ],
)
def test_the_verdict_has_the_grades_of_the_command_line(
    counts: dict[str, int], states: dict[str, int], verdict: str
) -> None:
    assert verdict_of(counts, states)[0] == verdict


def test_a_word_of_a_newer_version_is_unknown_and_not_green() -> None:
    assert tone_of("SPLENDID") == "unknown"
    assert marked("SPLENDID") == "? SPLENDID"
    assert (marked("ALIVE"), marked("DEAD"), marked("LEADER-LOST")) == ("✓ ALIVE", "✗ DEAD", "? LEADER-LOST")
