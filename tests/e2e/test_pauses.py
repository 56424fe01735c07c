"""Rows F06, F07, F08 and F14: processes that stand still and go on, as virtual machines do.

Nodes here are suspected after one second and a half, so that a pause of six seconds is long, and one that this machine
makes by itself is not.
"""

from __future__ import annotations

import os
import time

import pytest

from hbagent.demo.datacenter import Plan
from tests.conftest import Figures
from tests.e2e.conftest import Build
from tests.e2e.fleet import Fleet, Row, ids

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("proved"), pytest.mark.timeout(180)]

INTERVAL = 0.2
MARGIN = 1.5
#: A node whose host is known to live is dead after this; half a minute by default.
FROZEN_AFTER = 6.0
LEASE = 4.0
#: Longer than anybody is borne who is not known to live.
PAUSE = 6.0
#: Pauses of a leader. Beyond ten seconds more beats wait than a node may send in a second; a minute only where there
#: is time for it.
PAUSES = (5.0, 12.0, 60.0) if os.environ.get("HBAGENT_NIGHTLY") else (5.0, 12.0)

PLAN = Plan(
    racks=2,
    nodes=4,
    interval="200ms",
    leader_lines=(f'dead_after = "{FROZEN_AFTER:.0f}s"',),
    leader_tables=f'[detector]\nmargin = "{MARGIN:g}s"\nmargin_min = "{MARGIN:g}s"\n',
    root_lines=(f'lease = "{LEASE:.0f}s"',),
)


def verdicts(fleet: Fleet, mark: int) -> list[Row]:
    """What was told, without the accounts that nodes give of their silence afterwards."""
    return [row for row in fleet.events(mark) if row["kind"] != "node-accounted"]


@pytest.fixture(scope="module")
def fleet(build: Build) -> Fleet:
    made = build(PLAN)
    made.wake_up()
    return made


def test_an_agent_that_stands_still_for_long_dies_once_and_recovers_once(fleet: Fleet, figures: Figures) -> None:
    """One goes on when it is suspected, one when it has been dead for a while."""
    mark = fleet.newest()
    with fleet.frozen("rack1-node1"):
        with fleet.frozen("rack2-node1"):
            fleet.until(lambda: fleet.state("rack2-node1") == ("SUSPECT", "process-frozen"), "suspected")
        fleet.until_liveness("rack1-node1", "DEAD")
        time.sleep(0.5 * FROZEN_AFTER)
    took = fleet.until_liveness("rack1-node1", "ALIVE")
    figures("F06", f"SIGCONT of an agent that was dead to ALIVE at the root {took:.2f} s")
    fleet.settle()
    assert sorted(ids(verdicts(fleet, mark))) == [
        "demo/rack1/node1 node-dead process-frozen",
        "demo/rack1/node1 node-recovered",
        "demo/rack1/node1 node-suspect process-frozen",
        "demo/rack2/node1 node-recovered",
        "demo/rack2/node1 node-suspect process-frozen",
    ]


def test_an_agent_that_stands_still_for_a_moment_is_not_told_of(fleet: Fleet) -> None:
    mark = fleet.newest()
    for _ in range(10):
        with fleet.frozen("rack1-node2"):
            time.sleep(1.5 * INTERVAL)
        time.sleep(INTERVAL)
    fleet.settle()
    assert ids(verdicts(fleet, mark)) == []


@pytest.mark.parametrize("pause", PAUSES)
def test_a_leader_that_stood_still_doubts_itself_and_then_judges_at_once(
    fleet: Fleet, figures: Figures, pause: float
) -> None:
    mark = fleet.newest()
    with fleet.frozen("rack1-node2"):
        with fleet.frozen("rack1-leader1"):
            time.sleep(pause - 1.0)
            # Its last beats wait for the leader and are old by then.
            fleet.kill("rack1-node3")
            time.sleep(1.0)
            # This one's last beat is fresh when the leader goes on.
            fleet.kill("rack1-node4")
        begun = time.monotonic()
        old = fleet.until_liveness("rack1-node3", "DEAD", of="rack1-leader1")
        fleet.until_liveness("rack1-node4", "DEAD", of="rack1-leader1")
        fresh = time.monotonic() - begun
        fleet.until_liveness("rack1-node2", "SUSPECT", of="rack1-leader1")
        judged = time.monotonic() - begun
    figures(
        "F07",
        f"{pause:.0f} s pause of a leader: ended ones DEAD after {old:.2f} s and {fresh:.2f} s, a stopped one SUSPECT "
        f"after {judged:.2f} s",
    )
    assert fresh < pause, "the pause was credited to silence that came after it"
    fleet.start(["rack1-node3", "rack1-node4"])
    fleet.settle()
    # When the root has taken them from a summary already, the leader's own words for them are history alone.
    deaths = [row for row in fleet.events(mark, "node-dead") if not row["late"]]
    assert sorted(row["node"] for row in deaths) == ["demo/rack1/node3", "demo/rack1/node4"]
    assert len(fleet.events(mark, "leader-lost")) <= 1
    hurt = {"demo/rack1/node2", *(row["node"] for row in deaths)}
    living = [row for row in fleet.events(mark, "node-suspect") if row["node"] not in hurt]
    assert ids(living) == [], "suspected although it beat"


def test_a_root_that_stood_still_lost_no_event_and_no_leader(fleet: Fleet, figures: Figures) -> None:
    mark = fleet.newest()
    with fleet.frozen("root"):
        fleet.kill("rack2-node2")
        fleet.until_liveness("rack2-node2", "DEAD", of="rack2-leader1")
        fleet.start(["rack2-node2"])
        fleet.until_liveness("rack2-node2", "ALIVE", of="rack2-leader1")
        time.sleep(PAUSE)
    took = fleet.until(lambda: fleet.events(mark, "node-restarted"), "what happened meanwhile is told")
    figures("F08", f"a pause of the root of {PAUSE:.0f} s and more: all it missed told after {took:.2f} s")
    fleet.settle()
    assert ids(verdicts(fleet, mark)) == [
        "demo/rack2/node2 node-dead process-exit",
        "demo/rack2/node2 node-restarted",
    ]
    assert set(fleet.hook_runs(mark).values()) == {1}


def test_a_whole_machine_that_stood_still_killed_nobody(fleet: Fleet, figures: Figures) -> None:
    """All of it at once, the leader first to go on: it hears nobody yet."""
    mark = fleet.newest()
    with fleet.frozen("root", "rack1-leader1", "rack2-leader1", *fleet.agents):
        time.sleep(PAUSE)
    took = fleet.settle()
    figures("F14", f"{PAUSE:.0f} s pause of all processes: all well again after {took:.2f} s")
    assert ids(verdicts(fleet, mark)) == []
