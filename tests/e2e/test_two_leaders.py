"""A rack with two leaders: either may die, stand still or start anew, and no node is lost sight of."""

from __future__ import annotations

import time

import pytest

from hbagent.demo.datacenter import Plan
from tests.conftest import Figures
from tests.e2e.conftest import Build
from tests.e2e.fleet import Fleet, ids
from tests.e2e.patient import PATIENT

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("proved"), pytest.mark.timeout(180)]

ONE, OTHER, NODE = "rack1-leader1", "rack1-leader2", "rack1-node2"


@pytest.fixture(scope="module")
def fleet(build: Build) -> Fleet:
    plan = Plan(
        racks=1,
        nodes=4,
        leaders=2,
        interval="200ms",
        leader_lines=('join_grace = "4s"',),
        leader_tables=PATIENT,
        root_lines=('lease = "4s"',),
    )
    made = build(plan)
    made.wake_up()
    return made


def never_but_alive(fleet: Fleet, seconds: float) -> None:
    """All nodes are ALIVE at the root all the time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        states = fleet.states()
        assert {liveness for liveness, _ in states.values()} == {"ALIVE"}, states
        time.sleep(0.05)


@pytest.mark.parametrize("leader", [ONE, OTHER])
def test_no_node_leaves_alive_when_one_of_two_leaders_is_killed(fleet: Fleet, leader: str) -> None:
    mark = fleet.newest()
    fleet.kill(leader)
    # Past its lease, and past the time after which silence is death.
    never_but_alive(fleet, 7.0)
    fleet.until(lambda: fleet.events(mark, "leader-lost"), "its leader is missed")
    fleet.start([leader])
    never_but_alive(fleet, 5.0)
    fleet.settle()
    assert [row for row in fleet.events(mark) if row["node"]] == []


@pytest.mark.parametrize("leader", [ONE, OTHER])
def test_no_node_leaves_alive_when_one_of_two_leaders_stands_still(fleet: Fleet, leader: str) -> None:
    mark = fleet.newest()
    with fleet.frozen(leader):
        never_but_alive(fleet, 7.0)
    never_but_alive(fleet, 3.0)
    fleet.settle()
    assert [row for row in fleet.events(mark) if row["node"]] == []


@pytest.mark.parametrize("leader", [ONE, OTHER])
def test_a_death_while_one_of_two_leaders_starts_anew_is_told_once(fleet: Fleet, figures: Figures, leader: str) -> None:
    mark = fleet.newest()
    fleet.kill(leader)
    fleet.kill(NODE)
    fleet.start([leader])
    took = fleet.until_liveness(NODE, "DEAD")
    figures("death", f"a death while {leader} starts anew: DEAD after {took:.2f} s")
    # As long as the new leader bears not having heard a node.
    time.sleep(5.0)
    assert fleet.liveness(NODE) == "DEAD", "a leader that never heard it took it for alive"
    assert len(fleet.events(mark, "node-dead")) == 1
    fleet.start([NODE])
    fleet.until(lambda: fleet.events(mark, "node-restarted"), "it is back")
    fleet.settle()
    assert {row["node"] for row in fleet.events(mark) if row["node"]} == {fleet.nodes[NODE]}


def test_a_death_that_both_leaders_see_is_one_event(fleet: Fleet) -> None:
    mark = fleet.newest()
    fleet.kill(NODE)
    fleet.until_liveness(NODE, "DEAD")
    fleet.start([NODE])
    fleet.until(lambda: fleet.events(mark, "node-restarted"), "it is back")
    fleet.settle()
    assert ids(fleet.events(mark, "node-dead")) == ["demo/rack1/node2 node-dead process-exit"]
    assert set(fleet.hook_runs(mark).values()) == {1}
