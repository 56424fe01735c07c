"""Incidents, silences and what was not sent as text: every reason in words, and nothing hostile obeyed."""

from __future__ import annotations

from typing import Any

import pytest

from hbagent.cli.grid import Screen
from hbagent.cli.incidents import (
    incident_lines,
    incident_state,
    marks_text,
    matcher_text,
    silence_cells,
    silence_sentence,
    silences_grid,
    until_text,
)
from hbagent.cli.unsent import unsent_lines, why
from hbagent.core.states import Reason

NOW = "2026-11-21T12:00:13.250Z"
PIPE = Screen()
SMALL = Screen(width=80, height=24)
BAD = "x\x1b[31m\x07\r\n\u202e<b>{ref.__class__}"

Row = dict[str, Any]


def incident(**more: Any) -> Row:
    return {
        "incident": "i17",
        "state": "firing",
        "axis": "liveness",
        "kind": "node-dead",
        "rack": "demo/rack1",
        "cause": "host-gone",
        "opened": "2026-11-21T11:58:00.000Z",
        "age_s": 133.25,
        "burning": 3,
        "count": 4,
        "members": [f"demo/rack1/node{at}" for at in range(1, 6)],
        "text": "no sign of its host",
        "acked_by": "",
        "comment": "",
        "silenced_by": [],
        "inhibited_by": "",
        "drill": False,
        **more,
    }


def silence(**more: Any) -> Row:
    return {
        "silence": "s3",
        "maintenance": False,
        "state": "active",
        "nodes": [],
        "racks": ["r12", "r13"],
        "causes": ["host-gone"],
        "kinds": [],
        "begins": "2026-11-21T11:00:00.000Z",
        "ends": "2026-11-21T14:00:00.000Z",
        "next": "2026-11-21T14:00:00.000Z",
        "every": "",
        "length_s": 10800.0,
        "reason": "new switch",
        "author": "ops",
        "ended_by": "",
        "covers": 3,
        **more,
    }


def unsent(**more: Any) -> Row:
    return {
        "event_id": "2a-7",
        "kind": "node-dead",
        "at": "2026-11-21T12:00:03.250Z",
        "subject": "demo/rack1/node1",
        "receiver": "page",
        "state": "suppressed",
        "reason": "silence",
        "ref": "s3",
        "text": "no beat for 2.5s",
        **more,
    }


# ---- incidents -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "state", "note"),
    [
        ({}, "firing", ""),
        ({"state": "acknowledged", "acked_by": "ops", "comment": "on it"}, "acknowledged", "by ops: on it"),
        ({"silenced_by": ["s1", "s2"]}, "silenced", "covered by s1, s2"),
        ({"inhibited_by": "i16"}, "inhibited", "explained by i16"),
        ({"state": "resolved", "silenced_by": ["s1"], "drill": True}, "resolved", "covered by s1; drill"),
    ],
)
def test_an_incident_says_whose_business_it_is(more: Row, state: str, note: str) -> None:
    row = incident(**more)
    assert incident_state(row) == state
    line = incident_lines([row], NOW, PIPE)[1]
    assert f" {state} " in line
    assert line.endswith(note or "2m13s")


def test_a_small_screen_folds_what_is_left_and_says_where_it_is() -> None:
    many = [incident(incident=f"i{at}") for at in range(30)]
    lines = incident_lines(many, NOW, SMALL, room=5)
    assert len(lines) == 6
    assert lines[-1] == "and 26 more: hbagent incidents"
    assert max(map(len, incident_lines([incident(acked_by="x" * 200)], NOW, SMALL))) <= 80


def test_a_node_is_marked_with_what_keeps_it_quiet() -> None:
    assert marks_text({}) == ""
    assert marks_text({"flapping": True, "covered_by": ["s1", "s2", "s3", "s4"]}) == (
        "flapping, covered by s1, s2, s3 and 1 more"
    )
    assert marks_text({"covered_by": ["s1", "s2"]}, wide=False) == "covered"


# ---- silences --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({}, "14:00:00Z"),
        ({"state": "pending", "next": "2026-11-22T11:00:00.000Z"}, "14:00:00Z, from 2026-11-22 11:00Z"),
        ({"state": "ended", "ended_by": "ops"}, "14:00:00Z (ended by ops)"),
        ({"state": "ended"}, "14:00:00Z"),
        (
            {"state": "pending", "every": "daily 13:00", "length_s": 1800.0, "next": "2026-11-21T13:00:00.000Z"},
            "14:00:00Z, daily 13:00 for 30m00s, next 13:00:00Z",
        ),
        (
            {"every": "daily 12:00", "length_s": 1800.0, "next": "2026-11-21T12:30:00.000Z"},
            "14:00:00Z, daily 12:00 for 30m00s, until 12:30:00Z",
        ),
    ],
)
def test_a_silence_says_until_when_and_when_it_is_next(more: Row, text: str) -> None:
    assert until_text(silence(**more), NOW, PIPE) == text


def test_a_silence_is_a_sentence() -> None:
    assert silence_sentence(silence(), NOW, PIPE) == (
        "silence s3 on rack r12 or r13, cause host-gone until 14:00:00Z, by ops: new switch"
    )
    assert matcher_text({}) == "everything"


# ---- what was not sent -----------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", list(Reason))
@pytest.mark.parametrize("state", ["suppressed", "held"])
def test_every_reason_is_a_sentence(reason: Reason, state: str) -> None:
    text = why(unsent(reason=reason.value, ref="i9", state=state), {})
    assert text not in ("", reason.value)
    assert "{" not in text


def test_a_reason_of_a_newer_root_is_shown_as_it_is() -> None:
    assert why(unsent(reason="full-moon"), {}) == "full-moon"
    assert why(unsent(reason=None), {}) == "no reason is known"


def test_a_maintenance_is_called_so() -> None:
    known = {"s3": silence(maintenance=True)}
    assert why(unsent(reason="maintenance"), known) == "maintenance s3 covered it"
    assert why(unsent(reason="maintenance"), {}) == "maintenance s3 covered it"
    assert why(unsent(reason="silence", state="held"), {}) == "silence s3 covers it"


def test_an_answer_tells_the_present_and_the_past() -> None:
    document = {
        "node": "demo/rack1/node1",
        "incident": None,
        "burning": [
            {
                "subject": "demo/rack1/node1",
                "kind": "node-dead",
                "cause": "host-gone",
                "incident": "i17",
                "since": "2026-11-21T12:00:03.250Z",
                "told": ["mail", "page"],
            }
        ],
        "covered_by": [silence()],
        "inhibited_by": ["i16"],
        "flapping": True,
        "acknowledged": ["i17"],
        "unsent": [unsent()],
    }
    assert unsent_lines(document, {"s3": silence()}, NOW, PIPE) == [
        "demo/rack1/node1, now",
        "  demo/rack1/node1 burns (node-dead host-gone i17) since 12:00:03Z; told to mail, page",
        "  covered by silence s3 on rack r12 or r13, cause host-gone until 14:00:00Z, by ops: new switch",
        "  explained by i16",
        "  it changes too often: each change is told no more until it is steady",
        "  i17 is acknowledged",
        "",
        "Not sent, newest first",
        "  12:00:03Z  node-dead to page not sent: silence s3 covered it",
        "      silence s3 on rack r12 or r13, cause host-gone until 14:00:00Z, by ops: new switch",
        "      it would have said: no beat for 2.5s",
    ]


def test_nothing_that_somebody_wrote_is_obeyed() -> None:
    every_text = incident(**{key: BAD for key, value in incident().items() if isinstance(value, str)})
    every_text |= {"members": [BAD], "silenced_by": [BAD]}
    hushed = silence(**{key: BAD for key, value in silence().items() if isinstance(value, str)})
    hushed |= {"nodes": [BAD], "racks": [BAD], "causes": [BAD], "kinds": [BAD]}
    row = unsent(**{key: BAD for key, value in unsent().items() if isinstance(value, str)})
    trouble = {"subject": BAD, "kind": BAD, "cause": BAD, "incident": BAD, "since": BAD, "told": [BAD]}
    document: Row = {"node": BAD, "burning": [trouble], "covered_by": [hushed], "inhibited_by": [BAD]}
    document |= {"acknowledged": [BAD], "unsent": [row, row | {"reason": "silence"}, row | {"reason": "hold"}]}
    lines = [
        *incident_lines([every_text], BAD, PIPE, wide=True),
        *silences_grid(PIPE).lines([silence_cells(hushed, BAD, PIPE)]),
        *unsent_lines(document, {BAD: hushed}, BAD, PIPE),
    ]
    assert len(lines) == 2 + 2 + 1 + 4 + 2 + 3 * 3
    for line in lines:
        assert line.isprintable(), line
        assert "class '" not in line
