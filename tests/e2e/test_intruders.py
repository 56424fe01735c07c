"""Rows F18 to F21: copied keys, replayed and forged messages, keys that are unknown or were taken back."""

from __future__ import annotations

import contextlib
import datetime
import socket
import threading
import time
from collections.abc import Iterator

import msgspec
import pytest
import zmq

from hbagent.core.messages import (
    Evidence,
    NodeReport,
    NodeRow,
    RackReports,
    RackSummary,
    Report,
    Transition,
    Transitions,
    TransitionsAck,
)
from hbagent.core.states import Cause, Kind, Liveness
from hbagent.demo.datacenter import Plan, held_ports
from hbagent.transport.allow import Role
from hbagent.transport.keys import KeyPair
from hbagent.transport.monitor import LinkEvent, Monitor
from tests.conftest import Figures
from tests.e2e.chaos import Proxy
from tests.e2e.conftest import Build
from tests.e2e.fleet import Fleet, ids, node_of
from tests.e2e.intruder import UNKNOWN_TYPE, Intruder, beat, stranger
from tests.e2e.patient import PATIENT

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("healed"), pytest.mark.timeout(120)]

INTERVAL = 0.2
LEADER = "rack1-leader1"
PLAN = Plan(
    racks=2,
    nodes=3,
    interval="200ms",
    leader_tables=PATIENT,
    root_lines=('lease = "5s"',),
)
#: What is counted of honest nodes too, when a leader finds several of their beats at once.
ORDINARY = ("old",)


@pytest.fixture(scope="module")
def fleet(build: Build) -> Fleet:
    made = build(PLAN)
    made.wake_up()
    return made


def knock(fleet: Fleet, at: str, as_: str, port: str = "publish") -> Intruder:
    """A raw client at a daemon's door with the key of one of the datacenter's processes."""
    kind = zmq.XPUB if port == "publish" else zmq.DEALER
    return Intruder(fleet.setting(at, port), fleet.keys(at).public, fleet.keys(as_), kind)


def refusals(fleet: Fleet, of: str = LEADER) -> dict[str, int]:
    """What a root or leader has refused, by reason: whatever only somebody dishonest has refused."""
    status = fleet.ask("status", of)
    assert status is not None, f"{of} does not answer"
    return {reason: count for reason, count in status["root"]["refused"].items() if reason not in ORDINARY}


def logged(fleet: Fleet, name: str, *words: str, skip: int = 0) -> list[str]:
    """Log lines with these words, of which one will come at least: they are written a little later than it is known."""
    fleet.until(lambda: fleet.lines(name, *words, skip=skip), f"{name} writes of {' '.join(words)}")
    return fleet.lines(name, *words, skip=skip)


def at(line: str) -> float:
    """The time of a log line in seconds."""
    return datetime.datetime.fromisoformat(line.split()[0]).timestamp()


# ---- F18: one key on two hosts ---------------------------------------------------------------------------


@pytest.mark.parametrize("survivor", ["original", "copy"])
def test_a_key_on_two_hosts_is_one_verdict(fleet: Fleet, figures: Figures, survivor: str) -> None:
    original, copy = "rack1-node1", "rack1-node1-copy"
    port = fleet.setting(original, "port")
    with held_ports(1) as (other_port,):
        text = fleet.config(original).read_text().replace(f"port = {port}", f"port = {other_port}")
        fleet.config(copy).write_text(text)
        key_on_two_hosts(fleet, figures, survivor, original, copy)


def key_on_two_hosts(fleet: Fleet, figures: Figures, survivor: str, original: str, copy: str) -> None:
    mark, skip = fleet.newest(), len(fleet.log(LEADER))
    fleet.start([copy])
    try:
        fleet.until(lambda: fleet.state(original) == ("UNKNOWN", "duplicate-id"), "duplicate-id")
        first, verdict = (at(logged(fleet, LEADER, what, skip=skip)[0]) for what in ("restarted", "duplicate-id"))
        figures("F18", f"first beat of the copy to duplicate-id {verdict - first:.2f} s (within {3 * INTERVAL:.1f} s)")
        # Ten intervals in which both beat: nothing more is told.
        time.sleep(10 * INTERVAL)
        assert ids(fleet.events(mark)) == [
            "demo/rack1/node1 node-restarted",
            "demo/rack1/node1 node-unknown duplicate-id",
        ]
        fleet.kill(copy if survivor == "original" else original)
        healed = fleet.until(lambda: len(fleet.events(mark)) >= 3, "who is left is heard")
        figures("F18", f"{survivor} left alone to ALIVE {healed:.2f} s")
        time.sleep(5 * INTERVAL)
        assert len(fleet.events(mark)) == 3, ids(fleet.events(mark))
        assert fleet.events(mark)[-1]["liveness"] == {"from": "UNKNOWN", "to": "ALIVE"}
    finally:
        if fleet.processes[copy].poll() is None:
            fleet.kill(copy)


# ---- F19: replays ----------------------------------------------------------------------------------------


def test_replayed_beats_change_nothing_and_are_counted(fleet: Fleet, figures: Figures) -> None:
    name = "rack1-node2"
    fleet.end(name)
    fleet.until_liveness(name, "LEFT")
    reasons = ("duplicate", "stale", "retired")
    with knock(fleet, LEADER, name) as replayer:
        assert replayer.is_admitted()
        mark = fleet.newest()
        recorded = []
        for sequence in range(1, 21):
            recorded.append(beat(7, sequence))
            replayer.say(recorded[-1])
            time.sleep(0.02)
        fleet.until(lambda: fleet.events(mark, "node-restarted"), "the first life is told")
        before = {reason: fleet.refused(reason, LEADER) for reason in reasons}
        mark = fleet.newest()
        replayer.say(*recorded)
        fleet.until(lambda: fleet.refused("stale", LEADER) - before["stale"] >= 19, "all counted")
        # A new life; then the old one once more.
        fresh = [beat(8, 1), beat(8, 2)]
        replayer.say(*fresh)
        replayer.say(*recorded)
        fleet.until(lambda: fleet.refused("retired", LEADER) - before["retired"] >= 20, "all counted")
        replayed = {reason: fleet.refused(reason, LEADER) - before[reason] for reason in reasons}
        assert replayed == {"duplicate": 1, "stale": 19, "retired": 20}
        figures("F19", f"replayed beats: sent 40, counted {sum(replayed.values())}, applied 0")
        fleet.until(lambda: fleet.events(mark, "node-suspect"), "replays kept it alive")
    kinds = [row["kind"] for row in fleet.events(mark) if row["node"] == node_of(name)]
    assert kinds[:2] == ["node-restarted", "node-suspect"], "a replay was told of"


def test_a_recorded_session_says_nothing_the_second_time(fleet: Fleet, figures: Figures) -> None:
    name, publish = "rack1-node3", fleet.setting(LEADER, "publish")
    port = int(publish.rpartition(":")[2])
    original = fleet.config(name).read_text()
    with Proxy(port) as proxy:
        fleet.config(name).write_text(original.replace(publish, f"tcp://127.0.0.1:{proxy.port}"))
        mark = fleet.newest()
        fleet.restart(name)
        fleet.until(lambda: fleet.events(mark, "node-restarted"), "it calls through the proxy")
        fleet.until(lambda: sum(map(len, proxy.recorded)) > 4000, "something is recorded", 60.0)
        sessions = [bytes(record) for record in proxy.recorded]
        fleet.config(name).write_text(original)
        fleet.settle()
        mark = fleet.newest()
        fleet.restart(name)
        fleet.until(lambda: fleet.events(mark, "node-restarted"), "it calls the leader itself again")
        fleet.settle()
    mark, before = fleet.newest(), refusals(fleet)
    for session in sessions:
        with socket.create_connection(("127.0.0.1", port), 2.0) as replay:
            replay.settimeout(2.0)
            replay.sendall(session)
            answer = b""
            try:
                while data := replay.recv(4096):
                    answer += data
            except OSError:
                pass
            assert b"READY" not in answer, "let in"
    time.sleep(2 * INTERVAL)
    assert refusals(fleet) == before, "it was heard"
    assert ids(fleet.events(mark)) == []
    figures("F19", f"{len(sessions)} recorded sessions of {sum(map(len, sessions))} bytes replayed: 0 messages heard")


# ---- F20: forgeries --------------------------------------------------------------------------------------


def forged(rack: str, number: int = 1) -> tuple[RackSummary, RackReports, Transitions]:
    """What only the leader of `rack` may say: that its node1 is dead."""
    evidence = Evidence(text="forged")
    transition = Transition(
        number=number,
        node=f"{rack}/node1",
        kind=Kind.NODE_DEAD,
        before=Liveness.ALIVE,
        after=Liveness.DEAD,
        cause=Cause.SILENCE,
        evidence=evidence,
        incarnation=1,
        sequence=1,
    )
    row = NodeRow(node="node1", liveness=Liveness.DEAD, age_ns=0, incarnation=1, sequence=1, version=number)
    return (
        RackSummary(rack=rack, epoch=99, number=1, newest=number, nodes=(row,)),
        RackReports(rack=rack, epoch=99, reports=(NodeReport(node="node1", report=Report(incarnation=1, number=9)),)),
        Transitions(epoch=99, base=number, after=number - 1, items=(transition,)),
    )


def test_a_leader_speaks_for_its_own_rack_only(fleet: Fleet, figures: Figures) -> None:
    mark, skip, before = fleet.newest(), len(fleet.log("root")), fleet.refused("forged-rack", "root")
    begun = time.monotonic()
    with (
        knock(fleet, "root", LEADER) as summaries,
        knock(fleet, "root", LEADER, "control") as control,
    ):
        assert summaries.is_admitted()
        for number in range(1, 51):
            summary, reports, transitions = forged("demo/rack2", number)
            summaries.tell(summary, reports)
            control.tell(transitions)
        sent = summaries.said + control.said
        fleet.until(lambda: fleet.refused("forged-rack", "root") - before >= sent, "all counted")
        assert fleet.refused("forged-rack", "root") - before == sent
    span = time.monotonic() - begun
    lines = logged(fleet, "root", "refused", "forged-rack", skip=skip)
    figures("F20", f"forged racks: sent {sent}, counted {sent}, applied 0, log lines {len(lines)} in {span:.1f} s")
    assert len(lines) <= 1 + span
    assert ids(fleet.events(mark)) == []


def test_an_agent_is_no_leader_and_no_root(fleet: Fleet, figures: Figures) -> None:
    """Its key opens the leader's doors, where it may say only what an agent says, and none of the root's."""
    mark = fleet.newest()
    before = fleet.refused("unexpected-type", LEADER)
    root_before = refusals(fleet, "root")
    summary, reports, transitions = forged("demo/rack1")
    with knock(fleet, LEADER, "rack1-node1") as agent, knock(fleet, LEADER, "rack1-node1", "control") as control:
        assert agent.is_admitted()
        for _ in range(20):
            agent.tell(summary, reports)
            control.tell(transitions, TransitionsAck(epoch=1, number=10**6))
        sent = agent.said + control.said
        fleet.until(lambda: fleet.refused("unexpected-type", LEADER) - before >= sent, "all counted")
        assert fleet.refused("unexpected-type", LEADER) - before == sent
    with knock(fleet, "root", "rack1-node1") as uplink, knock(fleet, "root", "rack1-node1", "control") as control:
        assert not uplink.is_admitted(2.0)
        uplink.tell(*forged("demo/rack1"))
        control.tell(*forged("demo/rack1"))
        time.sleep(0.5)
    assert refusals(fleet, "root") == root_before, "it was heard"
    assert logged(fleet, "root", "handshake-refused")
    assert ids(fleet.events(mark)) == []
    figures("F20", f"an agent's key: {sent} messages of a leader or root counted and refused, 0 heard at the root")


# ---- F21: keys -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("port", ["publish", "control"])
@pytest.mark.parametrize("at_", [LEADER, "root"])
def test_who_is_not_enrolled_is_not_heard(fleet: Fleet, at_: str, port: str) -> None:
    endpoint, server = fleet.setting(at_, port), fleet.keys(at_).public
    enrolled, elsewhere = ("rack1-node1", "rack2-node1") if at_ == LEADER else (LEADER, "rack1-node1")
    kind = zmq.XPUB if port == "publish" else zmq.DEALER
    before = fleet.refused("unknown-type", at_)
    with contextlib.ExitStack() as stack:
        attempts = [
            stack.enter_context(attempt)
            for attempt in (
                Intruder(endpoint, server, stranger(), kind),
                Intruder(endpoint, server, fleet.keys(elsewhere), kind),
                Intruder(endpoint, kind=kind),
                Intruder(endpoint, stranger().public, fleet.keys(enrolled), kind),
                Intruder(endpoint, server, stolen_public(fleet, enrolled), kind),
            )
        ]
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            for attempt in attempts:
                attempt.say(UNKNOWN_TYPE)
            time.sleep(0.05)
        if kind == zmq.XPUB:
            assert not [attempt for attempt in attempts if attempt.is_admitted(0.01)]
    assert fleet.refused("unknown-type", at_) == before
    # The same client with the right keys is heard, so the count does count.
    with knock(fleet, at_, enrolled, port) as known:
        assert kind != zmq.XPUB or known.is_admitted()
        known.say(UNKNOWN_TYPE)
        fleet.until(lambda: fleet.refused("unknown-type", at_) == before + 1, "whoever is enrolled is heard")


def stolen_public(fleet: Fleet, name: str) -> KeyPair:
    """Somebody's public key with a secret of one's own."""
    return msgspec.structs.replace(fleet.keys(name), secret=stranger().secret)


def test_a_key_that_is_taken_back_is_not_heard_any_more(fleet: Fleet, figures: Figures) -> None:
    name = "rack1-node2"
    key = fleet.keys(name).public
    mark, skip = fleet.newest(), len(fleet.log(LEADER))
    lost = threading.Event()
    with knock(fleet, LEADER, name) as live:
        assert live.is_admitted()
        monitor = Monitor({"": live.socket}, lambda link: lost.set(), (LinkEvent.LOST,))
        live.say(UNKNOWN_TYPE)
        fleet.edit_allowed(lambda allow: allow.revoke(node_of(name)))
        fleet.signal(LEADER, 1)
        fleet.until(lambda: fleet.lines(LEADER, "allow-list", "keys=2", skip=skip), "the list is read again")
        before = fleet.refused("unknown-type", LEADER)
        for _ in range(50):
            live.say(UNKNOWN_TYPE)
            time.sleep(0.01)
        assert lost.wait(30.0), "it is still connected"
        through = fleet.refused("unknown-type", LEADER) - before
        assert through <= 1
        figures("F21", f"messages through after a key was taken back: {through} of 50 (at most 1), and cut")
        monitor.stop()
    # An agent that starts unenrolled joins by itself once its key is there.
    try:
        fleet.until_liveness(name, "DEAD")
        assert {row["node"] for row in fleet.events(mark)} == {node_of(name)}
        fleet.kill(name)
        skip = len(fleet.log(name))
        fleet.start([name])
        fleet.until(lambda: fleet.lines(name, "leader-refused-our-key", skip=skip), "it is refused")
    finally:
        fleet.edit_allowed(lambda allow: allow.allow(Role.AGENT, node_of(name), key))
    took = fleet.until_liveness(name, "ALIVE", seconds=30)
    figures("F21", f"enrolled to ALIVE without a restart {took:.2f} s")
    assert len(fleet.lines(name, "started", skip=skip)) == 1


def test_a_leader_whose_key_is_taken_back_loses_its_lease_and_has_it_again(fleet: Fleet) -> None:
    mark, key = fleet.newest(), fleet.keys(LEADER).public
    fleet.edit_allowed(lambda allow: allow.revoke(f"demo/{LEADER}"), "root")
    try:
        fleet.until(lambda: fleet.events(mark, "leader-lost"), "it is not heard")
        assert {fleet.state(name) for name in fleet.nodes_of("rack1")} == {("UNKNOWN", "leader-lost")}
    finally:
        fleet.edit_allowed(lambda allow: allow.allow(Role.LEADER, f"demo/{LEADER}", key), "root")
    fleet.settle()
    assert ids(fleet.events(mark)) == [
        "demo/rack1-leader1 leader-lost leader-lost",
        "demo/rack1-leader1 leader-recovered",
    ]


def test_without_its_doorkeeper_a_leader_admits_nobody_new(fleet: Fleet) -> None:
    """Its thread has ended and nobody looks after it."""
    with altered(fleet, "doorkeeper"):
        with Intruder(fleet.setting(LEADER, "publish"), fleet.keys(LEADER).public, stranger()) as unknown:
            assert not unknown.is_admitted(3.0)
        with knock(fleet, LEADER, "rack1-node1") as known:
            assert not known.is_admitted(3.0)
        # Whoever had lost his connection would not be let in again: those inside are heard as before.
        fleet.settle()


def test_a_doorkeeper_that_ends_is_told_of_and_another_takes_its_place(fleet: Fleet, figures: Figures) -> None:
    skip = len(fleet.log(LEADER))
    with altered(fleet, "doorkeepers-nerves"):
        with Intruder(fleet.setting(LEADER, "publish"), fleet.keys(LEADER).public, stranger()) as unknown:
            fleet.until(lambda: fleet.lines(LEADER, "doorkeeper-ended", skip=skip), "it ended")
            assert not unknown.is_admitted(0.5)
        begun = time.monotonic()
        with knock(fleet, LEADER, "rack1-node1") as known:
            assert known.is_admitted()
        figures(
            "F21", f"doorkeeper dead: admitted 0, those inside heard; a new one after {time.monotonic() - begun:.2f} s"
        )


@contextlib.contextmanager
def altered(fleet: Fleet, guard: str) -> Iterator[None]:
    """With a leader that lacks a guard."""
    fleet.without[LEADER] = guard
    fleet.restart(LEADER)
    fleet.settle()
    try:
        yield
    finally:
        del fleet.without[LEADER]
        fleet.restart(LEADER)
