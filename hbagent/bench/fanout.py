"""What a tick of the status page costs: 10,000 nodes, and a hundred browsers that follow them.

The server is the real one, on a real socket, in this thread; the browsers are another process. The core is not part
of the figure: its answers are made and encoded before each tick is measured. CPU time is that of the thread, with the
kernel's part of a hundred writes. Beside each window of ticks a loop is measured that only writes the same bytes to
as many sockets: `ratio` is how much more a tick costs.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import msgspec

from hbagent.core.states import Health, Liveness, RackState
from hbagent.core.views import Cell, CellsView, LeaderView, RackView, RootView, count_liveness
from hbagent.web.board import Board
from hbagent.web.feed import Feed
from hbagent.web.page import index_page
from hbagent.web.server import Server, listen
from hbagent.web.source import Reply

NODES, NODES_OF_RACK, LISTENERS = 10_000, 40, 100
#: Nodes that change between two ticks; a datacenter on a bad day, and one that falls over.
CHANGES = 10
TICKS, WINDOWS, STORMS = 60, 5, 5
CONNECT_SECONDS = 60.0
_SINCE = "2026-11-20T11:59:00.000Z"


class Core:
    """Answers with what it was given last; the bytes are made beforehand."""

    def __init__(self, nodes: int) -> None:
        self.names = [f"dc1/rack{n // NODES_OF_RACK:03}/host{n % NODES_OF_RACK:02}" for n in range(nodes)]
        self._version = 0
        self._turn = 0
        self._body = b""
        self.prepare(0, whole=True)

    def prepare(self, changes: int, whole: bool = False) -> None:
        """Have the next answer tell of so many changes."""
        self._version += 1
        self._turn += 1
        dead = self._turn % 2
        start = self._turn * changes
        names = self.names if whole else [self.names[(start + n) % len(self.names)] for n in range(changes)]
        racks = dict.fromkeys(name.rpartition("/")[0] for name in self.names)
        view = CellsView(
            life="bench",
            version=self._version,
            whole=whole,
            root=RootView(name="dc1/root", role="root", version="", at=f"{self._version}", uptime_s=self._version / 2),
            racks=[self._rack(rack, dead if changes else 0) for rack in racks],
            cells=[_cell(name, bool(dead) and not whole) for name in names],
            gone=[],
            incidents=[],
            silences=[],
        )
        self._body = msgspec.json.encode(view)

    def _rack(self, rack: str, dead: int) -> RackView:
        leaders = [
            LeaderView(leader=f"{rack}-leader{n}", state=Liveness.ALIVE, age_s=self._version % 10 / 10, version="1")
            for n in (1, 2)
        ]
        counts = count_liveness([Liveness.ALIVE] * NODES_OF_RACK)
        # Of a dozen racks something is another in each tick.
        counts["DEAD"] = dead if rack.endswith(("0", "5")) and rack < "dc1/rack060" else 0
        return RackView(rack=rack, state=RackState.OK, leaders=leaders, counts=counts)

    async def ask(self, what: str, **fields: str | int) -> Reply:
        """The answer that was prepared."""
        return Reply(self._body)

    async def metrics(self, openmetrics: bool) -> Reply:
        """None: they are measured elsewhere."""
        return Reply()


def _cell(name: str, dead: bool) -> Cell:
    if not dead:
        return Cell(name, Liveness.ALIVE, None, Health.OK, _SINCE, 0.5)
    return Cell(name, Liveness.DEAD, "host-gone", Health.UNKNOWN, _SINCE, 12.5, "no sign of life on any path")


def measure(
    nodes: int = NODES, listeners: int = LISTENERS, windows: int = WINDOWS, ticks: int = TICKS
) -> dict[str, float]:
    """All figures of `hbagent bench fanout`. Raises RuntimeError when the browsers do not all connect."""
    return asyncio.run(_measure(nodes, listeners, windows, ticks))


async def _measure(nodes: int, listeners: int, windows: int, ticks: int) -> dict[str, float]:
    core = Core(nodes)
    server = Server(core, pages=True, tell=lambda *said: None)
    listening = listen("127.0.0.1:0")
    port: int = listening.getsockname()[1]
    serving = asyncio.ensure_future(server.serve(listening))
    command = [sys.executable, "-m", "hbagent.bench.readers", str(port), str(listeners)]
    readers = subprocess.Popen(command, stdin=subprocess.PIPE)
    feed = server.feed
    try:
        await _until(lambda: feed.listening == listeners, "the browsers did not all connect")
        await _caught_up(feed)
        quiet, busy, ratios = await _windows(core, feed, listeners, windows, ticks)
        storms = [await _storm(core, feed, nodes) for _ in range(STORMS)]
    finally:
        assert readers.stdin is not None
        readers.stdin.close()
        readers.wait(10)
        serving.cancel()
        await asyncio.wait({serving})
    figures = {
        "listeners": listeners,
        "nodes": nodes,
        "tick_quiet_p50_ms": statistics.median(quiet),
        "tick_p50_ms": statistics.median(busy),
        "tick_p99_ms": _percentile(busy, 99),
        "ratio": statistics.median(ratios),
        "storm_ms": statistics.median(storms),
        "dropped": feed.dropped,
        **await _whole(core),
    }
    return {name: round(value, 3) for name, value in figures.items()}


async def _windows(
    core: Core, feed: Feed, listeners: int, windows: int, ticks: int
) -> tuple[list[float], list[float], list[float]]:
    """Milliseconds of quiet ticks and of busy ones, and by how much these cost more than the bare writes."""
    quiet: list[float] = []
    busy: list[float] = []
    ratios = []
    bare = _Bare(listeners)
    try:
        for _ in range(windows):
            quiet += [await _tick(core, feed, 0) for _ in range(ticks)]
            window = [await _tick(core, feed, CHANGES) for _ in range(ticks)]
            size = len(feed.newest)
            written = [bare.write(b"x" * size) for _ in range(ticks)]
            busy += window
            ratios.append(statistics.median(window) / statistics.median(written))
    finally:
        bare.close()
    return quiet, busy, ratios


async def _tick(core: Core, feed: Feed, changes: int) -> float:
    """Milliseconds of CPU that one tick takes this thread, from the answer to the last write."""
    core.prepare(changes)
    before = time.thread_time()
    await feed.fresh(-1.0)
    spent = time.thread_time() - before
    # What the transports could not hand to the kernel at once, they write now.
    await _caught_up(feed)
    return spent * 1e3


async def _storm(core: Core, feed: Feed, nodes: int) -> float:
    """Milliseconds of CPU until everybody has a tick in which every node has changed."""
    core.prepare(nodes)
    before = time.thread_time()
    await feed.fresh(-1.0)
    await _caught_up(feed)
    return (time.thread_time() - before) * 1e3


async def _caught_up(feed: Feed) -> None:
    await _until(feed.caught_up, "the browsers do not keep up")


async def _until(condition: Callable[[], bool], problem: str, seconds: float = CONNECT_SECONDS) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise RuntimeError(f"{problem} within {seconds:.0f} s")
        await asyncio.sleep(0.001)


class _Bare:
    """As many sockets, and nothing but the writing."""

    def __init__(self, count: int) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=count) as server:
            self._pairs = [(socket.create_connection(server.getsockname()), server.accept()[0]) for _ in range(count)]

    def write(self, data: bytes) -> float:
        """Milliseconds of CPU that it takes to write `data` to all of them."""
        before = time.thread_time()
        for ours, _ in self._pairs:
            ours.send(data)
        spent = time.thread_time() - before
        for _, theirs in self._pairs:
            theirs.recv(len(data))
        return spent * 1e3

    def close(self) -> None:
        """Close all of them."""
        for pair in self._pairs:
            for end in pair:
                end.close()


async def _whole(core: Core) -> dict[str, float]:
    """What it costs to make everything once, and how large it is."""
    core.prepare(0, whole=True)
    body = (await core.ask("cells")).body
    board = Board()
    before = time.thread_time()
    board.take(msgspec.json.decode(body, type=CellsView))
    folded = time.thread_time()
    page = index_page(board, "bench-1", 0.0)
    made = time.thread_time()
    frame = msgspec.json.encode(board.whole())
    encoded = time.thread_time()
    return {
        "fold_whole_ms": (folded - before) * 1e3,
        "page_ms": (made - folded) * 1e3,
        "page_kib": len(page) / 1024,
        "snapshot_ms": (encoded - made) * 1e3,
        "snapshot_kib": len(frame) / 1024,
    }


def _percentile(values: list[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]
