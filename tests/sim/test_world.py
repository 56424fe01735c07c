"""World: the driver of the simulation does what the production loop does."""

from __future__ import annotations

import pytest

from hbagent.core.agent import AgentCore
from hbagent.core.units import SECOND
from hbagent.sim.run import play
from hbagent.sim.scenario import Scenario
from hbagent.sim.world import World


def small(seconds: int = 60) -> World:
    """A datacenter of four hosts in which nothing goes wrong."""
    world = World(Scenario(hosts=4, racks=1, seconds=seconds), keep_trace=True)
    world.start_all()
    world.run(5 * SECOND)
    return world


def said(world: World, words: str) -> list[str]:
    return [line for line in world.trace.lines if words in line]


def test_a_leader_that_stood_still_takes_in_what_waited_before_it_judges() -> None:
    world = small()
    (leader,) = world.leaders
    world.pause(world.now, leader)
    world.run(20 * SECOND)
    assert len(leader.inbox) > 4 * 14
    world.resume(world.now, leader)
    world.run(40 * SECOND)
    assert said(world, "happened") and not said(world, "node-suspect")


def test_a_process_that_was_killed_forgets_all_but_its_disk() -> None:
    world = small()
    (leader,) = world.leaders
    known = {name: member.order.incarnation for name, member in leader.core.roster.members.items()}
    epoch = leader.core.epoch
    world.crash(world.now, leader)
    assert not leader.runs
    world.run(7 * SECOND)
    world.start(world.now, leader)
    assert leader.core.epoch != epoch
    assert {name: member.order.incarnation for name, member in leader.core.roster.members.items()} == known


def test_what_a_dead_process_ordered_does_not_reach_the_next() -> None:
    world = small()
    agent = world.agents[0]
    incarnation = agent.core.incarnation
    world.crash(world.now, agent)
    world.start(world.now, agent)
    world.run(8 * SECOND)
    (leader,) = world.leaders
    assert leader.core.roster.members[agent.name].order.incarnation == agent.core.incarnation != incarnation


def test_an_agent_told_to_end_says_goodbye_and_is_gone() -> None:
    world = small()
    agent = world.agents[0]
    world.terminate(world.now, agent)
    world.run(8 * SECOND)
    assert agent.core is None
    assert said(world, f"happened sim/root {agent.name} node-left")


def test_every_frame_can_be_read_by_whoever_gets_it() -> None:
    world = World(Scenario(faults=("partition", "duplicate", "goodbye"), leaders=2))
    play(world)
    assert world.refused == 0
    assert world.beats > 1000 and world.hook_runs > 0


def test_a_core_that_turns_in_place_is_found_and_does_not_hang_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AgentCore, "deadline", lambda self: 0)
    world = World(Scenario(hosts=1, racks=1, seconds=3))
    world.start_all()
    world.run(3 * SECOND)
    assert "turns in place" in world.checker.violations[0]
