"""The live feed: one question to the core each tick, one encoding of what changed, the same bytes to everybody.

Nothing is asked while nobody listens. Each tick has a number and is kept for a while, so that whoever comes back with
the last one he saw (`Last-Event-ID`) is told only what he missed; who has missed more than is kept gets everything.

A listener either has all there is, and gets each new tick pushed; or is behind, and is brought up to date in slices,
as fast as he reads. Who lets too much pile up, or reads too slowly to ever have all, is dropped and may come again.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import deque

import msgspec

from hbagent.core.views import CellsView

from .board import Board
from .page import index_page
from .source import Source

#: A killed agent is to be seen within 2 s; the leader and the root take some 50 ms of that.
TICK_S = 0.5
#: Proxies close a connection on which nothing moves for a minute or, some, half of that.
COMMENT_S = 15.0
#: After this long without a reader the board is forgotten: it and the page take 10 MiB of a root of 10,000 nodes.
FORGET_S = 60.0
#: Ticks that are kept: two minutes, if they are small.
FRAMES_MAX = 240
FRAMES_SIZE_MAX = 4 * 1024 * 1024
#: Bytes that wait for one listener before he is dropped, beside what the kernel holds; some minutes of quiet ticks.
BUFFER_MAX = 128 * 1024
#: A tick that is larger is not pushed: listeners fetch it in slices.
PUSH_MAX = 32 * 1024
SLICE = 64 * 1024
#: Time for one slice: 3 KB/s.
SLICE_S = 20.0
#: Listeners at once. A room full of screens; each holds at most `BUFFER_MAX` and a slice.
LISTENERS_MAX = 200


class Listener:
    """One connection that wants every tick."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        #: Newest tick that was written to it; None: it needs everything.
        self.at: int | None = None
        #: It has all there is, and new ticks are pushed.
        self.current = False
        self.woken = asyncio.Event()
        self.gone = False

    def wake(self) -> None:
        """Have its own coroutine look."""
        self.current = False
        self.woken.set()


class Feed:
    """The board, its newest ticks and its listeners. All of it belongs to one event loop."""

    def __init__(self, source: Source) -> None:
        self._source = source
        #: Of this life of the feed: a number of another one means nothing.
        self._life = secrets.token_hex(4)
        self.board = Board()
        self.number = 0
        self._frames: deque[tuple[int, bytes]] = deque()
        self._frames_size = 0
        self._whole: tuple[int, bytes] = (-1, b"")
        #: Until when the first page is good, and the page.
        self._index: tuple[float, bytes] = (0.0, b"")
        self._taken_at = float("-inf")
        self._used_at = time.monotonic()
        self._refreshing: asyncio.Task[str] | None = None
        self._listeners: dict[Listener, None] = {}
        self._wanted = asyncio.Event()
        self._decode = msgspec.json.Decoder(CellsView).decode
        self._encode = msgspec.json.Encoder().encode
        #: Listeners dropped because they did not read.
        self.dropped = 0

    # ---- reading the board -------------------------------------------------------------------------------

    @property
    def listening(self) -> int:
        """Connections that wait for ticks."""
        return len(self._listeners)

    @property
    def full(self) -> bool:
        """No more listeners are taken."""
        return len(self._listeners) >= LISTENERS_MAX

    @property
    def position(self) -> str:
        """The id of the newest tick."""
        return f"{self._life}-{self.number}"

    @property
    def age_s(self) -> float:
        """Since the core's newest answer; infinite when there never was one."""
        return time.monotonic() - self._taken_at

    async def fresh(self, age_s: float = TICK_S) -> str:
        """Have the board not older than `age_s`; returns "" or why it is. However many ask, one question is sent."""
        self._used_at = time.monotonic()
        if self.age_s <= age_s:
            return ""
        if self._refreshing is None:
            self._refreshing = asyncio.ensure_future(self._refresh())
            self._refreshing.add_done_callback(self._refreshed)
        return await asyncio.shield(self._refreshing)

    @property
    def newest(self) -> bytes:
        """The newest tick that is kept, as it is sent; empty when there is none."""
        return self._frames[-1][1] if self._frames else b""

    def caught_up(self) -> bool:
        """True when everybody has all there is, and the kernel has taken it."""
        return all(
            listener.current and not listener.writer.transport.get_write_buffer_size() for listener in self._listeners
        )

    def index(self) -> bytes:
        """The first page. Of 10,000 nodes it takes a tenth of a second, so it is given again for as long as a tick, or
        ten times as long as it took; a script that gets an older one is told by the feed what it lacks."""
        began = time.monotonic()
        if began >= self._index[0]:
            page = index_page(self.board, self.position, self.age_s)
            now = time.monotonic()
            self._index = (now + max(TICK_S, 10 * (now - began)), page)
        return self._index[1]

    # ---- ticking -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Tick for as long as somebody listens."""
        while True:
            try:
                await asyncio.wait_for(self._wanted.wait(), FORGET_S)
            except asyncio.TimeoutError:
                if time.monotonic() - self._used_at > FORGET_S:
                    self._forget()
                continue
            commented_at = time.monotonic()
            while self._listeners:
                began, number = time.monotonic(), self.number
                await self.fresh(TICK_S / 2)
                now = time.monotonic()
                if self.number != number:
                    commented_at = now
                elif now - commented_at >= COMMENT_S:
                    commented_at = now
                    self._push(b": nothing new\n\n")
                await asyncio.sleep(max(0.0, began + TICK_S - time.monotonic()))
            self._wanted.clear()

    async def _refresh(self) -> str:
        reply = await self._source.ask("cells", after=self.board.version, life=self.board.life)
        if reply.error:
            return reply.error
        try:
            view = self._decode(reply.body)
        except msgspec.MsgspecError as error:
            return f"the answer is not understood: {error}"
        whole, told = self.board.take(view)
        self._taken_at = time.monotonic()
        self.number += 1
        if whole:
            self._frames.clear()
            self._frames_size = 0
            for listener in self._listeners:
                listener.at = None
                listener.wake()
            return ""
        frame = self._frame("some", told)
        self._frames.append((self.number, frame))
        self._frames_size += len(frame)
        while len(self._frames) > FRAMES_MAX or self._frames_size > FRAMES_SIZE_MAX:
            self._frames_size -= len(self._frames.popleft()[1])
        self._push(frame)
        return ""

    def _refreshed(self, task: asyncio.Task[str]) -> None:
        self._refreshing = None

    def _frame(self, event: str, told: object) -> bytes:
        # JSON of msgspec is one line, so nothing in it can end the event.
        return b"id: %s\nevent: %s\ndata: %s\n\n" % (self.position.encode(), event.encode(), self._encode(told))

    def _push(self, frame: bytes) -> None:
        """To everybody who has all there is. A hundred times a tick, so nothing here waits or encodes."""
        for listener in [*self._listeners]:
            transport = listener.writer.transport
            if not listener.current or transport.is_closing():
                continue
            if transport.get_write_buffer_size() > BUFFER_MAX:
                self._drop(listener)
            elif len(frame) > PUSH_MAX:
                listener.wake()
            else:
                transport.write(frame)
                listener.at = self.number

    def _drop(self, listener: Listener) -> None:
        self.dropped += 1
        listener.gone = True
        listener.writer.transport.abort()
        listener.wake()

    def _forget(self) -> None:
        self.board = Board()
        self._frames.clear()
        self._frames_size = 0
        self._whole, self._index = (-1, b""), (0.0, b"")
        self._taken_at = float("-inf")

    # ---- listening ---------------------------------------------------------------------------------------

    async def listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, position: str) -> None:
        """Tell one connection everything from `position` on, until it ends or is dropped."""
        listener = Listener(writer)
        listener.at = self._number_of(position)
        watch = asyncio.ensure_future(self._watch(reader, listener))
        self._listeners[listener] = None
        self._wanted.set()
        try:
            writer.write(b"retry: 2000\n\n")
            while not listener.gone:
                missing = self._missing(listener)
                if missing is None:
                    listener.woken.clear()
                    listener.current = True
                    await listener.woken.wait()
                    continue
                number, data = missing
                await self._pour(listener, data)
                listener.at = number
        except (ConnectionError, asyncio.TimeoutError):
            if not listener.gone:
                self._drop(listener)
        finally:
            del self._listeners[listener]
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await watch

    async def _watch(self, reader: asyncio.StreamReader, listener: Listener) -> None:
        """Nothing is to be said by a listener: any word of him, or the end of his side, ends it."""
        with contextlib.suppress(ConnectionError):
            await reader.read(1)
        listener.gone = True
        listener.wake()

    async def _pour(self, listener: Listener, data: bytes) -> None:
        for start in range(0, len(data), SLICE):
            listener.writer.write(data[start : start + SLICE])
            await asyncio.wait_for(listener.writer.drain(), SLICE_S)
            if listener.gone:
                return

    def _number_of(self, position: str) -> int | None:
        life, _, number = position.partition("-")
        if life != self._life or not number.isdecimal() or len(number) > 18:
            return None
        return int(number) if int(number) <= self.number else None

    def _missing(self, listener: Listener) -> tuple[int, bytes] | None:
        """What a listener has not seen, and its newest number; None when he has all there is."""
        if self.board.root is None or listener.at == self.number:
            return None
        if listener.at is not None and self._frames and self._frames[0][0] <= listener.at + 1:
            return self.number, b"".join(frame for number, frame in self._frames if number > listener.at)
        if self._whole[0] != self.number:
            self._whole = (self.number, self._frame("all", self.board.whole()))
        return self._whole
