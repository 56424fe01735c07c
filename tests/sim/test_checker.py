"""Checker: its own arithmetic. That it finds what is wrong is shown by the guards that are taken out."""

from __future__ import annotations

import random

from hbagent.sim.checker import VIOLATIONS_MAX, paused_between, silent_spans, state_at
from hbagent.sim.host import FAR, Host
from hbagent.sim.scenario import Scenario
from hbagent.sim.world import World


def host(pauses: list[list[int]], outages: list[list[int]] | None = None) -> Host:
    made = Host("node1", "agent", None, random.Random(1))
    made.pauses = pauses
    made.outages = outages or []
    return made


def test_only_the_part_of_a_pause_that_lies_between_counts() -> None:
    paused = host([[10, 20], [30, 40], [90, FAR]])
    assert paused_between(paused, 0, 100) == 30
    assert paused_between(paused, 15, 35) == 10
    assert paused_between(paused, 20, 30) == 0
    assert paused_between(paused, 95, 100) == 5


def test_a_stop_during_a_pause_is_one_silence() -> None:
    assert silent_spans(host([[10, 30]], [[20, 50], [70, FAR]])) == [(10, 50), (70, FAR)]


def test_the_state_at_an_instant_is_the_newest_verdict_until_then() -> None:
    verdicts = [(10, "ALIVE"), (20, "SUSPECT"), (30, "DEAD")]
    assert state_at(verdicts, 9) == ("", 0)
    assert state_at(verdicts, 20) == ("SUSPECT", 20)
    assert state_at(verdicts, 99) == ("DEAD", 30)


def test_a_defect_that_breaks_everything_does_not_fill_the_memory() -> None:
    world = World(Scenario())
    for at in range(1000):
        world.checker.spins(at, world.root)
    assert world.checker.count == 1000 and len(world.checker.violations) == VIOLATIONS_MAX
