"""Each guard matters: the same row with the guard, and with a daemon from which it was taken out.

Without its guard a row has to show what the guard is there to prevent. One that stayed green would prove nothing.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from hbagent.core.messages import Evidence, NodeRow, RackSummary, Transition, Transitions
from hbagent.core.states import Cause, Kind, Liveness
from hbagent.demo.datacenter import Plan
from hbagent.transport.allow import Role
from tests.e2e.chaos import Proxy
from tests.e2e.conftest import Build
from tests.e2e.fleet import Fleet, ids, node_of
from tests.e2e.intruder import UNKNOWN_TYPE, beat
from tests.e2e.test_intruders import knock

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("healed"), pytest.mark.timeout(120)]

INTERVAL = 0.2
LEADER = "rack1-leader1"
#: Its beats go through a proxy.
DISTANT = "rack1-node1"
PLAN = Plan(
    racks=1,
    nodes=3,
    interval="200ms",
    root_lines=('lease = "2500ms"',),
)
with_and_without = pytest.mark.parametrize("guarded", [True, False], ids=["with", "without"])


@pytest.fixture(scope="module")
def proxy(build: Build) -> Iterator[tuple[Fleet, Proxy]]:
    fleet = build(PLAN)
    fleet.write()
    publish = fleet.setting(LEADER, "publish")
    with Proxy(int(publish.rpartition(":")[2])) as made:
        file = fleet.config(DISTANT)
        file.write_text(file.read_text().replace(publish, f"tcp://127.0.0.1:{made.port}"))
        fleet.start()
        fleet.settle()
        yield fleet, made
        fleet.stop()


@pytest.fixture(scope="module")
def fleet(proxy: tuple[Fleet, Proxy]) -> Fleet:
    return proxy[0]


@contextlib.contextmanager
def altered(fleet: Fleet, guarded: bool, guard: str, *names: str) -> Iterator[None]:
    """With these processes as they are, or with others that lack a guard."""
    if guarded:
        yield
        return
    fleet.without.update(dict.fromkeys(names, guard))
    fleet.restart(*names)
    fleet.settle()
    try:
        yield
    finally:
        fleet.without.clear()
        fleet.heal()
        fleet.restart(*names)


@with_and_without
def test_old_beats_do_not_raise_the_dead(proxy: tuple[Fleet, Proxy], guarded: bool) -> None:
    """The agent dies while the network holds its beats; then the network delivers them."""
    fleet, network = proxy
    with altered(fleet, guarded, "age-of-beats", LEADER):
        mark = fleet.newest()
        network.holding.set()
        try:
            time.sleep(2.0)
            fleet.until_liveness(DISTANT, "ALIVE")
            fleet.kill(DISTANT)
            fleet.until_liveness(DISTANT, "DEAD")
            time.sleep(1.0)
            old = fleet.refused("old", LEADER)
        finally:
            network.holding.clear()
        if guarded:
            fleet.until(lambda: fleet.refused("old", LEADER) > old, "they came, and were refused")
            time.sleep(1.0)
        else:
            fleet.until(lambda: "node-recovered" in since_death(fleet, mark), "it is raised")
        kinds = since_death(fleet, mark)
    assert (kinds == ["node-dead"]) is guarded, kinds


def since_death(fleet: Fleet, mark: int) -> list[str]:
    """What was told of the distant node from its death on."""
    kinds = [row["kind"] for row in fleet.events(mark) if row["node"] == node_of(DISTANT)]
    return kinds[kinds.index("node-dead") :] if "node-dead" in kinds else []


@with_and_without
def test_a_machine_that_stood_still_blames_nobody(fleet: Fleet, guarded: bool) -> None:
    blamed: list[list[str]] = []
    with altered(fleet, guarded, "own-lag", "root", LEADER):
        # Who is not forgiven may yet be lucky in the order in which things arrive; and where the agents stand still for
        # longer than they are meant to here, they are late.
        for _ in range(3):
            mark = fleet.newest()
            with fleet.frozen(*fleet.agents):
                with fleet.frozen("root", LEADER):
                    time.sleep(4.0)
                # The observers go on first, as they may.
                time.sleep(INTERVAL)
            fleet.settle()
            blamed.append(ids(fleet.events(mark, "node-suspect", "node-dead", "leader-lost")))
            if guarded and not blamed[-1]:
                break
    assert [] in blamed if guarded else any(blamed), blamed
    assert not guarded or not any("node-dead" in told for some in blamed for told in some), blamed


@with_and_without
def test_transitions_that_are_sent_again_are_one_event(fleet: Fleet, guarded: bool) -> None:
    """A leader whose acknowledgement was lost says everything once more."""
    with altered(fleet, guarded, "marks", "root"):
        fleet.kill(LEADER)
        mark = fleet.newest()
        row = NodeRow(node="node2", liveness=Liveness.DEAD, cause=Cause.SILENCE, age_ns=10**9, version=2)
        summary = RackSummary(rack="demo/rack1", epoch=99, number=1, newest=2, nodes=(row,))
        again = Transitions(epoch=99, base=1, after=0, items=(change(1, Liveness.SUSPECT), change(2, Liveness.DEAD)))
        with knock(fleet, "root", LEADER) as summaries, knock(fleet, "root", LEADER, "control") as control:
            assert summaries.is_admitted()
            for _ in range(5):
                summaries.tell(summary)
                control.tell(again)
                assert control.socket.poll(30_000), "not acknowledged"
                control.socket.recv()
        events = [row["kind"] for row in fleet.events(mark) if row["node"] == "demo/rack1/node2"]
    assert events[:2] == ["node-suspect", "node-dead"]
    assert (len(events) == 2) is guarded, events


def change(number: int, after: Liveness) -> Transition:
    dead = after is Liveness.DEAD
    return Transition(
        number=number,
        node="demo/rack1/node2",
        kind=Kind.NODE_DEAD if dead else Kind.NODE_SUSPECT,
        before=Liveness.SUSPECT if dead else Liveness.ALIVE,
        after=after,
        cause=Cause.SILENCE,
        evidence=Evidence(text="no beat", silent_ns=10**9),
        incarnation=5,
        sequence=5,
    )


@with_and_without
def test_replayed_beats_are_no_news(fleet: Fleet, guarded: bool) -> None:
    name = "rack1-node2"
    with altered(fleet, guarded, "order-of-beats", LEADER):
        fleet.kill(name)
        with knock(fleet, LEADER, name) as replayer:
            assert replayer.is_admitted()
            # At such an interval none of them is too old, however long it takes.
            recorded = [beat(7, sequence, 60.0) for sequence in range(1, 11)]
            stale = []
            for some in (recorded, recorded[:-1]):
                types = fleet.refused("unknown-type", LEADER)
                # What is heard after them is heard after them.
                replayer.say(*some, UNKNOWN_TYPE)
                fleet.until(lambda: fleet.refused("unknown-type", LEADER) > types, "all are heard")  # noqa: B023
                stale.append(fleet.refused("stale", LEADER))
            refused = stale[1] - stale[0]
    assert refused == (9 if guarded else 0)


@with_and_without
def test_a_key_that_is_taken_back_is_not_heard(fleet: Fleet, guarded: bool) -> None:
    name = "rack1-node3"
    with altered(fleet, guarded, "allow-list-of-messages", LEADER):
        skip = len(fleet.log(LEADER))
        with knock(fleet, LEADER, name) as live:
            assert live.is_admitted()
            fleet.edit_allowed(lambda allow: allow.revoke(node_of(name)))
            try:
                fleet.until(lambda: fleet.lines(LEADER, "allow-list", "keys=2", skip=skip), "the list is read again")
                before = fleet.refused("unknown-type", LEADER)
                for _ in range(20):
                    live.say(UNKNOWN_TYPE)
                if guarded:
                    time.sleep(2 * INTERVAL)
                else:
                    fleet.until(lambda: fleet.refused("unknown-type", LEADER) - before >= 20, "all are heard")
                through = fleet.refused("unknown-type", LEADER) - before
            finally:
                fleet.edit_allowed(lambda allow: allow.allow(Role.AGENT, node_of(name), fleet.keys(name).public))
    assert (through <= 1) if guarded else (through == 20)
