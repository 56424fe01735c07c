"""What each key does."""

from __future__ import annotations

from typing import Any

import pytest

from hbagent.cli.answers import Row
from hbagent.cli.grid import Screen
from hbagent.console.app import Console
from tests.cli import test_render as views
from tests.console.screens import LARGE, Stage, play
from tests.console.telling import answer, cell, large, rack, troubled

pytestmark = pytest.mark.slow


def after(*keys: str, told: Row | None = None, size: tuple[int, int] = LARGE, **answers: Row) -> tuple[str, Any]:
    """What the screen says after some keys, and whom the console asked."""

    async def act(stage: Stage) -> str:
        stage.teller.answers |= answers
        await stage.tell(told or troubled())
        await stage.press(*keys)
        return "\n".join(await stage.still())

    return play(act, size)


def crumbs(text: str) -> str:
    return text.splitlines()[1].split("  ")[0].strip()


def chosen(text: str) -> str:
    """What the line above the keys says is chosen."""
    return text.splitlines()[-2].strip()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ([], "demo/rack1/node1 ✗ DEAD: process-exit"),
        (["down"], "demo/rack1/node3 D DEADLOCKED: billing: payer and refunder wait for each other"),
        (["j", "j", "k"], "demo/rack1/node3 D DEADLOCKED: billing: payer and refunder wait for each other"),
        (["end"], "demo/rack2/node4 W WARNING: silenced; disk: 93% used"),
        (["end", "down", "home"], "demo/rack1/node1 ✗ DEAD: process-exit"),
        (["tab"], "incident i17"),
        (["tab", "down"], "incident i18"),
        (["tab", "tab"], "rack demo/rack1 is DEGRADED"),
        (["shift+tab"], "rack demo/rack1 is DEGRADED"),
        (["shift+tab", "right", "right"], "demo/rack1/node2 ! SUSPECT: silence"),
        (["shift+tab", "l", "down"], "demo/rack3/node1 ✓ ALIVE"),
        (["shift+tab", "down", "down", "down"], "rack demo/rack2 is OK"),
        (["shift+tab", "right", "right", "h", "h", "left"], "rack demo/rack1 is DEGRADED"),
        (["o"], "demo/rack1/node2 ! SUSPECT: silence"),
    ],
)
def test_the_cursor_and_what_is_said_of_it(keys: list[str], said: str) -> None:
    assert chosen(after(*keys)[0]) == said


def test_enter_goes_down_and_escape_comes_back() -> None:
    text, teller = after("shift+tab", "enter", explain=views.explained_in_full())
    assert crumbs(text) == "all racks › demo/rack1"
    lines = text.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith(" node1 "))
    down = ["down"] * (at - 3)
    text, teller = after("shift+tab", "enter", *down, "enter", explain=views.explained_in_full())
    assert crumbs(text) == "all racks › demo/rack1 › node1"
    assert {"what": "explain", "node": "demo/rack1/node1"} in teller.asked
    assert "node-dead" in text and "its echo port is silent" in text
    assert crumbs(after("shift+tab", "enter", *down, "enter", "escape")[0]) == "all racks › demo/rack1"
    assert crumbs(after("shift+tab", "enter", *down, "enter", "escape", "backspace")[0]) == "all racks"


def test_an_incident_leads_to_whom_it_has_hit() -> None:
    text, _ = after("tab", "enter", "end", "enter")
    assert crumbs(text) == "all racks › i17 › node1"


def test_the_evidence_is_fetched_with_patience() -> None:
    text, teller = after("down", "enter", "e", explain=views.deadlocked(), evidence=views.evidence())
    wanted = {"what": "evidence", "node": "demo/rack1/node3", "app": "billing"}
    assert teller.asked[-1] == wanted | {"bundle": "000017-billing-1f3a9c02d4e5b678"}
    assert "Proof: each waits for the next" in text
    assert "there is no evidence here" in chosen(after("e")[0])


def test_a_story_is_told_again_while_it_is_looked_at() -> None:
    async def act(stage: Stage) -> int:
        stage.teller.answers["explain"] = views.explained()
        await stage.tell(troubled())
        await stage.press("enter")
        for _ in range(4):
            await stage.pass_time(1.0)
        return len(stage.teller.asked)

    assert play(act)[0] == 3


def typed(first: str, text: str, *keys: str, **answers: Row) -> tuple[str, Any]:
    async def act(stage: Stage) -> str:
        stage.teller.answers |= answers
        await stage.tell(troubled())
        await stage.press(*first.split())
        await stage.type(text)
        await stage.press(*keys)
        return "\n".join(await stage.still())

    return play(act, LARGE)


def test_a_filter_works_while_it_is_written_and_escape_takes_it_back() -> None:
    assert "Problems (1 of 7)" in typed("slash", "disk")[0]
    assert "filter: disk" in typed("slash", "disk", "enter")[0]
    assert "Problems (7)" in typed("slash", "disk", "escape")[0]
    assert "Problems (7)" in typed("slash", "disk", "enter", "escape")[0]
    assert "none that the filter lets through" in typed("slash", "xyz", "enter")[0]


@pytest.mark.parametrize("key", ["colon", "g"])
def test_a_jump_goes_to_a_node_that_is_well_too(key: str) -> None:
    assert crumbs(typed(key, "rack3/node12", "enter")[0]) == "all racks › node12"
    assert "no node is called that" in typed(key, "xyz", "enter")[0]
    # The cursor of the grid is there when one comes back.
    assert chosen(typed(key, "rack3/node12", "enter", "escape", "shift+tab")[0]) == "demo/rack3/node12 ✓ ALIVE"


SILENCE = {"silence": {"silence": "s4", "nodes": ["demo/rack1/node1"], "ends": "2026-11-21T14:00:00.000Z"}}


def test_a_silence_is_sent_with_its_length_and_reason() -> None:
    text, teller = typed("s enter", "the switch is swapped", "enter", silence=SILENCE)
    fields = {"reason": "the switch is swapped", "maintenance": False, "length_ns": 7_200_000_000_000}
    assert teller.orders == [("silence", fields | {"nodes": ("demo/rack1/node1",)})]
    assert chosen(text).startswith("silence s4 on ")


def test_a_silence_of_what_is_known_no_more_says_so() -> None:
    text, _ = typed("s enter", "x", "enter", silence=SILENCE | {"note": "it fits nothing that is known now: no node x"})
    assert "it fits nothing that is known now: no node x" in text


def test_a_maintenance_of_a_rack_and_a_silence_of_an_incident() -> None:
    teller = typed("shift+tab m enter", "x", "enter", silence=SILENCE)[1]
    ((_, fields),) = teller.orders
    assert fields["maintenance"] is True and fields["racks"] == ("demo/rack1",) and "nodes" not in fields
    teller = typed("tab s enter", "x", "enter", silence=SILENCE)[1]
    ((_, fields),) = teller.orders
    assert (fields["racks"], fields["causes"]) == (("demo/rack1",), ("process-exit",))


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        (["down", "s"], "Silence for node demo/rack1/node3"),
        (["s", "down"], "Silence for node demo/rack1/node1"),
        (["tab", "s"], "Silence for rack demo/rack1, cause process-exit"),
        (["down", "enter", "s"], "Silence for node demo/rack1/node3"),
    ],
)
def test_keys_that_come_all_at_once_are_obeyed_in_their_order(keys: list[str], wanted: str) -> None:
    async def act(stage: Stage) -> str:
        await stage.tell(troubled())
        for key in keys:
            stage.hit(key)
        return "\n".join(await stage.still())

    assert wanted in play(act, LARGE)[0]


def test_a_silence_that_is_typed_ahead_of_its_dialog_goes_where_it_belongs() -> None:
    async def act(stage: Stage) -> list[tuple[str, dict[str, Any]]]:
        stage.teller.answers |= {"silence": SILENCE}
        await stage.tell(troubled())
        for key in ("s", "enter", *"swap", "enter"):
            stage.hit(key)
        await stage.still()
        return stage.teller.orders

    ((_, fields),) = play(act, LARGE)[0]
    assert (fields["reason"], fields["length_ns"]) == ("swap", 7_200_000_000_000)


def test_a_silence_without_reason_or_of_no_length_is_not_sent() -> None:
    text, teller = typed("s enter", "", "enter")
    assert "say why" in text
    assert teller.orders == []
    text, teller = typed("s backspace backspace", "soon", "enter", "x", "enter")
    assert "soon" in text
    assert teller.orders == []
    assert typed("s enter", "why", "escape")[1].orders == []


def test_what_is_refused_is_said() -> None:
    text, _ = typed("s enter", "x", "enter")
    assert chosen(text) == "you may not silence"


@pytest.mark.parametrize("keys", ["a", "tab a", "tab enter a", "enter a"])
def test_an_incident_is_acknowledged_from_wherever_it_is_seen(keys: str) -> None:
    text, teller = typed(keys, "it is looked at", "enter", ack={"incident": {"incident": "i17"}})
    assert teller.orders == [("ack", {"target": "i17", "reason": "it is looked at"})]
    assert chosen(text) == "i17 is acknowledged"


def test_a_silence_is_ended_where_it_is_listed() -> None:
    text, teller = after("S", "down", "u", unsilence={"silence": {"silence": "s3"}})
    assert teller.orders == [("unsilence", {"target": "s3"})]
    assert chosen(text) == "ended: s3"
    assert "choose a silence first" in chosen(after("u")[0])


def test_nothing_is_acknowledged_or_silenced_where_nothing_is() -> None:
    empty = answer([], [])
    assert "choose a node" in chosen(after("s", told=empty)[0])
    assert "no incident" in chosen(after("a", told=empty)[0])
    assert "no incident" in chosen(after("shift+tab", "a", told=answer([cell("a/b/c")], [rack("a/b")]))[0])


def test_the_cursor_stays_on_its_host_when_the_list_moves() -> None:
    async def act(stage: Stage) -> list[str]:
        await stage.tell(troubled())
        await stage.press("down", "down")
        before = chosen("\n".join(await stage.still()))
        worse = [cell(f"demo/rack2/node{n}", "DEAD", "host-gone") for n in (1, 2, 3)]
        await stage.tell({**answer(worse, [rack(f"demo/rack{n}") for n in (1, 2, 3)], 2, whole=False)})
        return [before, chosen("\n".join(await stage.still())), "\n".join(await stage.still())]

    before, now, text = play(act, LARGE)[0]
    assert before == now
    assert "Problems (10)" in text


def test_quit_ends_it_and_the_asking() -> None:
    async def act(stage: Stage) -> bool:
        await stage.press("q")
        return stage.console.return_code == 0

    ended, teller = play(act)
    assert ended and teller.begun and teller.closed


def test_help_lists_every_key_that_does_something() -> None:
    text, _ = after("question_mark")
    said = " ".join(line for line in text.splitlines())
    for binding in Console.BINDINGS:
        for key in binding.key.split(","):  # type: ignore[union-attr]
            name = {"question_mark": "?", "slash": "/", "colon": ":", "escape": "Esc", "backspace": "Backspace"}
            name |= {"tab": "Tab", "shift+tab": "Shift+Tab"}
            if not key.startswith("ctrl+") and key != "question_mark":
                assert f" {name.get(key, key)}" in said


def test_the_chosen_line_is_marked_without_colour_too() -> None:
    async def act(stage: Stage) -> list[str]:
        await stage.tell(troubled())
        await stage.press("down")
        return [line for line in stage.lines() if "▶" in line]

    for colour in (True, False):
        lines, _ = play(act, LARGE, Screen(colour=colour))
        assert any("▶rack1/node3" in line for line in lines)


def test_a_screen_without_colour_gets_none_and_one_with_it_gets_them() -> None:
    async def act(stage: Stage) -> list[Any]:
        await stage.tell(troubled())
        return stage.segments("rack1/node2")

    for colour in (True, False):
        segments, _ = play(act, LARGE, Screen(colour=colour))
        coloured = [one for one in segments if one.style and one.style.color and not one.style.color.is_default]
        assert bool(coloured) is colour


def test_old_data_is_grey_and_says_so_and_new_data_is_not() -> None:
    async def act(stage: Stage) -> list[Any]:
        await stage.tell(troubled())
        seen: list[Any] = [stage.segments("rack1/node2")]
        await stage.tell(None, "nobody answers within 2 s")
        await stage.pass_time(6.0)
        seen += [stage.segments("rack1/node2"), stage.lines()[0]]
        await stage.tell(troubled())
        return [*seen, stage.segments("rack1/node2"), stage.lines()[0]]

    fresh, old, head, again, new_head = play(act, LARGE)[0]
    grey = [one for one in old if one.text.strip()]
    assert all(one.style.dim for one in grey)
    assert not any(one.style.color and one.style.color.name == "yellow" for one in grey)
    assert any(one.style and one.style.color and one.style.color.name == "yellow" for one in fresh)
    assert any(one.style and one.style.color and one.style.color.name == "yellow" for one in again)
    assert "OLD DATA, 6.4s old: nobody answers within 2 s" in head
    assert "data 400ms old" in new_head


def test_a_terminal_that_grows_shows_more() -> None:
    async def act(stage: Stage) -> tuple[int, int]:
        await stage.tell(large(bad=100))
        small = stage.text().count("✗ DEAD")
        await stage.resize(200, 60)
        return small, stage.text().count("✗ DEAD")

    small, grown = play(act)[0]
    assert small < 20 and grown > 30


@pytest.mark.parametrize("size", [(80, 24), (40, 10), (20, 5), (300, 80)])
def test_any_size_is_drawn(size: tuple[int, int]) -> None:
    text, _ = after("enter", "question_mark", "escape", "escape", "s", size=size, explain=views.explained())
    assert text.count("\n") == size[1] - 1
