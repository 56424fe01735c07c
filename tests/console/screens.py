"""A console on a terminal of memory: what it shows, as lines of text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from textual.events import Key
from textual.keys import _character_to_key

from hbagent.cli.answers import Row
from hbagent.cli.grid import Screen
from hbagent.console.app import Console
from tests.console.telling import Teller

SMALL, LARGE = (80, 24), (200, 60)
COLOUR = Screen(colour=True)
ASCII = Screen(unicode=False)

_Result = TypeVar("_Result")


class Stage:
    """A running console, its source, and its hands."""

    def __init__(self, console: Console, teller: Teller, pilot: Any) -> None:
        self.console = console
        self.teller = teller
        self._pilot = pilot
        self.now = 100.0

    async def tell(self, answer: Row | None, why: str = "") -> None:
        """An answer comes, as from a thread."""
        self.teller.told(answer, why)
        await self.settle()

    async def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        # `Pilot.press` looks for idleness by the clock after each key, 60 ms each.
        for key in keys:
            self.hit(key)
            await self.settle()

    def hit(self, key: str) -> None:
        """Press a key, and wait for nothing."""
        character = " " if key == "space" else key if len(key) == 1 else None
        self.console.post_message(Key(_character_to_key(key) if len(key) == 1 else key, character))

    async def type(self, text: str) -> None:
        """Write a text."""
        await self.press(*({" ": "space"}.get(character, character) for character in text))

    async def resize(self, width: int, height: int) -> None:
        """Another size of the terminal."""
        await self._pilot.resize_terminal(width, height)
        await self.settle()

    async def pass_time(self, seconds: float) -> None:
        """Time goes by, and the tick that shows it comes."""
        self.now += seconds
        self.console._tick()
        await self.settle()

    async def settle(self) -> None:
        """All that was begun is shown: every widget has handled its messages, and those that came of them."""
        for _ in range(3):
            await self._pilot._wait_for_screen()

    async def still(self) -> list[str]:
        """What stands on the terminal once two looks at it were alike, and nothing moved between them."""
        looks: list[list[str]] = [[]]
        for _ in range(100):
            await self._pilot.pause()
            looks = [looks[-1], self.lines()]
            if looks[0] == looks[1]:
                break
        return looks[-1]

    def lines(self) -> list[str]:
        """What stands on the terminal."""
        return [strip.text.rstrip() for strip in self.console.screen._compositor.render_strips()]

    def text(self) -> str:
        return "\n".join(self.lines())

    def segments(self, wanted: str) -> list[Any]:
        """The pieces, with their style, of the first line in which a text stands."""
        strips = self.console.screen._compositor.render_strips()
        return next(list(strip) for strip in strips if wanted in strip.text)


@asynccontextmanager
async def staged(size: tuple[int, int] = SMALL, screen: Screen = COLOUR) -> AsyncIterator[Stage]:
    """A console that has begun and was told nothing."""
    tellers: list[Teller] = []
    stages: list[Stage] = []

    def source(told: Callable[[Row | None, str], None]) -> Teller:
        tellers.append(Teller(told))
        return tellers[0]

    console = Console(source, screen, clock=lambda: stages[0].now if stages else 100.0)
    async with console.run_test(size=size) as pilot:
        stages.append(Stage(console, tellers[0], pilot))
        await stages[0].settle()
        yield stages[0]


def together(*plays: Awaitable[_Result]) -> list[_Result]:
    """What comes of several at once: most of what a console does is waiting until nothing moves any more."""

    async def all_of_them() -> list[_Result]:
        return await asyncio.gather(*plays)

    return asyncio.run(all_of_them())


def play(
    act: Callable[[Stage], Awaitable[_Result]], size: tuple[int, int] = SMALL, screen: Screen = COLOUR
) -> tuple[_Result, Teller]:
    """Run a piece of acting on a stage of its own; returns what it returned, and whom it asked."""

    async def whole() -> tuple[_Result, Teller]:
        async with staged(size, screen) as stage:
            return await act(stage), stage.teller

    return asyncio.run(whole())
