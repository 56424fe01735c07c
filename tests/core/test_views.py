from __future__ import annotations

import json
from typing import Any

import msgspec

from hbagent.core.messages import Account, Evidence, Step
from hbagent.core.states import Kind, Liveness
from hbagent.core.views import count_liveness, events_view, evidence_view, incarnation_view, seconds_of
from tests.build import NODE, NODE2, event


def test_every_liveness_is_counted_also_when_nobody_has_it() -> None:
    counts = count_liveness([Liveness.ALIVE, Liveness.DEAD, Liveness.ALIVE])
    assert counts == {"ALIVE": 2, "SUSPECT": 0, "DEAD": 1, "LEFT": 0, "UNKNOWN": 0}


def test_ages_are_seconds_with_milliseconds_and_unknown_ones_are_null() -> None:
    assert (seconds_of(1_234_567_890), seconds_of(0), seconds_of(None)) == (1.235, 0.0, None)


def test_an_incarnation_survives_a_reader_that_knows_no_integers() -> None:
    shown = evidence_view(Evidence(text="silent", incarnation=2**64 - 1, sequence=7))
    read = json.loads(msgspec.json.encode(shown), parse_int=float)
    assert int(read["incarnation"], 16) == 2**64 - 1
    assert read["sequence"] == 7
    assert (incarnation_view(5), incarnation_view(None)) == ("0000000000000005", None)


def test_a_story_has_its_times_in_milliseconds_and_the_account_its_incarnation_as_text() -> None:
    account = Account(number=1, incarnation=2**64 - 1, covered_ns=5, loop_gap_max_ns=7)
    told = Evidence(text="frozen", steps=(Step(1_012_345_678, "asked"),), account=account)
    shown = evidence_view(told)
    assert shown["steps"] == [{"after_ms": 1012.346, "text": "asked"}]
    assert (shown["account"]["incarnation"], shown["account"]["loop_gap_max_ns"]) == ("f" * 16, 7)
    assert evidence_view(msgspec.to_builtins(told)) == shown, "from the history as from the core"
    plain = evidence_view(Evidence(text="silent"))
    assert (plain["steps"], plain["account"]) == ([], None)
    assert evidence_view({"text": "of an older program"})["steps"] == []


def history(*kinds: str, node: str = NODE) -> list[dict[str, Any]]:
    """Events of a node, oldest first, as a store hands them out: newest first."""
    values = {
        "node-suspect": (Liveness.ALIVE, Liveness.SUSPECT),
        "node-dead": (Liveness.SUSPECT, Liveness.DEAD),
        "node-recovered": (Liveness.DEAD, Liveness.ALIVE),
        "node-accounted": (Liveness.ALIVE, Liveness.ALIVE),
    }
    events = [
        event(
            number,
            Kind(kind),
            node=node,
            liveness_from=values[kind][0],
            liveness_to=values[kind][1],
            evidence=Evidence(text=f"{kind} {number}"),
        )
        for number, kind in enumerate(kinds, 1)
    ]
    return [msgspec.to_builtins(one) for one in reversed(events)]


def accounts(events: list[dict[str, Any]]) -> list[str | None]:
    """The accounts of the events, oldest first."""
    return [view.get("account") for view in reversed(events_view(events))]


def test_what_a_node_said_relabels_the_silence_that_it_speaks_of_and_no_older_one() -> None:
    first = ("node-suspect", "node-dead", "node-recovered")
    second = ("node-suspect", "node-dead", "node-recovered", "node-accounted")
    assert accounts(history(*first, *second)) == [
        None,
        None,
        None,
        "node-accounted 7",
        "node-accounted 7",
        None,
        None,
    ]


def test_each_silence_has_its_own_account_also_when_two_leaders_tell_it() -> None:
    one = ("node-suspect", "node-recovered", "node-accounted", "node-accounted")
    assert accounts(history(*one, *one)) == ["node-accounted 3", None, None, None, "node-accounted 7", None, None, None]


def test_the_account_of_one_node_relabels_no_other() -> None:
    other = history("node-suspect", node=NODE2)
    mine = history("node-suspect", "node-recovered", "node-accounted")
    shown = events_view([*mine[:1], *other, *mine[1:]])
    assert [view.get("account") for view in shown] == [None, None, None, "node-accounted 3"]


def test_an_event_is_shown_in_the_form_of_a_hooks_input() -> None:
    (shown,) = events_view(history("node-dead"))
    assert shown["at"] == "2026-11-21T12:00:00.000Z"
    assert (shown["liveness"], shown["health"]) == ({"from": "SUSPECT", "to": "DEAD"}, {"from": None, "to": None})
    assert not {"at_wall_ns", "liveness_to", "health_from"} & set(shown)
