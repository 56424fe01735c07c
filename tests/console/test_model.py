"""What the console makes of one answer after another."""

from __future__ import annotations

import pytest

from hbagent.cli.answers import TROUBLES, liveness_of, troubled
from hbagent.console.model import SORTS, WELL, Fleet
from hbagent.core.states import Health, Liveness
from tests.console.telling import LONG_AGO, answer, cell, incident, large, rack
from tests.console.telling import troubled as told_trouble

RACK = "demo/rack1"


def fleet(*answers: dict[str, object], now: float = 100.0) -> Fleet:
    one = Fleet()
    for each in answers:
        one.take(each, now)
    return one


def names(one: Fleet) -> list[str]:
    return [host.short for host in one.problems()]


def test_what_changed_is_folded_in_and_the_rest_stays() -> None:
    one = fleet(answer([cell(f"{RACK}/a"), cell(f"{RACK}/b")], [rack(RACK)]))
    assert names(one) == []
    changes = one.changes
    one.take(answer([cell(f"{RACK}/b", "DEAD", "silence")], [rack(RACK)], version=2, whole=False), 101.0)
    assert names(one) == ["b"]
    assert sorted(one.hosts) == [f"{RACK}/a", f"{RACK}/b"]
    assert one.changes > changes
    one.take(answer([], [rack(RACK)], version=3, whole=False, gone=[f"{RACK}/b", f"{RACK}/never"]), 102.0)
    assert names(one) == []
    assert [host.name for host in one.racks[RACK].ordered()] == [f"{RACK}/a"]


def test_an_answer_without_news_asks_for_no_new_picture() -> None:
    one = fleet(told_trouble())
    changes = one.changes
    problems = one.problems()
    one.take({**told_trouble(), "whole": False, "cells": []}, 101.0)
    assert one.changes == changes
    assert one.problems() is problems


def test_everything_anew_and_another_life_forget_what_was() -> None:
    one = fleet(answer([cell(f"{RACK}/a", "DEAD")], [rack(RACK)]), answer([cell(f"{RACK}/b")], [rack(RACK)]))
    assert list(one.hosts) == [f"{RACK}/b"]
    one.take(answer([cell(f"{RACK}/c")], [rack(RACK)], whole=False, life="20"), 101.0)
    assert list(one.hosts) == [f"{RACK}/c"]
    assert names(one) == []


@pytest.mark.parametrize("liveness", list(Liveness))
@pytest.mark.parametrize("health", list(Health))
def test_a_cell_is_as_bad_as_status_says_its_node_is(liveness: Liveness, health: Health) -> None:
    one = fleet(answer([cell(f"{RACK}/a", liveness.value, health=health.value, since="2026-11-21T12:00:13.000Z")], []))
    node = {"node": f"{RACK}/a", "rack": RACK, "liveness": liveness.value, "health": health.value}
    assert liveness_of(node) == liveness.value
    expected = [trouble for _, trouble in troubled({"nodes": [node], "root": {}})]
    host = one.hosts[f"{RACK}/a"]
    assert [TROUBLES[rank] for rank in [host.trouble] if rank < WELL] == expected


def test_a_report_that_is_overdue_is_trouble_and_one_that_may_still_come_is_not() -> None:
    silent = cell(f"{RACK}/a", health="UNKNOWN", since=LONG_AGO)
    new = cell(f"{RACK}/b", health="UNKNOWN", since="2026-11-21T12:00:00.000Z")
    one = fleet(answer([silent, new], [rack(RACK)]))
    assert names(one) == ["a"]
    # The same of a root that has just come up itself.
    assert names(fleet(answer([silent, new], [rack(RACK)], uptime_s=5.0))) == []
    one.take(answer([], [rack(RACK)], version=2, whole=False, at="2026-11-21T12:05:00.000Z"), 101.0)
    assert names(one) == ["a", "b"]
    one.take(answer([cell(f"{RACK}/a")], [rack(RACK)], version=3, whole=False), 101.0)
    assert names(one) == []


def test_problems_come_in_the_order_that_is_asked_for() -> None:
    one = fleet(told_trouble())
    orders = {}
    for sort in SORTS:
        assert one.sort == sort
        orders[sort] = [host.name.removeprefix("demo/") for host in one.problems()]
        one.sort_next()
    assert one.sort == SORTS[0]
    # What is silenced comes last, however bad it is.
    assert orders["worst"][0] == "rack1/node1" and orders["worst"][-1] == "rack2/node4"
    assert orders["newest"][:2] == ["rack1/node2", "rack1/node1"]
    assert orders["name"] == sorted(orders["name"])
    assert len({tuple(sorted(order)) for order in orders.values()}) == 1


def test_the_worst_rack_comes_first_and_hosts_stand_by_their_number() -> None:
    one = fleet(told_trouble())
    assert [rack.name for rack, _ in one.by_rack()] == ["demo/rack1", "demo/rack3", "demo/rack2"]
    assert [host.short for host in one.by_rack()[0][1]] == [f"node{n}" for n in range(1, 13)]
    dark = fleet(answer([cell(f"{RACK}/a", "DEAD"), cell("demo/rack2/a")], [rack(RACK), rack("demo/rack2", "DARK")]))
    assert [rack.name for rack, _ in dark.by_rack()] == ["demo/rack2", "demo/rack1"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("dead", ["node1", "node3"]),
        ("rack1 dead", ["node1", "node3"]),
        ("silence", ["node2", "node4"]),
        ("DISK", ["node4"]),
        ("*/node?", ["node1", "node3", "node7", "node2", "node5", "node4"]),
        ("node10", ["node10"]),
        ("nothing", []),
    ],
)
def test_a_filter_narrows_hosts_racks_and_incidents(text: str, found: list[str]) -> None:
    one = fleet(told_trouble())
    one.narrow(text)
    assert names(one) == found
    assert one.filter == text.lower()
    assert all(hosts for _, hosts in one.by_rack())
    one.narrow("")
    assert len(one.by_rack()) == 3


def test_incidents_are_filtered_by_whom_they_hit() -> None:
    one = fleet(told_trouble())
    one.narrow("node7")
    assert [each["incident"] for each in one.open_incidents()] == ["i18"]
    assert one.incident("i17") is not None and one.incident("i99") is None


def test_a_jump_finds_the_best_name() -> None:
    one = fleet(told_trouble())
    assert one.find("demo/rack2/node1") == "demo/rack2/node1"
    assert one.find("node12") == "demo/rack1/node12"
    assert one.find("NODE1") == "demo/rack1/node1"
    assert one.find("rack3/node7") == "demo/rack3/node7"
    assert one.find("ack3") == "demo/rack3/node1"
    assert one.find("xyz") == one.find(" ") == ""


def test_data_is_as_old_as_the_oldest_rack_that_speaks_and_the_silence_since() -> None:
    one = fleet(answer([], [rack(RACK, age_s=0.4), rack("demo/rack2", age_s=1.5), rack("demo/rack3", age_s=60.0)]))
    assert one.age_s(100.0) == 1.5
    assert one.age_s(102.0) == 3.5
    assert one.old_racks(100.0) == 1
    assert one.stale(100.0) == ""
    assert one.stale(103.0) == ""
    assert one.stale(105.5) == "nobody answers"
    one.lost = "cannot reach root at ipc://x"
    assert one.stale(105.5) == "cannot reach root at ipc://x"
    one.take(answer([], [rack(RACK, age_s=0.4)]), 106.0)
    assert (one.stale(106.0), one.lost) == ("", "")


def test_an_answer_of_a_root_that_hears_nobody_is_old_however_fast_it_came() -> None:
    old = fleet(answer([], [rack(RACK, "LEADER-LOST", age_s=60.0), rack("demo/rack2", "UNKNOWN", age_s=None)]))
    assert old.stale(100.0) == "no leader has said anything new"
    assert old.age_s(100.0) == 60.0
    assert fleet(answer([], [rack(RACK)], isolated=True)).stale(100.0) == "demo/root hears none of its leaders"
    assert Fleet().stale(1.0) == "nothing has been heard yet"


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"cells": 3, "racks": [1], "gone": "x", "root": [], "incidents": {}, "silences": None},
        {"whole": True, "cells": [[], [1], ["x/y/z"], ["x/y/w", "JUMPING", 3, "FINE", 4, "soon", 5, 6, 7, 8, 9], "x"]},
        {"whole": True, "cells": [["x/y/z", ["DEAD"], {}, ["OK"], None, 1e999]], "version": "x", "life": 4},
    ],
)
def test_an_answer_of_another_version_is_read_as_far_as_it_goes(document: dict[str, object]) -> None:
    one = fleet(document)
    assert isinstance(one.problems(), list) and isinstance(one.by_rack(), list)
    assert all(host.state == "UNKNOWN" for host in one)


def test_a_name_without_end_is_cut() -> None:
    one = fleet(answer([cell("x" * 10_000, "DEAD", "c" * 10_000, text="t" * 10_000)], []))
    (host,) = one.problems()
    assert max(map(len, (host.name, host.cause, host.text))) <= 200


def test_an_incident_alone_is_news() -> None:
    one = fleet(answer([cell(f"{RACK}/a")], [rack(RACK)]))
    changes = one.changes
    one.take(answer([], [rack(RACK)], whole=False, incidents=[incident("i1", RACK, None, [])]), 101.0)
    assert one.changes == changes + 1


def test_ten_thousand_hosts_are_sorted_once() -> None:
    one = fleet(large(bad=500))
    assert len(one.hosts) == 10_000
    assert len(one.problems()) == 500
    assert one.problems() is one.problems()
    assert one.counts() == {"DEAD": 500}
