"""Rows F01 to F04: agents and leaders that die by kill -9."""

from __future__ import annotations

import time

import pytest

from hbagent.demo.datacenter import Plan
from tests.conftest import Figures
from tests.e2e.conftest import Build
from tests.e2e.fleet import Fleet, ids, node_of

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("proved"), pytest.mark.paired, pytest.mark.timeout(120)]

#: Five intervals would be 1.25 s; the shortest silence that ends in DEAD is 2.5 s.
DEAD_AFTER = 2.5
LEASE = 3.0


@pytest.fixture(scope="module")
def fleet(build: Build) -> Fleet:
    made = build(Plan(racks=2, nodes=3, leader_lines=('join_grace = "4s"',), root_lines=('lease = "3s"',)))
    made.wake_up()
    return made


def test_a_killed_agent_is_dead_at_once_and_that_is_told_once(fleet: Fleet, figures: Figures) -> None:
    mark = fleet.newest()
    killed = ("rack1-node1", "rack1-node2", "rack2-node1", "rack2-node3")
    dead = {}
    for name in killed:
        fleet.kill(name)
        dead[name] = fleet.until_liveness(name, "DEAD")
        assert fleet.state(name) == ("DEAD", "process-exit")
    figures("F01", f"4 x kill -9: DEAD(process-exit) shown by the root after at most {max(dead.values()):.3f} s")
    fleet.until(lambda: len(fleet.hook_runs(mark)) == 4, "the hook has all")
    told = ids(fleet.events(mark))
    assert sorted(told) == sorted(f"{node_of(name)} node-dead process-exit" for name in killed)
    begun = time.monotonic()
    fleet.start(killed)
    fleet.settle()
    figures("F01", f"started again to all ALIVE at the root {time.monotonic() - begun:.2f} s")
    fleet.until(lambda: len(fleet.hook_runs(mark)) == 8, "the hook has the recoveries")
    assert set(fleet.hook_runs(mark).values()) == {1}
    later = [row for row in fleet.events(mark)[4:] if row["kind"] != "node-accounted"]
    assert sorted(ids(later)) == sorted(f"{node_of(name)} node-restarted" for name in killed)


def test_an_agent_that_is_started_again_at_once_died_once_and_restarted_once(fleet: Fleet, figures: Figures) -> None:
    mark = fleet.newest()
    fleet.restart("rack1-node2")
    took = fleet.until(lambda: fleet.events(mark, "node-restarted"), "the restart is told")
    fleet.settle()
    figures("F02", f"kill -9 and start to node-restarted {took:.2f} s")
    assert ids(fleet.events(mark, "node-suspect", "node-restarted", "node-dead", "node-joined", "node-recovered")) == [
        "demo/rack1/node2 node-dead process-exit",
        "demo/rack1/node2 node-restarted",
    ]


def test_a_leader_that_is_back_after_a_second_killed_nobody(fleet: Fleet, figures: Figures) -> None:
    mark = fleet.newest()
    before = fleet.row("rack1-node1", "rack1-leader1")
    fleet.kill("rack1-leader1")
    time.sleep(1.0)
    fleet.start(["rack1-leader1"])
    heard = fleet.until(
        lambda: all(fleet.row(name, "rack1-leader1").get("age_s") is not None for name in fleet.nodes_of("rack1")),
        "the new leader hears all its nodes",
    )
    figures("F03", f"leader started again to all its nodes heard {heard:.2f} s (within 3 s)")
    fleet.settle()
    # The state was taken up: to be heard again is nothing new.
    assert before["liveness"] == "ALIVE"
    assert ids(fleet.events(mark, "node-dead", "node-joined", "node-restarted", "node-unknown")) == []
    assert not fleet.lines("rack1-leader1", "journal-damaged")


def test_a_death_while_the_leader_was_away_is_told(fleet: Fleet, figures: Figures) -> None:
    mark = fleet.newest()
    fleet.kill("rack1-leader1")
    fleet.kill("rack1-node3")
    fleet.start(["rack1-leader1"])
    took = fleet.until(lambda: fleet.state("rack1-node3") == ("DEAD", "silence"), "the death is told")
    figures("F03", f"a death while the leader was away: DEAD {took:.2f} s after the leader's start (join_grace 4 s)")
    fleet.start(["rack1-node3"])
    fleet.until(lambda: fleet.events(mark, "node-restarted"), "it is back")
    fleet.settle()
    assert {row["node"] for row in fleet.events(mark)} == {"demo/rack1/node3"}, ids(fleet.events(mark))


def test_what_a_leader_decided_before_it_was_killed_is_told_after(fleet: Fleet) -> None:
    """The root hears nothing of it, the leader dies with it unacknowledged, and the next life sends it."""
    mark, skip = fleet.newest(), len(fleet.log("rack1-leader1"))
    with fleet.frozen("root"):
        fleet.kill("rack1-node1")
        fleet.until(lambda: fleet.lines("rack1-leader1", "node-dead", skip=skip), "the leader decided")
        fleet.start(["rack1-node1"])
        fleet.until(lambda: fleet.lines("rack1-leader1", "node-restarted", skip=skip), "and once more")
        # As long as a disk may take to keep it.
        time.sleep(0.5)
        fleet.kill("rack1-leader1")
        fleet.start(["rack1-leader1"])
    fleet.until(lambda: fleet.events(mark, "node-restarted"), "all of it is told")
    fleet.settle()
    assert ids(fleet.events(mark, "node-suspect", "node-dead", "node-recovered", "node-restarted")) == [
        "demo/rack1/node1 node-dead process-exit",
        "demo/rack1/node1 node-restarted",
    ]


def test_a_leader_that_stays_away_is_lost_and_its_nodes_are_unknown(fleet: Fleet, figures: Figures) -> None:
    mark = fleet.newest()
    fleet.kill("rack1-leader1")
    took = fleet.until(lambda: fleet.events(mark, "leader-lost"), "the leader is lost")
    figures("F04", f"kill -9 of a leader to leader-lost {took:.2f} s (lease {LEASE} s + 1.5 s)")
    assert took > LEASE - 1.2, "its lease was cut short"
    states = fleet.states()
    assert {states[node_of(name)] for name in fleet.nodes_of("rack1")} == {("UNKNOWN", "leader-lost")}
    assert {states[node_of(name)] for name in fleet.nodes_of("rack2")} == {("ALIVE", None)}
    # Long enough for a wrong DEAD to come.
    time.sleep(DEAD_AFTER)
    fleet.start(["rack1-leader1"])
    fleet.settle()
    fleet.until(lambda: len(fleet.hook_runs(mark)) == 2, "the hook has both")
    assert ids(fleet.events(mark)) == [
        "demo/rack1-leader1 leader-lost leader-lost",
        "demo/rack1-leader1 leader-recovered",
    ]
    assert set(fleet.hook_runs(mark).values()) == {1}
