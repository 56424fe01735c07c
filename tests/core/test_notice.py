"""Who is told of an event. A hook is told of the end of whatever it was told the beginning of, and of no other end."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.messages import Evidence, Step
from hbagent.core.notice import Asked, Phase, asks, axis_of, content, document, host_of, phase_of, subject_of
from hbagent.core.records import Event
from hbagent.core.states import Axis, Cause, Health, Kind, Liveness
from tests.build import LEADER, NODE, WALL_NS, event, hook, part

DEAD, SUSPECT, RECOVERED, RESTARTED = Kind.NODE_DEAD, Kind.NODE_SUSPECT, Kind.NODE_RECOVERED, Kind.NODE_RESTARTED


def told(on: tuple[Kind, ...], told_of: Event, was_told: bool = False) -> bool:
    return asks(hook("page", *on), told_of, was_told) is Asked.YES


def test_a_hook_is_told_of_the_kinds_in_its_list() -> None:
    assert told((DEAD,), event(1, DEAD))
    assert not told((DEAD,), event(1, SUSPECT))
    assert told((Kind.LEADER_LOST,), event(1, Kind.LEADER_LOST, node=""))


@pytest.mark.parametrize("end", [RECOVERED, RESTARTED, Kind.NODE_LEFT])
def test_a_hook_that_was_told_of_a_death_is_told_of_its_end_whichever_kind_it_has(end: Kind) -> None:
    assert told((DEAD, RECOVERED), event(2, end), True)
    assert told((SUSPECT, RECOVERED), event(2, end), True)


def test_a_hook_is_not_told_of_the_end_of_a_trouble_that_it_was_not_told_of() -> None:
    assert not told((DEAD, RECOVERED), event(2, RECOVERED))
    assert not told((DEAD, RECOVERED), event(2, RESTARTED))
    assert not told((DEAD, RECOVERED), event(2, RECOVERED))


def test_a_hook_that_does_not_ask_for_ends_is_not_told_of_any() -> None:
    assert not told((DEAD,), event(2, RECOVERED), True)
    assert not told((DEAD,), event(2, RESTARTED), True)


def test_a_hook_may_ask_for_ends_and_restarts_alone() -> None:
    assert told((RECOVERED,), event(2, RECOVERED))
    assert told((RESTARTED,), event(2, RESTARTED))


def test_who_asks_for_an_end_that_he_was_not_told_the_beginning_of_is_known_to_have_asked() -> None:
    assert asks(hook("page", DEAD, RECOVERED), event(2, RECOVERED), False) is Asked.NEVER_TOLD
    assert asks(hook("page", DEAD), event(2, RECOVERED), False) is Asked.NO


@given(st.sampled_from(list(Kind)), st.lists(st.sampled_from(list(Kind)), min_size=1, unique=True), st.booleans())
def test_joining_and_accounting_and_what_has_a_way_of_its_own_is_asked_for_by_nobody(
    kind: Kind, on: list[Kind], was_told: bool
) -> None:
    never = (Kind.NODE_JOINED, Kind.NODE_ACCOUNTED, Kind.WATCHDOG, Kind.SUMMARY)
    answer = asks(hook("page", *on), event(1, kind), was_told)
    assert answer is Asked.NO or (kind not in never and (kind in on or (was_told and RECOVERED in on)))


def test_every_kind_is_about_somebody_on_one_axis() -> None:
    assert (subject_of(event(1, DEAD)), axis_of(event(1, DEAD))) == (NODE, Axis.LIVENESS)
    assert axis_of(event(1, Kind.HEALTH_CHANGED)) is Axis.HEALTH
    lost = event(2, Kind.LEADER_LOST, node="")
    assert (subject_of(lost), axis_of(lost)) == (LEADER, Axis.LEADER)
    dark = event(3, Kind.RACK_DARK, node="")
    assert (subject_of(dark), axis_of(dark)) == ("dc1/rack1", Axis.RACK)


def test_an_event_begins_or_ends_a_trouble_or_does_neither() -> None:
    assert {kind for kind in Kind if phase_of(event(1, kind)) is Phase.ENDS} == {
        *(RECOVERED, RESTARTED, Kind.NODE_LEFT, Kind.RACK_RECOVERED, Kind.LEADER_RECOVERED)
    }
    assert phase_of(event(1, Kind.HEALTH_CHANGED, health_to=Health.OK)) is Phase.ENDS
    assert phase_of(event(1, Kind.HEALTH_CHANGED, health_to=Health.WARNING)) is Phase.BURNS
    assert phase_of(event(1, Kind.NODE_UNKNOWN)) is Phase.NEWS


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
        incident="i7",
        observers=((LEADER, Liveness.DEAD, Cause.SILENCE),),
        evidence=Evidence(text="no beat for 5.0s", incarnation=2**64 - 1, sequence=81),
    )
    read = msgspec.json.decode(document(dead))
    evidence = read.pop("evidence")
    assert read == {
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
        "incident": "i7",
        "drill": False,
        "test": False,
        "count": 0,
        "members": [],
        "observers": [{"leader": LEADER, "liveness": "DEAD", "cause": "silence"}],
    }
    assert (evidence["text"], evidence["sequence"]) == ("no beat for 5.0s", 81)
    assert evidence["incarnation"] == "f" * 16, "as text: readers of JSON lose the last bits of so large a number"


def test_what_an_event_does_not_have_is_null_or_empty() -> None:
    read = content(event(1, Kind.LEADER_LOST, node="", rack=""))
    assert (read["node"], read["rack"], read["incident"], read["evidence"]) == (None, None, None, {})
    assert read["liveness"] == {"from": None, "to": None}


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


def test_the_end_of_the_roots_isolation_is_told_to_who_was_told_of_it() -> None:
    end = event(2, Kind.LEADER_RECOVERED, node="", leader="", cause=Cause.ROOT_ISOLATED)
    assert told((Kind.ROOT_ISOLATED, Kind.LEADER_RECOVERED), end, True)
    assert not told((Kind.LEADER_LOST, Kind.LEADER_RECOVERED), end)
    assert not told((Kind.ROOT_ISOLATED,), end, True)
    assert told((Kind.LEADER_RECOVERED,), event(2, Kind.LEADER_RECOVERED, node="")), "of a leader"


def test_what_is_told_of_a_rack_or_of_the_root_stays_in_order() -> None:
    dark, back = (
        subject_of(event(number, kind, node="", leader=by))
        for number, kind, by in ((1, Kind.RACK_DARK, LEADER), (2, Kind.RACK_RECOVERED, "dc1/rack1-leader2"))
    )
    assert dark == back == "dc1/rack1"
    cut = event(3, Kind.ROOT_ISOLATED, node="", leader="", rack="")
    heard = event(4, Kind.LEADER_RECOVERED, node="", leader="", rack="")
    assert subject_of(cut) == subject_of(heard) != ""
    assert axis_of(cut) is axis_of(heard) is Axis.ROOT


def test_a_hook_reads_the_story_of_a_verdict_in_milliseconds() -> None:
    steps = (Step(1_012_400_000, "asked"), Step(1_250_000_000, "nobody answers"))
    gone = event(7, DEAD, cause=Cause.HOST_GONE, evidence=Evidence(text="nothing on any path", steps=steps))
    assert content(gone)["evidence"]["steps"] == [
        {"after_ms": 1012.4, "text": "asked"},
        {"after_ms": 1250.0, "text": "nobody answers"},
    ]


def test_a_drill_is_marked_as_one_and_told_to_hooks_that_want_drills() -> None:
    drill = part("hbagent-drill-1f", Health.STALLED)
    for changes, marked in (((drill,), True), ((drill, part("web", Health.STALLED)), False)):
        changed = event(1, Kind.HEALTH_CHANGED, evidence=Evidence(text="stuck", changes=changes))
        page, ticket = hook("page", Kind.HEALTH_CHANGED), hook("ticket", Kind.HEALTH_CHANGED, drills=False)
        assert asks(page, changed, False) is Asked.YES
        assert asks(ticket, changed, False) is (Asked.NO if marked else Asked.YES)
        assert content(changed)["drill"] is marked
