"""Rows F06, F07, F08 and F14: processes that stand still and go on, as virtual machines do.

Nodes here are dead after one second of silence, so that a pause of five seconds is long.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from hbagent.demo.datacenter import Plan
from tests.e2e.conftest import Build, Figures
from tests.e2e.fleet import Fleet, ids

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

INTERVAL = 0.2
MARGIN = 0.15
DEAD_AFTER = 1.0
LEASE = 2.5
#: Pauses of a leader. Beyond ten seconds more beats wait than a node may send in a second; a minute only where there
#: is time for it.
PAUSES = (5.0, 12.0, 60.0) if os.environ.get("HBAGENT_NIGHTLY") else (5.0, 12.0)

PLAN = Plan(
    racks=2,
    nodes=4,
    interval="200ms",
    leader_lines=('dead_after_min = "1s"', "dead_after_intervals = 5"),
    root_lines=('lease = "2500ms"',),
)


@pytest.fixture(scope="module")
def fleet(build: Build) -> Fleet:
    made = build(PLAN)
    made.wake_up()
    return made


@pytest.fixture(autouse=True)
def _healed(fleet: Fleet) -> Iterator[None]:
    """Every row ends with all nodes alive."""
    yield
    fleet.heal()
    fleet.settle()


def test_an_agent_that_stands_still_for_longer_dies_once_and_recovers_once(fleet: Fleet, figures: Figures) -> None:
    """One and a half times and ten times the silence that is allowed."""
    mark = fleet.newest()
    with fleet.frozen("rack1-node1"):
        with fleet.frozen("rack2-node1"):
            time.sleep(1.5 * DEAD_AFTER)
        time.sleep(8.5 * DEAD_AFTER)
    took = fleet.until_liveness("rack1-node1", "ALIVE")
    figures("F06", f"SIGCONT of an agent to ALIVE at the root {took:.2f} s after 10 s")
    fleet.settle()
    for node in ("demo/rack1/node1", "demo/rack2/node1"):
        kinds = [row["kind"] for row in fleet.events(mark) if row["node"] == node]
        assert kinds == ["node-suspect", "node-dead", "node-recovered"]
    assert len(fleet.events(mark)) == 6, "somebody else was told of"


def test_an_agent_that_stands_still_for_a_moment_is_not_told_of(fleet: Fleet) -> None:
    mark = fleet.newest()
    for _ in range(10):
        with fleet.frozen("rack1-node2"):
            time.sleep(MARGIN / 2)
        time.sleep(INTERVAL)
    assert ids(fleet.events(mark)) == []
    fleet.settle()


@pytest.mark.parametrize("pause", PAUSES)
def test_a_leader_that_stood_still_doubts_itself_and_then_judges_at_once(
    fleet: Fleet, figures: Figures, pause: float
) -> None:
    mark = fleet.newest()
    with fleet.frozen("rack1-leader1"):
        time.sleep(pause - 1.0)
        # Its last beats wait for the leader and are old by then.
        fleet.kill("rack1-node3")
        time.sleep(1.0)
        # This one's last beat is fresh when the leader goes on.
        fleet.kill("rack1-node4")
    old = fleet.until_liveness("rack1-node3", "SUSPECT", of="rack1-leader1")
    fresh = old + fleet.until(lambda: fleet.liveness("rack1-node4", "rack1-leader1") != "ALIVE", "node4 SUSPECT")
    dead = fresh + fleet.until_liveness("rack1-node4", "DEAD", of="rack1-leader1")
    figures(
        "F07",
        f"{pause:.0f} s pause of a leader: judging again after {old:.2f} s and {fresh:.2f} s "
        f"(2 intervals + margin {2 * INTERVAL + MARGIN:.2f} s), DEAD after {dead:.2f} s",
    )
    assert dead < DEAD_AFTER + 2.0, "the pause was credited to silence that came after it"
    fleet.start(["rack1-node3", "rack1-node4"])
    fleet.settle()
    deaths = fleet.events(mark, "node-dead")
    assert sorted(row["node"] for row in deaths) == ["demo/rack1/node3", "demo/rack1/node4"]
    assert len(fleet.events(mark, "leader-lost")) <= 1
    living = [row for row in fleet.events(mark, "node-suspect") if row["node"] not in {d["node"] for d in deaths}]
    assert ids(living) == [], "suspected although it beat"


def test_a_root_that_stood_still_lost_no_event_and_no_leader(fleet: Fleet, figures: Figures) -> None:
    mark = fleet.newest()
    with fleet.frozen("root"):
        fleet.kill("rack2-node2")
        time.sleep(2 * DEAD_AFTER)
        fleet.start(["rack2-node2"])
        time.sleep(5.0 - 2 * DEAD_AFTER)
    took = fleet.until(lambda: fleet.events(mark, "node-restarted"), "what happened meanwhile is told")
    figures("F08", f"5 s pause of the root: all it missed told after {took:.2f} s")
    fleet.settle()
    assert ids(fleet.events(mark)) == [
        "demo/rack2/node2 node-suspect silence",
        "demo/rack2/node2 node-dead silence",
        "demo/rack2/node2 node-restarted",
    ]
    assert set(fleet.hook_runs(mark).values()) == {1}


def test_a_whole_machine_that_stood_still_killed_nobody(fleet: Fleet, figures: Figures) -> None:
    """All of it at once, the leader first to go on: it hears nobody yet."""
    mark = fleet.newest()
    with fleet.frozen("root", "rack1-leader1", "rack2-leader1", *fleet.agents):
        time.sleep(5.0)
    took = fleet.settle()
    figures("F14", f"5 s pause of all processes: all well again after {took:.2f} s")
    assert ids(fleet.events(mark)) == []
