"""Row F05: the root is killed at random points while much happens. Nothing is lost, and what is told twice says so.

The truth is what the leader's log says it decided; the history and the hook's file are held against it.
"""

from __future__ import annotations

import collections
import random
import threading
import time
from collections.abc import Iterator

import pytest

from hbagent.demo.datacenter import Plan
from tests.e2e.conftest import Build, Figures
from tests.e2e.fleet import Fleet

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

KILLS = 10
#: Hook processes at once: so many runs, at most, can be under way when the root is killed.
CONCURRENCY = 4
#: A run's time is drawn up to this, so that kills meet some of them under way.
SEED = 20


@pytest.fixture(scope="module")
def fleet(build: Build) -> Fleet:
    lines = (f"hook_concurrency = {CONCURRENCY}",)
    made = build(
        Plan(racks=1, nodes=6, interval="100ms", root_lines=lines, leader_tables='[detector]\nmargin = "150ms"\n')
    )
    made.wake_up()
    return made


@pytest.fixture
def trouble(fleet: Fleet) -> Iterator[threading.Event]:
    """Agents that stand still and go on, all the time, until the event is set: four and more transitions in a second.

    Two at a time: were it three of six, their leader would hold its verdicts.
    """
    enough = threading.Event()

    def make() -> None:
        turn = 0
        while not enough.is_set():
            pair = fleet.agents[turn % 6], fleet.agents[(turn + 1) % 6]
            turn += 2
            with fleet.frozen(*pair):
                enough.wait(0.4)
            enough.wait(0.1)

    thread = threading.Thread(target=make)
    thread.start()
    yield enough
    enough.set()
    thread.join()


def decided(fleet: Fleet, skip: int) -> collections.Counter[tuple[str, str]]:
    """(node, kind) of what the leader decided, by its log."""
    lines = [line.split() for line in fleet.lines("rack1-leader1", " node-", skip=skip)]
    return collections.Counter((words[4].removeprefix("node="), words[3]) for words in lines)


def test_a_root_that_is_killed_again_and_again_loses_nothing(
    fleet: Fleet, trouble: threading.Event, figures: Figures
) -> None:
    rng = random.Random(SEED)
    mark, skip = fleet.newest(), len(fleet.log("rack1-leader1"))
    for _ in range(KILLS):
        time.sleep(rng.uniform(0.1, 1.6))
        fleet.restart("root")
    time.sleep(1.0)
    trouble.set()
    fleet.settle()

    truth, events = decided(fleet, skip), fleet.events(mark)
    stored = collections.Counter((row["node"], row["kind"]) for row in events if row["node"])
    in_time = collections.Counter((row["node"], row["kind"]) for row in events if row["node"] and not row["late"])
    assert sum(truth.values()) > 50, "too little happened to prove anything"
    assert not truth - stored, "lost"
    assert not in_time - truth, "invented or told twice under two names"
    assert not [row for row in events if row["kind"] in ("node-dead", "leader-lost")]

    quiet = ("node-joined", "node-accounted")
    refined = {row["event_id"] for row in events if row["liveness"]["from"] == row["liveness"]["to"] == "SUSPECT"}
    wanted = {row["event_id"] for row in events if not row["late"] and row["kind"] not in quiet} - refined
    fleet.until(lambda: wanted <= {row["event_id"] for row in fleet.told()}, "the hook has run for every event")
    runs = collections.Counter(row["event_id"] for row in fleet.told())
    twice = sum(count - 1 for count in runs.values())
    known = {row["event_id"] for row in fleet.events()}
    assert runs.keys() <= known, "a hook was told of what is not in the history"
    assert twice <= KILLS * CONCURRENCY
    for event_id in (event_id for event_id, count in runs.items() if count > 1):
        documents = [{**row, "attempt": 0} for row in fleet.told() if row["event_id"] == event_id]
        assert all(document == documents[0] for document in documents), "one name for two events"
    late = sum(row["late"] for row in events)
    figures(
        "F05",
        f"{KILLS} kills of the root, {sum(truth.values())} transitions: lost 0, events {len(events)} ({late} late), "
        f"hook runs twice {twice} (at most {KILLS * CONCURRENCY})",
    )
