"""What a page is told: only what reads differently now."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hbagent.core.views import CellsView
from hbagent.web.board import ROWS_MAX, Board, moment
from tests.web.parts import AT, HOSTILE, cell, incident, leader, rack, root, silence, view


def told(board: Board, said: CellsView) -> dict[str, Any]:
    """What a page is told of an answer, as its script reads it."""
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(board.take(said)[1]))
    return found


def after(said: CellsView, *cells: Any, **fields: Any) -> CellsView:
    return msgspec.structs.replace(said, whole=False, version=said.version + 1, cells=[*cells], **fields)


def test_everything_comes_first_in_the_order_of_numbers() -> None:
    board = Board()
    whole, said = board.take(view(cell("dc/r1/n10"), cell("dc/r1/n9"), cell("dc/r1/n1")))
    assert whole
    assert [spot.node for spot in board.whole()["cells"]] == ["dc/r1/n1", "dc/r1/n9", "dc/r1/n10"]
    assert board.headline.verdict == "✓ OK"
    assert board.headline.text == "3 nodes in 1 racks: all is well"
    assert said["counts"]["alive"] == 3


def test_a_quiet_tick_says_nothing_but_the_time() -> None:
    board, first = Board(), view(cell())
    board.take(first)
    said = told(board, after(first, root=root(at="2026-11-20T12:00:04.000Z", uptime_s=61.0), racks=[rack()]))
    assert said == {"at": "2026-11-20T12:00:04.000Z", "racks": [], "cells": [], "gone": [], "tables": {}}


def test_a_change_says_what_is_another_now_and_no_more() -> None:
    board, first = Board(), view(cell("dc/r1/n1"), cell("dc/r1/n2"))
    board.take(first)
    dead = cell("dc/r1/n2", "DEAD", "UNKNOWN", cause="process-exit", text="ended")
    said = told(board, after(first, dead, racks=[rack(state="DEGRADED")]))
    assert said["cells"] == [
        ["dc/r1/n2", "dead", "dc/r1/n2: DEAD, UNKNOWN, process-exit, since 2026-11-20T11:59:00.000Z. ended", ""]
    ]
    assert said["headline"]["tone"] == "bad"
    assert said["headline"]["text"] == "2 nodes in 1 racks: 1 DEAD, 1 rack DEGRADED"
    assert [*said["tables"]] == ["problems"]
    assert said["tables"]["problems"]["rows"][0][:2] == [["✗ DEAD", "bad", ""], ["dc/r1/n2", "", "node/dc/r1/n2"]]
    assert (said["counts"]["dead"], said["counts"]["alive"]) == (1, 1)
    assert said["racks"][0][:3] == ["dc/r1", "! DEGRADED", "warn"]


def test_a_node_that_is_gone_is_forgotten() -> None:
    board, first = Board(), view(cell("dc/r1/n1"), cell("dc/r1/n2", "DEAD"))
    board.take(first)
    said = told(board, after(first, gone=["dc/r1/n2", "dc/r9/never"]))
    assert said["gone"] == ["dc/r1/n2", "dc/r9/never"]
    assert said["headline"]["text"].startswith("1 nodes")
    assert [*board.cells] == ["dc/r1/n1"]
    assert board.counts["dead"] == 0


def test_another_life_or_other_racks_make_the_page_anew() -> None:
    board, first = Board(), view(cell())
    board.take(first)
    assert not board.take(after(first))[0]
    assert board.take(after(first, racks=[rack(), rack("dc/r2")]))[0]
    again = view(cell("dc/r1/n7"), life="b")
    assert board.take(again)[0]
    assert [*board.cells] == ["dc/r1/n7"]


def test_an_age_that_only_grows_is_no_news_each_tick() -> None:
    board = Board()
    dead = leader(state="DEAD", cause="leader-lost", age_s=61.0)
    first = view(cell(), racks=[rack(leaders=[dead])])
    board.take(first)
    older = [rack(leaders=[msgspec.structs.replace(dead, age_s=61.5)])]
    assert told(board, after(first, racks=older))["tables"] == {}
    assert told(board, after(first, racks=older))["racks"] == []


@pytest.mark.parametrize(
    ("age_s", "text"),
    [(1.0, ""), (4.0, "silent"), (61.9, "silent for 60 s"), (125.0, "silent for 2 min"), (7300.0, "silent for 2 h")],
)
def test_how_long_a_leader_is_silent_is_told_in_steps(age_s: float, text: str) -> None:
    board = Board()
    board.take(view(cell(), racks=[rack(leaders=[leader(state="DEAD", age_s=age_s)])]))
    assert board.tables["leaders"].rows[0][-1].text == text


def test_an_incident_says_who_what_and_what_became_of_it() -> None:
    board = Board()
    many = incident(members=[f"dc/r1/n{n}" for n in range(9)], burning=40, count=41, acked_by="bob", comment="on it")
    board.take(view(cell(), incidents=[many], silences=[silence(), silence(silence="s1", state="ended")]))
    (row,) = board.tables["incidents"].rows
    assert [item.text for item in row][:5] == ["i17", "✗ firing", "node-dead (host-gone)", "dc/r1", "40 of 41"]
    assert row[5].text == "dc/r1/n0, dc/r1/n1, dc/r1/n2, dc/r1/n3, dc/r1/n4 and 35 more"
    assert row[7].text == "2 nodes are gone; acknowledged by bob: on it"
    (row,) = board.tables["silences"].rows
    assert [item.text for item in row][1:4] == ["maintenance", "active", "node dc/r1/*"]


def test_tables_are_bounded_and_say_what_they_leave_out() -> None:
    board = Board()
    count = ROWS_MAX + 7
    cells = [cell(f"dc/r1/n{number}", "DEAD") for number in range(count)]
    board.take(view(*cells, incidents=[incident()] * count, silences=[silence()] * count))
    for name in ("problems", "incidents", "silences"):
        assert len(board.tables[name].rows) == ROWS_MAX
        assert board.tables[name].note == "and 7 more"
    leaders = [leader(f"dc/l{number}") for number in range(99)]
    board.take(view(cell(), racks=[rack(leaders=[leader("dc/bad", "DEAD"), *leaders])]))
    assert [row[0].text for row in board.tables["leaders"].rows] == ["dc/bad"]
    assert board.tables["leaders"].note == "99 of 100 leaders hold their lease."


def test_what_is_wrong_with_the_root_itself_is_said() -> None:
    board = Board()
    board.take(view(cell(), root=root(isolated=True, degraded="disk full", hooks_dead=3)))
    first, second, third = board.headline.warnings
    assert "hears no leader" in first
    assert second.endswith("disk full")
    assert third.startswith("3 notifications")


def test_nothing_that_somebody_wrote_is_told_uncleaned() -> None:
    board = Board()
    odd = cell("dc/r1/n1", "DEAD", cause=HOSTILE, text=HOSTILE, since=HOSTILE)
    bad = leader(HOSTILE, "DEAD", cause=HOSTILE, version=HOSTILE, degraded=HOSTILE)
    burning = incident(**dict.fromkeys(("kind", "cause", "rack", "text", "acked_by", "comment"), HOSTILE))
    quiet = silence(nodes=[HOSTILE], reason=HOSTILE, author=HOSTILE, ends=HOSTILE)
    board.take(
        view(odd, racks=[rack(leaders=[bad])], incidents=[burning], silences=[quiet], root=root(degraded=HOSTILE))
    )
    whole = msgspec.json.encode(board.whole()).decode()
    assert "\\u001b" not in whole
    assert "\u202e" not in whole
    assert len(whole) < 20_000


@pytest.mark.parametrize(
    ("at", "shown"),
    [
        (AT, "12:00:03Z"),
        ("2026-11-19T12:00:03.000Z", "2026-11-19 12:00Z"),
        ("1970-01-01T00:00:00.000Z", "-"),
        ("", "-"),
    ],
)
def test_a_time_is_as_short_as_it_can_be_told(at: str, shown: str) -> None:
    assert moment(at, AT) == shown
