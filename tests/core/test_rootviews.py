"""What the root shows: merged, with who saw it and how old it is, and never green without an observer."""

from __future__ import annotations

import msgspec

from hbagent.core.effects import Answer, Fetch
from hbagent.core.messages import HostFacts, NodeReport, Query, RackReports, Report
from hbagent.core.root import RootCore
from hbagent.core.rootviews import status_view
from hbagent.core.states import Cause, Health, Liveness, RackState
from hbagent.core.views import ExplainView, StatusView
from tests.build import (
    EPOCH,
    INCARNATION,
    LEADER,
    LEADER2,
    NODE,
    NODE2,
    RACK,
    T,
    became,
    root_config,
    root_core,
    row,
    summary,
    transition,
    transitions,
)

ALIVE, SUSPECT, DEAD, UNKNOWN = Liveness.ALIVE, Liveness.SUSPECT, Liveness.DEAD, Liveness.UNKNOWN


def heard(core: RootCore, now: int, *leaders: str) -> RootCore:
    """These leaders tell that node1 lives and that node2 was never seen."""
    never = row("node2", UNKNOWN, age_ns=None, version=0, incarnation=None, sequence=None)
    for leader in leaders or (LEADER,):
        core.receive(leader, summary(now // T(0.25) + 1, row(lost=2), never, newest=1), now)
        core.receive(leader, transitions(transition(1)), now)
        core.receive(leader, summary(now // T(0.25) + 2, row(lost=2), never, newest=1), now)
    return core


def shown(core: RootCore, now: int) -> StatusView:
    leaders = core.racks[RACK]
    return status_view(core, root_config(leaders=leaders, version="1.2.3"), now)


def pass_time(core: RootCore, begin: int, end: int) -> None:
    for now in range(begin, end, T(0.25)):
        core.wake(now)


def test_before_any_leader_is_heard_a_rack_is_unknown() -> None:
    status = shown(root_core(), T(1))
    assert [rack.state for rack in status.racks] == [RackState.UNKNOWN]
    assert status.racks[0].leaders[0].state is UNKNOWN
    assert (status.nodes, status.root.role, status.root.reachable) == ([], "root", True)


def test_a_node_is_shown_with_its_age_and_by_whom_it_was_seen() -> None:
    core = heard(root_core(), T(10))
    report = Report(incarnation=INCARNATION, number=1, facts=HostFacts(load_1m=2.0), health=Health.WARNING)
    core.receive(LEADER, RackReports(rack=RACK, epoch=EPOCH, reports=(NodeReport(node="node1", report=report),)), T(10))
    core.receive(LEADER, transitions(became(2, Health.WARNING)), T(10))
    alive, never = shown(core, T(11)).nodes
    assert (alive.node, alive.liveness, alive.cause, alive.health) == (NODE, ALIVE, None, Health.WARNING)
    assert (alive.age_s, alive.lost, alive.facts) == (1.25, 2, HostFacts(load_1m=2.0))
    assert alive.since == "2026-11-21T12:00:01.000Z", "when the leader saw it change"
    assert [(seen.leader, seen.age_s, seen.speaks) for seen in alive.observers] == [(LEADER, 1.25, True)]
    assert (never.node, never.liveness, never.cause, never.age_s) == (NODE2, UNKNOWN, "never-seen", None)
    assert [seen.speaks for seen in never.observers] == [False]


def test_the_rack_is_well_when_all_its_leaders_speak_and_all_its_nodes_live() -> None:
    core = root_core(leaders=(LEADER, LEADER2))
    core.receive(LEADER, summary(1), 0)
    core.receive(LEADER, transitions(transition(1)), 0)
    assert shown(core, 0).racks[0].state is RackState.DEGRADED
    core.receive(LEADER2, summary(1), 0)
    (rack,) = shown(core, 0).racks
    assert (rack.state, rack.counts["ALIVE"]) == (RackState.OK, 1)
    core.receive(LEADER, transitions(transition(2, SUSPECT, ALIVE)), 0)
    assert shown(core, 0).racks[0].state is RackState.DEGRADED


def test_when_a_leader_is_lost_nothing_of_it_stays_green() -> None:
    core = heard(root_core(), T(1))
    pass_time(core, T(1), T(8))
    status = shown(core, T(8))
    assert status.racks[0].state is RackState.LEADER_LOST
    assert status.racks[0].leaders[0].state is DEAD
    assert status.racks[0].counts == {"ALIVE": 0, "SUSPECT": 0, "DEAD": 0, "LEFT": 0, "UNKNOWN": 2}
    assert {(node.liveness, node.cause) for node in status.nodes} == {(UNKNOWN, Cause.LEADER_LOST.value)}
    assert not any(seen.speaks for node in status.nodes for seen in node.observers)


def test_of_two_observers_the_newer_tells_the_age() -> None:
    core = heard(root_core(leaders=(LEADER, LEADER2)), T(1), LEADER, LEADER2)
    heard(core, T(3), LEADER2)
    node = shown(core, T(4)).nodes[0]
    assert node.age_s == 1.25
    assert [(seen.leader, seen.age_s) for seen in node.observers] == [(LEADER, 3.25), (LEADER2, 1.25)]


def test_the_root_shows_its_own_troubles() -> None:
    core = heard(root_core(), T(1))
    core.receive("dc1/rack9-leader1", summary(1), T(1))
    pass_time(core, T(1), T(5))
    status = shown(core, T(5))
    assert status.root.degraded.startswith("store: no answer for 3.")
    assert (status.root.refused, status.root.newest_event, status.root.uptime_s) == ({"forged-rack": 1}, 1, 5.0)


def test_a_node_is_explained_by_what_each_of_its_leaders_said_last_and_the_store_adds_the_events() -> None:
    core = heard(root_core(leaders=(LEADER, LEADER2)), T(1), LEADER, LEADER2)
    core.receive(LEADER, transitions(transition(2, SUSPECT, ALIVE)), T(2))
    (fetch,) = core.receive("asker", Query(id=7, what="explain", node=NODE), T(4))
    assert isinstance(fetch, Fetch) and isinstance(fetch.view, ExplainView)
    assert (fetch.asker, fetch.id, fetch.node) == (b"asker", 7, NODE)
    first, second = fetch.view.story
    assert (first["leader"], first["liveness"], first["cause"], first["for_s"]) == (LEADER, "SUSPECT", "silence", 2.0)
    assert (first["evidence"]["text"], first["account"]) == ("verdict 2", None)
    assert (second["leader"], second["liveness"]) == (LEADER2, "ALIVE")
    assert (fetch.view.node.liveness, fetch.view.node.cause) == (ALIVE, "link-cut")


def test_questions_are_answered_and_what_cannot_be_is_said() -> None:
    core = heard(root_core(), T(1))

    def ask(what: str, **fields: int | str) -> Answer | Fetch:
        (effect,) = core.receive("asker", Query(id=1, what=what, **fields), T(1))  # type: ignore[arg-type]
        assert isinstance(effect, (Answer, Fetch))
        return effect

    ping, status = ask("ping"), ask("status")
    assert isinstance(ping, Answer) and ping.view["role"] == "root"
    assert isinstance(status, Answer)
    assert msgspec.json.decode(msgspec.json.encode(status.view), type=StatusView) == status.view
    events = ask("events", limit=10**9, after=5)
    assert isinstance(events, Fetch) and (events.limit, events.after, events.view) == (10_000, 5, None)
    for unknown, words in ((ask("explain", node=f"{RACK}/node9"), "no node"), (ask("dance"), "cannot answer")):
        assert isinstance(unknown, Answer) and words in unknown.error
