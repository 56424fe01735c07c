"""What a refresh of ten thousand nodes costs, in CPU time of the whole console: measured, and told."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import msgspec
import pytest

from tests.console.screens import LARGE, SMALL, Stage, play
from tests.console.telling import answer, cell, large, rack

pytestmark = pytest.mark.slow


async def cost(stage: Stage, act: Callable[[], object]) -> float:
    """CPU milliseconds until all that comes of it is drawn."""
    begun = time.process_time()
    act()
    await stage._pilot.pause()
    return (time.process_time() - begun) * 1000


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["80x24", "200x60"])
def test_a_refresh_of_ten_thousand_nodes_is_cheap(size: tuple[int, int]) -> None:
    whole = msgspec.json.encode(large(bad=500))
    racks = [rack(f"dc1/rack{at + 1:03d}", nodes=40) for at in range(250)]

    def changed(round: int) -> bytes:
        """A hundred hosts change, every other one for the worse."""
        hosts = [f"dc1/rack{at // 40 + 1:03d}/host{at % 40 + 1:02d}" for at in range(round * 100, round * 100 + 100)]
        states = (("DEAD", "host-gone", "UNKNOWN"), ())
        cells = [cell(host, *states[(at + round) % 2]) for at, host in enumerate(hosts)]
        return msgspec.json.encode(answer(cells, racks, version=round + 2, whole=False))

    async def act(stage: Stage) -> tuple[float, list[float]]:
        def take(raw: bytes) -> None:
            stage.console.take(msgspec.json.decode(raw))

        everything = await cost(stage, lambda: take(whole))
        rounds = map(changed, range(20))
        return everything, [await cost(stage, partial(take, raw)) for raw in rounds]

    everything, rounds = play(act, size)[0]
    typical = statistics.median(rounds)
    print(f"{size[0]}x{size[1]}: {typical:.1f} ms CPU a refresh with 100 changes, {everything:.1f} ms with all of them")
    assert typical < everything, "what did not change is not drawn anew"
