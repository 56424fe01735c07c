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
#: Longer than a leader is away that is started again at once, on a machine that is busy with others.
LEASE = 6.0


@pytest.fixture(scope="module")
def fleet(build: Build) -> Fleet:
    made = build(Plan(racks=2, nodes=3, leader_lines=('join_grace = "4s"',), root_lines=(f'lease = "{LEASE:.0f}s"',)))
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
    fleet.until(lambda: len(fleet.hook_runs(mark, "node-dead")) == 4, "the hook has all")
    told = ids(fleet.lasting(mark))
    assert sorted(told) == sorted(f"{node_of(name)} node-dead process-exit" for name in killed)
    begun = time.monotonic()
    fleet.start(killed)
    fleet.settle()
    figures("F01", f"started again to all ALIVE at the root {time.monotonic() - begun:.2f} s")
    fleet.until(lambda: len(fleet.hook_runs(mark, "node-restarted")) == 4, "the hook has the restarts")
    assert set(fleet.hook_runs(mark).values()) == {1}
    assert sorted(ids(fleet.lasting(mark)[4:])) == sorted(f"{node_of(name)} node-restarted" for name in killed)


def test_an_agent_that_is_started_again_at_once_died_once_and_restarted_once(fleet: Fleet, figures: Figures) -> None:
    mark = fleet.newest()
    fleet.restart("rack1-node2")
    took = fleet.until(lambda: fleet.events(mark, "node-restarted"), "the restart is told")
    fleet.settle()
    figures("F02", f"kill -9 and start to node-restarted {took:.2f} s")
    told = ids(fleet.lasting(mark))
    assert told == ["demo/rack1/node2 node-dead process-exit", "demo/rack1/node2 node-restarted"]


def test_a_leader_that_is_back_after_a_second_killed_nobody(fleet: Fleet, figures: Figures) -> None:
    mark = fleet.newest()
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
    assert ids(fleet.lasting(mark)) == []
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
    assert {row["node"] for row in fleet.lasting(mark)} == {"demo/rack1/node3"}, ids(fleet.lasting(mark))


def test_what_a_leader_decided_before_it_was_killed_is_told_after(fleet: Fleet) -> None:
    """The root hears nothing of it, the leader dies with it unacknowledged, and the next life sends it."""
    mark, skip = fleet.newest(), len(fleet.log("rack1-leader1"))
    journal = fleet.directory / "state" / "rack1-leader1" / "journal"
    already = journal.read_text().count('"node-restarted"')
    with fleet.frozen("root"):
        fleet.kill("rack1-node1")
        fleet.until(lambda: fleet.lines("rack1-leader1", "node-dead", skip=skip), "the leader decided")
        fleet.start(["rack1-node1"])
        fleet.until(lambda: fleet.lines("rack1-leader1", "node-restarted", skip=skip), "and once more")
        fleet.until(lambda: journal.read_text().count('"node-restarted"') > already, "and both are kept")
        fleet.kill("rack1-leader1")
        fleet.start(["rack1-leader1"])
    fleet.until(lambda: fleet.events(mark, "node-restarted"), "all of it is told")
    fleet.settle()
    told = ids(fleet.lasting(mark))
    assert told == ["demo/rack1/node1 node-dead process-exit", "demo/rack1/node1 node-restarted"]


def test_a_leader_that_stays_away_is_lost_and_its_nodes_are_unknown(fleet: Fleet, figures: Figures) -> None:
    mark = fleet.newest()
    begun = time.monotonic()
    fleet.kill("rack1-leader1")
    fleet.until(lambda: fleet.events(mark, "leader-lost"), "the leader is lost")
    took = time.monotonic() - begun
    figures("F04", f"kill -9 of a leader to leader-lost {took:.2f} s (lease {LEASE} s + 1.5 s)")
    # It told of itself a second ago, or two when it had no processor.
    assert took > LEASE - 2.5, "its lease was cut short"
    for rack, state in (("rack1", ("UNKNOWN", "leader-lost")), ("rack2", ("ALIVE", None))):
        names = fleet.nodes_of(rack)
        fleet.until(lambda: {fleet.state(name) for name in names} == {state}, f"{rack} {state}")  # noqa: B023
    # Long enough for a wrong DEAD to come.
    time.sleep(DEAD_AFTER)
    fleet.start(["rack1-leader1"])
    fleet.settle()
    fleet.until(lambda: len(fleet.hook_runs(mark, "leader-lost", "leader-recovered")) == 2, "the hook has both")
    assert ids(fleet.lasting(mark)) == [
        "demo/rack1-leader1 leader-lost leader-lost",
        "demo/rack1-leader1 leader-recovered",
    ]
    assert set(fleet.hook_runs(mark).values()) == {1}
