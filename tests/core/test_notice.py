"""Who is told of an event. A hook is told of the end of whatever it was told the beginning of, and of no other end."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.messages import Evidence
from hbagent.core.notice import notices
from hbagent.core.records import Event
from hbagent.core.states import Cause, Health, Kind, Liveness
from tests.build import LEADER, NODE, WALL_NS, event, hook

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
    }
    assert (evidence["text"], evidence["sequence"]) == ("no beat for 5.0s", 81)
    assert evidence["incarnation"] == "f" * 16, "as text: readers of JSON lose the last bits of so large a number"


def test_what_an_event_does_not_have_is_null_or_empty() -> None:
    (run,) = notices((hook("page"),), event(1, Kind.LEADER_LOST, node="", rack=""), "")
    document = msgspec.json.decode(run.input)
    assert (document["node"], document["rack"], document["evidence"]) == (None, None, {})
    assert document["liveness"] == {"from": None, "to": None}
