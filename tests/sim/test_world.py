"""World: the driver of the simulation does what the production loop does."""

from __future__ import annotations

import pytest

from hbagent.core.agent import AgentCore
from hbagent.core.messages import Effort, HeardWanted, Hello, LastHeard, Located, Suspended, WallTime
from hbagent.core.states import Cause
from hbagent.core.units import SECOND
from hbagent.sim.host import Host
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


# ---- what a driver tells its core beside frames ----------------------------------------------------------


class Told:
    """What the cores of a world are told, in order."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch, *kinds: type) -> None:
        self.messages: list[tuple[str, str, object]] = []
        receive = world._receive

        def taken(at: int, host: Host, sender: str, message: object) -> None:
            if not kinds or isinstance(message, kinds):
                self.messages.append((host.name, sender, message))
            receive(at, host, sender, message)

        monkeypatch.setattr(world, "_receive", taken)


def test_a_leader_knows_where_a_peer_is_before_it_reads_its_first_message(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(Scenario(hosts=4, racks=1))
    told = Told(world, monkeypatch, Located, Hello)
    world.start_all()
    world.run(5 * SECOND)
    for agent in world.agents:
        about = [m for _, sender, m in told.messages if sender == agent.name or getattr(m, "peer", "") == agent.name]
        assert about[0] == Located(agent.name, agent.address)
        assert isinstance(about[1], Hello)


def test_leaders_of_a_rack_ask_and_answer_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(Scenario(hosts=4, racks=1, leaders=2))
    told = Told(world, monkeypatch, HeardWanted, LastHeard)
    world.start_all()
    world.run(5 * SECOND)
    one, other = world.leaders
    world.vanish(world.now, world.agents[0])
    world.run(7 * SECOND)
    assert (other.name, one.name) in [(to, sender) for to, sender, m in told.messages if isinstance(m, HeardWanted)]
    assert (one.name, other.name) in [(to, sender) for to, sender, m in told.messages if isinstance(m, LastHeard)]


def test_whoever_was_suspended_is_told_so_before_it_reads_what_came_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    world = small()
    agent = world.agents[0]
    told = Told(world, monkeypatch)
    world.pause(world.now, agent)
    clock = agent.local(world.now)
    world.run(8 * SECOND)
    world.suspended(world.now, agent, 3 * SECOND)
    assert agent.local(world.now) - clock < SECOND // 100
    world.resume(world.now, agent)
    mine = [message for name, _, message in told.messages if name == agent.name]
    own = [message for message in mine if isinstance(message, (Suspended, Effort))]
    assert own == [Effort(0, 0, 3 * SECOND), Suspended(3 * SECOND)]
    assert [type(message) for message in mine[:3]] == [WallTime, Effort, Suspended]


def test_a_machine_that_is_away_hears_nothing_and_is_heard_by_nobody() -> None:
    world = small()
    agent = world.agents[0]
    sequence = world.leaders[0].core.roster.members[agent.name].order.sequence
    world.vanish(world.now, agent)
    world.run(7 * SECOND)
    assert world.leaders[0].core.roster.members[agent.name].order.sequence == sequence
    assert agent.core.sequence > sequence
    assert said(world, f"happened sim/root {agent.name} node-dead")
    world.reappear(world.now, agent)
    world.run(12 * SECOND)
    assert said(world, f"happened sim/root {agent.name} node-recovered")


@pytest.mark.parametrize("how", ["garbage", "refusal", "silence"])
def test_a_neighbour_that_lies_can_neither_revive_nor_kill(how: str) -> None:
    world = small()
    target, *others = [host for host in world.agents if not host.firewalled]
    for other in others:
        other.liar = how
    (leader,) = world.leaders
    world.network.cut(world.now, target.routes_out[0], True, False)
    world.run(8 * SECOND)
    causes = {cause for _, _, cause in world.checker.claims.record(leader.name, target.name).told}
    assert causes <= {None, Cause.SILENCE, Cause.HOST_GONE}
