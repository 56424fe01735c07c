"""Row F05: the root is killed at random points while much happens. Nothing is lost, and what is told twice says so.

The truth is what the leaders' logs say they decided; the history, the ledger of notifications and the hook's file are
held against it. The ledger is looked at as each killed root has left it, before another one may tidy up.
"""

from __future__ import annotations

import collections
import contextlib
import os
import random
import threading
import time
from collections.abc import Iterator

import pytest

from hbagent.demo.datacenter import Plan, wait_until
from hbagent.store.archive import Archive, open_archive
from hbagent.store.history import unbalanced
from tests.conftest import Figures
from tests.e2e.conftest import Build
from tests.e2e.fleet import Fleet

pytestmark = [pytest.mark.e2e, pytest.mark.paired, pytest.mark.timeout(240)]

#: Each among ten incidents; ten of them are the whole row.
KILLS = int(os.environ.get("HBAGENT_RUNS", "4"))
INCIDENTS_A_KILL = 10
#: Hook processes at once: so many runs, at most, can be under way when the root is killed.
CONCURRENCY = 4
SEED = 20
#: Of history alone: nobody is told.
QUIET = ("node-joined", "node-accounted")
LEADERS = ("rack1-leader1", "rack2-leader1")

#: What the root finds out by itself.
OWN = ("node-flapping", "node-steady")
#: Everything is told at once and one by one, so that much can be lost or told twice.
TOLD_TABLES = """
[flap]
start = 1000
[brake]
node_max = 1000
rack_max = 1000
all_max = 10000
group_min = 1000
"""


TOLD_LINES = ('doubt_wait = "0s"', 'settle = "0s"')


@pytest.fixture(scope="module", params=["told", "kept back"])
def fleet(build: Build, request: pytest.FixtureRequest) -> Fleet:
    """A fleet whose root tells of everything, or, as it does by itself, of little of what goes on and on."""
    told = request.param == "told"
    made = build(
        Plan(
            racks=2,
            nodes=4,
            interval="100ms",
            root_lines=(f"hook_concurrency = {CONCURRENCY}", *(TOLD_LINES if told else ())),
            root_tables=TOLD_TABLES if told else "",
            # A node that stands still for a moment is dead already: an incident of its own.
            leader_lines=('dead_after = "200ms"',),
            leader_tables='[detector]\nmargin = "150ms"\n',
        )
    )
    made.wake_up()
    hook = made.directory / "etc" / "hook"
    # It has told and is not over yet for a while: what a kill meets then is told once more.
    with hook.open("a") as script:
        script.write("sleep 0.1\n")
    return made


@contextlib.contextmanager
def trouble(fleet: Fleet) -> Iterator[None]:
    """Agents that stand still and go on, all the time: an incident each, four in a second.

    One of each rack at a time: were it three of four, their leader would hold its verdicts.
    """
    enough = threading.Event()

    def make() -> None:
        turn = 0
        while not enough.is_set():
            with fleet.frozen(fleet.agents[turn % 4], fleet.agents[4 + turn % 4]):
                enough.wait(0.5)
            enough.wait(0.1)
            turn += 1

    thread = threading.Thread(target=make)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def decided(fleet: Fleet, skip: dict[str, int], cuts: bool = True) -> collections.Counter[tuple[str, str]]:
    """(node, kind) of what the leaders decided, by their logs.

    Without `cuts` those are left out that say that others hear a node, and that this is over: to the root it lives all
    the while. On a busy machine an agent's answer to a neighbour may come before its own next beat.
    """
    found: collections.Counter[tuple[str, str]] = collections.Counter()
    cut: dict[str, bool] = {}
    for line in (line for leader in LEADERS for line in fleet.lines(leader, " node-", skip=skip[leader])):
        words = line.split()
        node, kind = words[4].removeprefix("node="), words[3]
        before, cut[node] = cut.get(node, False), kind == "node-suspect" and words[-1] == "cause=link-cut"
        found[node, kind] += cuts or not (cut[node] or (before and kind == "node-recovered"))
    return found


def quiet_marks(fleet: Fleet) -> tuple[int, dict[str, int]]:
    """Where history and logs end while nothing happens: what is decided is written to each of them at its own time."""

    def marks() -> tuple[int, dict[str, int]]:
        return fleet.newest(), {leader: len(fleet.log(leader)) for leader in LEADERS}

    found, since = marks(), time.monotonic()
    until = since + 60.0
    while time.monotonic() < since + 2.0:
        time.sleep(0.1)
        if (now := marks()) != found:
            found, since = now, time.monotonic()
            assert since < until, "it never is quiet"
    return found


def dead(fleet: Fleet) -> int:
    return sum(len(fleet.lines(leader, " node-dead ")) for leader in LEADERS)


def states(archive: Archive) -> dict[str, set[str]]:
    """The events of the notifications, by their state."""
    found: dict[str, set[str]] = collections.defaultdict(set)
    for table in ("hook_runs", "unsent"):
        for event_id, state in archive.database.rows(f"SELECT event_id, state FROM {table}"):
            found[state].add(event_id)
    return found


def test_a_root_that_is_killed_again_and_again_loses_nothing(fleet: Fleet, figures: Figures) -> None:
    rng = random.Random(SEED)
    directory = fleet.directory / "state" / "root"
    mark, skip = quiet_marks(fleet)
    begun = dead(fleet)
    with trouble(fleet):
        for kill in range(1, KILLS + 1):
            fleet.until(lambda: dead(fleet) >= begun + kill * INCIDENTS_A_KILL, "incidents", 30.0)  # noqa: B023
            time.sleep(rng.uniform(0.0, 0.3))
            fleet.kill("root")
            with open_archive("sqlite", directory) as left:
                assert unbalanced(left.database) == [], f"after kill {kill}"
            fleet.start(["root"])
        time.sleep(1.0)
    fleet.settle()

    events = fleet.events(mark)
    in_time = collections.Counter(
        (row["node"], row["kind"]) for row in events if row["node"] and not row["late"] and row["kind"] not in OWN
    )
    # A decision is written to the log by a thread, a little later than it is told.
    wait_until(lambda: not in_time - decided(fleet, skip), 15)
    truth, lasting = decided(fleet, skip), decided(fleet, skip, cuts=False)
    fleet.settle()
    events = fleet.events(mark)
    stored = collections.Counter((row["node"], row["kind"]) for row in events if row["node"])
    incidents = {row["incident"] for row in events if row["kind"] == "node-dead"}
    assert dict(lasting - stored) == {}, "lost"
    assert dict(in_time - truth) == {}, "invented or told twice under two names"
    assert not [row for row in events if row["kind"] == "leader-lost"]
    # Two of a rack that are dead at once, as on a machine that was busy meanwhile, are one.
    assert len(incidents) >= KILLS * INCIDENTS_A_KILL * 0.5, "too little to prove anything"

    # Whoever is suspected from now on, on a machine that is busy elsewhere, is another story.
    known = {row["event_id"] for row in events}
    with open_archive("sqlite", directory) as archive:
        fleet.until(lambda: not known & (states(archive)["held"] | states(archive)["pending"]), "nothing waits")
        assert unbalanced(archive.database) == []
        ledger = collections.defaultdict(set, {state: ids & known for state, ids in states(archive).items()})
        reasons = collections.Counter(
            row["reason"] for event_id in ledger["suppressed"] for row in fleet.ask("runs", event=event_id)["runs"]
        )
    told = [row for row in fleet.told() if row["event_id"] in known]
    runs = collections.Counter(row["event_id"] for row in told)
    accounted = {row["event_id"] for row in events if row["notices"]}
    wanted = {row["event_id"] for row in events if row["kind"] not in QUIET}
    assert wanted <= accounted, "somebody wants to be told of it, and it has no notification"
    assert not ledger["dead"]
    assert runs.keys() == ledger["done"], "told is what the ledger says was told"
    twice = sum(count - 1 for count in runs.values())
    assert twice <= KILLS * CONCURRENCY
    for event_id in (event_id for event_id, count in runs.items() if count > 1):
        documents = [{**row, "attempt": 0} for row in told if row["event_id"] == event_id]
        assert all(document == documents[0] for document in documents), "one name for two events"
    late = sum(row["late"] for row in events)
    figures(
        "F05",
        f"{KILLS} kills of the root, {sum(truth.values())} transitions, {len(incidents)} incidents: lost 0, events "
        f"{len(events)} ({late} late), told {len(runs)}, twice {twice} (at most {KILLS * CONCURRENCY}), not sent "
        f"{dict(reasons)}",
    )
