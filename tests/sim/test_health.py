"""The checker's row on health: green whatever else goes wrong, and red without each of the guards that keep it so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from hbagent.core import leader as leader_module
from hbagent.core import weighing
from hbagent.core.healthrecord import HealthRecord, News
from hbagent.core.messages import Transition
from hbagent.core.states import Health
from hbagent.core.units import SECOND
from hbagent.sim.run import play, simulate
from hbagent.sim.scenario import Scenario
from hbagent.sim.world import World

#: Seeds that are tried until the row turns red.
SEEDS = 25
FAULTS = ("quiet", "leader-restart", "leader-frozen", "root-restart", "agent-crash", "loss")
TROUBLES = ("app-stuck", "prober-stuck")
Off = Callable[[pytest.MonkeyPatch], None]


def played(seed: int, *faults: str, leaders: int = 2) -> World:
    world = World(Scenario(seed=seed, leaders=leaders, faults=(*faults, *TROUBLES)))
    play(world)
    return world


def assert_told(fault: str, leaders: int, seed: int) -> None:
    """Every change that lasts was told in time, and once."""
    world = played(seed, fault, leaders=leaders)
    assert world.checker.violations == [], world.scenario.command()


@pytest.mark.parametrize("leaders", [1, 2])
@pytest.mark.parametrize("fault", FAULTS)
def test_every_change_that_lasts_is_told_in_time_and_once_whatever_else_goes_wrong(fault: str, leaders: int) -> None:
    assert_told(fault, leaders, 0)


@pytest.mark.slow
@pytest.mark.parametrize("leaders", [1, 2])
@pytest.mark.parametrize("fault", FAULTS)
def test_every_change_that_lasts_is_told_in_time_and_once_with_many_seeds(fault: str, leaders: int) -> None:
    for seed in range(1, 10):
        assert_told(fault, leaders, seed)


def test_much_of_it_is_checked_and_nothing_of_it_is_missing() -> None:
    world = played(1, "quiet")
    health = world.checker.health
    assert health.changes > 10
    assert health.in_time > health.changes // 2
    assert world.checker.kinds["health-changed"] >= 6


@pytest.mark.slow
def test_health_makes_no_other_event_and_changes_none() -> None:
    for seed in range(8):
        calm = simulate(Scenario(seed=seed, faults=("agent-crash", "host-gone")))
        ill = simulate(Scenario(seed=seed, faults=("agent-crash", "host-gone", *TROUBLES)))
        others = {kind: count for kind, count in ill.kinds.items() if kind != "health-changed"}
        assert "health-changed" in ill.kinds
        assert others.keys() == calm.kinds.keys()
        assert others["node-dead"] == calm.kinds["node-dead"]


def healed_in_an_outage(bad_first: bool) -> list[str]:
    """The only leader is away while an application on one of its nodes changes."""
    world = World(Scenario(hosts=4, racks=1, seconds=60))
    (leader,), host = world.leaders, world.agents[0]
    world.start_all()
    if bad_first:
        world.push(6 * SECOND, world.become, host, Health.DEADLOCKED)
    world.push(12 * SECOND, world.crash, leader)
    world.push(14 * SECOND, world.become, host, Health.OK if bad_first else Health.DEADLOCKED)
    world.push(16 * SECOND, world.start, leader)
    world.run(60 * SECOND)
    world.checker.finish(world.now, 16 * SECOND)
    return world.checker.violations


@pytest.mark.parametrize("bad_first", [True, False])
def test_what_changed_while_the_leader_was_away_is_read_from_rows(
    bad_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert healed_in_an_outage(bad_first) == []
    monkeypatch.setattr(HealthRecord, "overdue", lambda self, patience_ns, now: False)
    assert any("health:" in line for line in healed_in_an_outage(bad_first))


# ---- guards ----------------------------------------------------------------------------------------------


def deaf_leader(patch: pytest.MonkeyPatch) -> None:
    """Reports are taken in and compared with nothing."""
    patch.setattr(leader_module, "weigh", lambda member: ())
    patch.setattr(leader_module, "look_at", lambda members: ())
    patch.setattr(HealthRecord, "overdue", lambda self, patience_ns, now: False)


def twice(patch: pytest.MonkeyPatch) -> None:
    """Every leader's word is news."""

    def take(self: HealthRecord, said: Transition) -> News:
        self.value, self.known = said.health_after, True
        return News(said.health_before, said.health_after, said.evidence.changes)

    patch.setattr(HealthRecord, "take", take)


def no_order(patch: pytest.MonkeyPatch) -> None:
    """What a slower leader tells of an older report counts as much."""
    whole = HealthRecord.take

    def take(self: HealthRecord, said: Transition) -> News | None:
        self.report = self.sequence = 0
        return whole(self, said)

    patch.setattr(HealthRecord, "take", take)


def impatient(patch: pytest.MonkeyPatch) -> None:
    """A prober is stuck as soon as two beats bring the same mark."""

    def look(member: Any) -> bool:
        was, member.stalled = member.stalled, bool(member.report) and member.progress == member.mark
        member.mark = member.progress
        return was is not member.stalled

    patch.setattr(weighing, "look", look)


def forgetful_root(patch: pytest.MonkeyPatch) -> None:
    """What was told is not kept on disk."""
    patch.setattr(HealthRecord, "fill", lambda self, state: msgspec.structs.replace(state, health=Health.OK))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("off", "fault", "leaders"),
    [
        (deaf_leader, "quiet", 1),
        (twice, "quiet", 2),
        (no_order, "leader-frozen", 2),
        (impatient, "quiet", 1),
        (forgetful_root, "root-restart", 2),
    ],
    ids=lambda value: value.__name__ if callable(value) else value,
)
def test_without_the_guard_the_row_turns_red(
    off: Off, fault: str, leaders: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def violations(seed: int) -> list[str]:
        return played(seed, fault, leaders=leaders).checker.violations

    with monkeypatch.context() as patch:
        off(patch)
        red = next((seed for seed in range(SEEDS) if any("health:" in line for line in violations(seed))), None)
    assert red is not None
    assert violations(red) == []
