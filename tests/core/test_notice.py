"""Who is told of an event. A hook is told of the end of whatever it was told the beginning of, and of no other end."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.messages import Evidence, Step
from hbagent.core.notice import host_of, notices
from hbagent.core.records import Event
from hbagent.core.states import Cause, Health, Kind, Liveness
from tests.build import LEADER, NODE, WALL_NS, event, hook, part

DEAD, SUSPECT, RECOVERED, RESTARTED = Kind.NODE_DEAD, Kind.NODE_SUSPECT, Kind.NODE_RECOVERED, Kind.NODE_RESTARTED


def told(on: tuple[Kind, ...], told_of: Event, was_open: str = "") -> bool:
    return bool(notices((hook("page", *on),), told_of, was_open))


def test_a_hook_is_told_of_the_kinds_in_its_list() -> None:
    assert told((DEAD,), event(1, DEAD))
    assert not told((DEAD,), event(1, SUSPECT))
    assert told((Kind.LEADER_LOST,), event(1, Kind.LEADER_LOST, node=""))


@pytest.mark.parametrize("end", [RECOVERED, RESTARTED, Kind.NODE_LEFT])
def test_a_hook_that_was_told_of_a_death_is_told_of_its_end_whichever_kind_it_has(end: Kind) -> None:
    assert told((DEAD, RECOVERED), event(2, end), "node-suspect,node-dead")
    assert told((SUSPECT, RECOVERED), event(2, end), "node-suspect")


def test_a_hook_is_not_told_of_the_end_of_a_trouble_that_it_was_not_told_of() -> None:
    assert not told((DEAD, RECOVERED), event(2, RECOVERED), "node-suspect")
    assert not told((DEAD, RECOVERED), event(2, RESTARTED), "node-suspect")
    assert not told((DEAD, RECOVERED), event(2, RECOVERED))


def test_a_hook_that_does_not_ask_for_ends_is_not_told_of_any() -> None:
    assert not told((DEAD,), event(2, RECOVERED), "node-dead")
    assert not told((DEAD,), event(2, RESTARTED), "node-dead")


def test_a_hook_may_ask_for_ends_and_restarts_alone() -> None:
    assert told((RECOVERED,), event(2, RECOVERED), "node-dead")
    assert told((RESTARTED,), event(2, RESTARTED))


@given(st.sampled_from(list(Kind)), st.lists(st.sampled_from(list(Kind)), min_size=1, unique=True))
def test_joining_and_what_comes_late_is_history_only(kind: Kind, on: list[Kind]) -> None:
    assert not told(tuple(on), event(1, kind, late=True), "node-dead")
    assert not told(tuple(on), event(1, Kind.NODE_JOINED), "node-dead")


def test_each_hook_that_is_told_has_a_run_of_its_own_in_the_nodes_queue() -> None:
    page, log = notices((hook("page"), hook("log")), event(7, DEAD), "")
    assert (page.run_id, log.run_id) == ("e-7-page", "e-7-log")
    assert (page.node, page.queued, page.attempt) == (NODE, 7, 0)
    (lost,) = notices((hook("page"),), event(8, Kind.LEADER_LOST, node=""), "")
    assert lost.node == LEADER


def test_a_hook_reads_the_documented_shape() -> None:
    dead = event(
        7,
        DEAD,
        at_wall_ns=WALL_NS + 3_250_000_000,
        liveness_from=Liveness.SUSPECT,
        liveness_to=Liveness.DEAD,
        health_from=Health.OK,
        health_to=Health.OK,
        cause=Cause.SILENCE,
        evidence=Evidence(text="no beat for 5.0s", incarnation=2**64 - 1, sequence=81),
    )
    (run,) = notices((hook("page"),), dead, "")
    document = msgspec.json.decode(run.input)
    evidence = document.pop("evidence")
    assert document == {
        "schema": 1,
        "event_id": "e-7",
        "attempt": 0,
        "kind": "node-dead",
        "at": "2026-11-21T12:00:03.250Z",
        "node": NODE,
        "rack": "dc1/rack1",
        "leader": LEADER,
        "liveness": {"from": "SUSPECT", "to": "DEAD"},
        "health": {"from": "OK", "to": "OK"},
        "cause": "silence",
        "host": "unknown",
        "drill": False,
    }
    assert (evidence["text"], evidence["sequence"]) == ("no beat for 5.0s", 81)
    assert evidence["incarnation"] == "f" * 16, "as text: readers of JSON lose the last bits of so large a number"


def test_what_an_event_does_not_have_is_null_or_empty() -> None:
    (run,) = notices((hook("page"),), event(1, Kind.LEADER_LOST, node="", rack=""), "")
    document = msgspec.json.decode(run.input)
    assert (document["node"], document["rack"], document["evidence"]) == (None, None, {})
    assert document["liveness"] == {"from": None, "to": None}


@pytest.mark.parametrize(
    ("liveness", "cause", "host"),
    [
        (Liveness.ALIVE, None, "up"),
        (Liveness.ALIVE, Cause.LINK_CUT, "up"),
        (Liveness.DEAD, Cause.PROCESS_EXIT, "up"),
        (Liveness.SUSPECT, Cause.PROCESS_FROZEN, "up"),
        (Liveness.DEAD, Cause.PROCESS_FROZEN, "up"),
        (Liveness.DEAD, Cause.HOST_GONE, "down"),
        (Liveness.DEAD, Cause.SILENCE, "unknown"),
        (Liveness.UNKNOWN, Cause.RACK_DARK, "unknown"),
        (Liveness.LEFT, Cause.LEFT, "unknown"),
        (None, Cause.LEADER_LOST, "unknown"),
        (None, None, "unknown"),
    ],
)
def test_a_hook_is_told_whether_the_host_lives(liveness: Liveness | None, cause: Cause | None, host: str) -> None:
    assert host_of(liveness, cause) == host


@given(st.sampled_from(list(Kind)), st.lists(st.sampled_from(list(Kind)), min_size=1, unique=True))
def test_what_is_withheld_is_history_but_for_the_end_of_what_was_told(kind: Kind, on: list[Kind]) -> None:
    withheld = event(1, kind, withheld="rack-dark")
    assert not told(tuple(on), withheld, "node-suspect")
    ended = event(1, kind, withheld="rack-dark", liveness_to=Liveness.ALIVE)
    assert not told(tuple(on), ended)
    assert not told((RECOVERED, RESTARTED), ended, "node-suspect")


def test_the_end_of_a_suspicion_is_told_also_when_its_rack_was_dark_meanwhile() -> None:
    end = event(2, RECOVERED, withheld="rack-dark", liveness_to=Liveness.ALIVE)
    assert told((SUSPECT, RECOVERED), end, "node-suspect")


def test_what_a_node_says_of_its_silence_is_told_to_no_hook() -> None:
    assert not told((Kind.NODE_ACCOUNTED,), event(1, Kind.NODE_ACCOUNTED, withheld="accounted"))
    assert not told((Kind.NODE_ACCOUNTED,), event(1, Kind.NODE_ACCOUNTED))


def test_the_end_of_the_roots_isolation_is_told_to_who_was_told_of_it() -> None:
    end = event(2, Kind.LEADER_RECOVERED, node="", leader="", cause=Cause.ROOT_ISOLATED)
    assert told((Kind.ROOT_ISOLATED, Kind.LEADER_RECOVERED), end, "root-isolated")
    assert not told((Kind.LEADER_LOST, Kind.LEADER_RECOVERED), end, "root-isolated")
    assert not told((Kind.ROOT_ISOLATED,), end, "root-isolated")
    assert told((Kind.LEADER_RECOVERED,), event(2, Kind.LEADER_RECOVERED, node="")), "of a leader as ever"


def test_what_is_told_of_a_rack_or_of_the_root_stays_in_order() -> None:
    everything = hook("page", *Kind)
    dark, back = (
        notices((everything,), event(number, kind, node="", leader=by), "")[0]
        for number, kind, by in ((1, Kind.RACK_DARK, LEADER), (2, Kind.RACK_RECOVERED, "dc1/rack1-leader2"))
    )
    assert dark.node == back.node == "dc1/rack1"
    cut = event(3, Kind.ROOT_ISOLATED, node="", leader="", rack="")
    heard = event(4, Kind.LEADER_RECOVERED, node="", leader="", rack="")
    assert notices((everything,), cut, "")[0].node == notices((everything,), heard, "root-isolated")[0].node != ""


def test_a_hook_reads_the_story_of_a_verdict_in_milliseconds() -> None:
    steps = (Step(1_012_400_000, "asked"), Step(1_250_000_000, "nobody answers"))
    gone = event(7, DEAD, cause=Cause.HOST_GONE, evidence=Evidence(text="nothing on any path", steps=steps))
    (run,) = notices((hook("page"),), gone, "")
    document = msgspec.json.decode(run.input)
    assert document["evidence"]["steps"] == [
        {"after_ms": 1012.4, "text": "asked"},
        {"after_ms": 1250.0, "text": "nobody answers"},
    ]


def test_a_drill_is_marked_as_one_and_told_to_hooks_that_want_drills() -> None:
    drill = part("hbagent-drill-1f", Health.STALLED)
    for changes, marked in (((drill,), True), ((drill, part("web", Health.STALLED)), False)):
        changed = event(1, Kind.HEALTH_CHANGED, evidence=Evidence(text="stuck", changes=changes))
        runs = notices(
            (hook("page", Kind.HEALTH_CHANGED), hook("ticket", Kind.HEALTH_CHANGED, drills=False)), changed, ""
        )
        assert [run.hook for run in runs] == (["page"] if marked else ["page", "ticket"])
        assert msgspec.json.decode(runs[0].input)["drill"] is marked
