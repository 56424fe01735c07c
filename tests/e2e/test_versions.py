"""An upgrade in any order: this version and the one after it in one datacenter, and neither notices.

The older of them here is without its leniency (`altered.leniency`): it refuses whatever is newer than itself, which a
real one would pass over. So what it counts is what was said to it that it cannot read.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hbagent import __version__
from hbagent.demo.datacenter import Plan
from tests.conftest import Figures
from tests.e2e import nextversion
from tests.e2e.conftest import Build
from tests.e2e.fleet import Fleet, node_of
from tests.e2e.patient import PATIENT

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("healed"), pytest.mark.paired, pytest.mark.timeout(180)]

ROOT, LEADERS, AGENTS = "root", ("rack1-leader1", "rack1-leader2"), ("rack1-node1", "rack1-node2", "rack1-node3")
PLAN = Plan(
    racks=1,
    nodes=len(AGENTS),
    leaders=len(LEADERS),
    interval="200ms",
    leader_lines=('join_grace = "5s"',),
    leader_tables=PATIENT,
    root_lines=('lease = "5s"',),
)
#: What a reader counts that cannot read what it was told.
NOT_READ = ("malformed", "unknown-type", "incompatible", "unexpected-type", "too-large")
#: Reports and summaries of every kind have gone to and fro by then.
TALK_SECONDS = 1.5


class Mixed(Fleet):
    """A fleet some of whose processes are of the next version, and all others strict."""

    tree: Path
    newer: frozenset[str] = frozenset()

    def command(self, name: str) -> list[str]:
        command = super().command(name)
        return nextversion.command(self.tree, command) if name in self.newer else command

    def become(self, newer: frozenset[str]) -> None:
        """Exactly these are of the next version. Whose version changes is started again, as an upgrade does it."""
        changed = [name for name in self.names if (name in newer) != (name in self.newer)]
        self.newer = newer
        self.without = {name: "leniency" for name in self.names if name not in newer}
        for name in changed:
            self.end(name)
            self.start([name])
        self.settle()

    def unread(self) -> dict[str, dict[str, int]]:
        """What was refused for being unreadable: by root and leaders as they count it, by agents as they log it."""
        found: dict[str, dict[str, int]] = {}
        for name in (ROOT, *LEADERS):
            status = self.ask("status", name)
            assert status is not None, f"{name} does not answer"
            found[name] = {why: count for why, count in status["root"]["refused"].items() if why in NOT_READ}
        for name in AGENTS:
            lines = self.lines(name, "refused", "reason=")
            found[name] = {why: n for why in NOT_READ if (n := sum(f"reason={why}" in line for line in lines))}
        return {name: counts for name, counts in found.items() if counts}


@pytest.fixture(scope="module")
def fleet(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Mixed:
    made = build(PLAN)
    made.__class__ = Mixed
    assert isinstance(made, Mixed)
    made.tree = nextversion.make(tmp_path_factory.mktemp("next"))
    made.without = dict.fromkeys(made.names, "leniency")
    made.wake_up()
    return made


STATES = {
    "newer-agents": frozenset(AGENTS),
    "newer-leaders": frozenset(LEADERS),
    "newer-root": frozenset([ROOT]),
    "older-agents": frozenset([ROOT, *LEADERS]),
    "older-leaders": frozenset([ROOT, *AGENTS]),
    "older-root": frozenset([*LEADERS, *AGENTS]),
    "one-of-each": frozenset([LEADERS[0], AGENTS[0]]),
    "all-newer": frozenset([ROOT, *LEADERS, *AGENTS]),
    "all-older": frozenset[str](),
}


@pytest.mark.parametrize("state", STATES)
def test_two_versions_run_side_by_side_and_nothing_is_said_that_the_older_cannot_read(
    fleet: Mixed, figures: Figures, state: str
) -> None:
    newer = STATES[state]
    fleet.become(newer)
    # Before, those of the state before were still among them.
    skip = {name: len(fleet.log(name)) for name in fleet.names}
    mark = fleet.newest()
    victim = AGENTS[0]
    fleet.kill(victim)
    dead = fleet.until_liveness(victim, "DEAD")
    fleet.start([victim])
    fleet.settle()
    time.sleep(TALK_SECONDS)
    events = [row for row in fleet.events(mark) if row["node"] == node_of(victim)]
    told = [row["kind"] for row in events if row["kind"] != "node-accounted"]
    assert "node-dead" in told
    assert set(told[-1:]) & {"node-recovered", "node-restarted"}, told
    assert fleet.unread() == {}
    for leader in LEADERS:
        for agent in AGENTS:
            both = {leader, agent} <= newer
            of = f"of={node_of(agent)}"
            # Whoever was not started again this time said it before.
            said = fleet.lines(leader, "weather", of, skip=skip[leader])
            assert both or not said, f"{agent} told {leader} of the weather"
            if both and agent == victim:
                for words in (("weather", of), ("mood=calm", of)):
                    fleet.until(lambda: fleet.lines(leader, *words, skip=skip[leader]), f"{agent} says {words}")  # noqa: B023
    figures("versions", f"{state}: dead after {dead:.1f} s, nothing unread")


def test_who_asks_sees_which_version_each_of_them_is(fleet: Mixed) -> None:
    fleet.become(STATES["one-of-each"])
    for agent, version in ((AGENTS[0], nextversion.VERSION), (AGENTS[1], __version__)):
        fleet.until(lambda: fleet.row(agent).get("version") == version, f"{agent} {version}")  # noqa: B023
    wanted = {f"demo/{LEADERS[0]}": nextversion.VERSION, f"demo/{LEADERS[1]}": __version__}
    fleet.until(lambda: versions_of_leaders(fleet) == wanted, "so it is with the leaders")
    assert fleet.ask("status")["root"]["version"] == __version__


def versions_of_leaders(fleet: Fleet) -> dict[str, str]:
    status = fleet.ask("status") or {"racks": []}
    return {row["leader"]: row["version"] for rack in status["racks"] for row in rack["leaders"]}


def test_a_next_version_that_says_all_it_knows_is_refused_by_the_older(
    fleet: Mixed, tmp_path: Path, figures: Figures
) -> None:
    """Without the rule that the lowest is spoken, the rows above are red."""
    loud = AGENTS[0]
    fleet.become(frozenset())
    tree, fleet.tree = fleet.tree, nextversion.make(tmp_path, *nextversion.LOUD)
    fleet.newer = frozenset([loud])
    del fleet.without[loud]
    try:
        fleet.end(loud)
        fleet.start([loud])
        fleet.until(lambda: set(LEADERS) <= set(fleet.unread()), "both leaders refuse what they cannot read")
        figures("versions", f"without the rule: {fleet.unread()}")
    finally:
        fleet.tree = tree
        fleet.become(frozenset())
