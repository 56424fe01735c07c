"""What people see of the console, held against screens on disk, on a small terminal and a large one.

`python -m tests.console.test_screens --rewrite` writes them anew; read the difference before it is committed.
"""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path

import pytest

from hbagent.cli.answers import Row
from hbagent.cli.grid import Screen
from tests.cli import test_render as views
from tests.console.screens import ASCII, COLOUR, LARGE, SMALL, Stage, play, staged, together
from tests.console.telling import answer, cell, incident, large, rack, silence, troubled

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).parent / "golden"
Act = Callable[[Stage], Awaitable[None]]


def showing(*keys: str, told: Row | None = None, **answers: Row) -> Act:
    """Have it told something, and press keys."""

    async def act(stage: Stage) -> None:
        stage.teller.answers |= answers
        await stage.tell(told or troubled())
        await stage.press(*keys)

    return act


async def growing_old(stage: Stage) -> None:
    await stage.tell(troubled())
    await stage.tell(None, "cannot reach root at ipc:///run/hbagent/root.sock: nobody listens there")
    await stage.pass_time(7.0)


async def nobody(stage: Stage) -> None:
    await stage.tell(None, "cannot reach root at ipc:///run/hbagent/root.sock: there is no such socket")


async def filtering(stage: Stage) -> None:
    await stage.tell(troubled())
    await stage.press("slash")
    await stage.type("rack1 node1")
    await stage.press("enter")


async def silencing(stage: Stage) -> None:
    await stage.tell(troubled())
    await stage.press("s", "enter", "enter")


def acts() -> dict[str, Act]:
    """Every screen, by name."""
    return {
        "overview": showing(),
        "calm": showing(told=answer([cell(f"demo/rack1/node{n}") for n in range(1, 5)], [rack("demo/rack1")])),
        "large": showing(told=large(bad=70)),
        "rack": showing("shift+tab", "enter"),
        "incident": showing("tab", "enter"),
        "node": showing("enter", explain=views.explained_in_full()),
        "node-app": showing("down", "enter", explain=views.deadlocked()),
        "node-unanswered": showing("enter"),
        "evidence": showing("down", "enter", "e", explain=views.deadlocked(), evidence=views.evidence()),
        "silences": showing("S"),
        "help": showing("question_mark"),
        "old": growing_old,
        "nobody": nobody,
        "filtered": filtering,
        "silence-dialog": silencing,
    }


SIZES: dict[str, tuple[tuple[int, int], Screen]] = {
    "80x24": (SMALL, COLOUR),
    "200x60": (LARGE, COLOUR),
    "ascii": (SMALL, ASCII),
}
#: In ASCII, those that show every kind of sign.
NAMES = [
    f"{name}-{size}" for name in acts() for size in SIZES if size != "ascii" or name in ("overview", "node", "help")
]


async def screen_of(name: str) -> str:
    """One screen as text."""
    act, _, size = name.rpartition("-")
    async with staged(*SIZES[size]) as stage:
        await acts()[act](stage)
        return "".join(f"{line}\n" for line in await stage.still())


@cache
def screens() -> dict[str, str]:
    """Every screen, by name."""
    return dict(zip(NAMES, together(*map(screen_of, NAMES)), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_the_screen_is_the_one_on_disk(name: str) -> None:
    assert screens()[name] == (GOLDEN / f"{name}.txt").read_text("utf-8")


def test_no_screen_on_disk_is_without_its_test() -> None:
    assert sorted(path.stem for path in GOLDEN.glob("*.txt")) == sorted(NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("ascii")])
def test_a_screen_without_unicode_has_none(name: str) -> None:
    assert (GOLDEN / f"{name}.txt").read_text("utf-8").isascii()


@pytest.mark.parametrize("name", NAMES)
def test_every_screen_says_how_old_it_is(name: str) -> None:
    if "dialog" in name:
        return
    head = (GOLDEN / f"{name}.txt").read_text("utf-8").splitlines()[0]
    assert "old" in head or "NO DATA" in head


BAD = "x\x1b[31m\x07\r\n\u202e<b>&amp;[bold]$(id)" + "y" * 10_000


def test_nothing_that_was_sent_reaches_the_terminal_as_a_command() -> None:
    document = views.hostile()
    story = {
        "node": document["nodes"][0],
        "rack": document["racks"][0],
        "story": [],
        "events": [views.event(BAD, BAD, BAD)],
    }
    told = troubled()
    told["cells"] = [[f"demo/rack1/{BAD}", "DEAD", BAD, BAD, BAD, 1.0, BAD, BAD, True], [BAD, BAD]]
    told["racks"][0]["rack"] = BAD
    told["incidents"] = answer([], [], incidents=[incident(BAD, BAD, BAD, [BAD], text=BAD, acked_by=BAD)])["incidents"]
    told["silences"] = answer([], [], silences=[silence(BAD, reason=BAD, author=BAD, nodes=[BAD], every=BAD)])[
        "silences"
    ]
    told["root"] |= {"name": BAD, "role": BAD}

    async def act(stage: Stage) -> list[str]:
        seen = []
        stage.teller.answers |= {"explain": story, "evidence": {"node": BAD, "bundle": {"text": BAD, BAD: BAD}}}
        await stage.tell(told)
        for keys in (
            ("tab", "enter"),
            ("a",),
            ("escape", "escape", "shift+tab", "enter"),
            ("e",),
            ("escape", "escape", "S"),
        ):
            await stage.press(*keys)
            seen += stage.lines()
        await stage.press("escape", "shift+tab", "enter")
        return [*seen, *await stage.still()]

    for size, screen in SIZES.values():
        lines, _ = play(act, size, screen)
        assert len(lines) == 6 * size[1]
        assert [line for line in lines if not line.isprintable()] == []
        assert any("<b>&amp;[bold]$(id)" in line for line in lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rewrite", action="store_true", required=True)
    parser.parse_args()
    GOLDEN.mkdir(exist_ok=True)
    for old in GOLDEN.glob("*.txt"):
        old.unlink()
    for stem, text in screens().items():
        (GOLDEN / f"{stem}.txt").write_text(text, "utf-8")
