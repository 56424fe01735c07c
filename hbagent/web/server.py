"""HTTP/1.1 over asyncio: connections in, requests one after the other, answers out; everything bounded.

A stranger may connect as often as he likes, say half a sentence and wait, ask a thousand things at once, or never
read what he asked for. So there is a limit to connections (the one that has been idle longest makes room for a new
one, else the one that has read nothing for longest), to the time of a head and of each slice of an answer, and to
requests a second, which are then served later rather than refused.

Who listens on this host only is still reached by any page that this host's browser has open, under a name that its
author makes to point here. Such a request says that name in its Host header, and is refused.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import socket
import termios
import time
from collections import Counter
from collections.abc import Callable, Iterable

from hbagent.core.exposition import Exposition, labels

from .answer import STREAM, Answer, head, sentence
from .feed import Feed
from .request import END, HEAD_SIZE_MAX, LINE_SIZE_MAX, Refused, Request, read_head
from .site import Events, Site
from .source import Source

#: Connections at once: all listeners, and some that only ask.
CONNECTIONS_MAX = 256
#: A head must be whole so long after the connection or the answer before it; also how long an idle one is kept.
HEAD_S = 15.0
#: An answer is written in slices, each of which must be taken in this time: 3 KB/s.
SLICE = 64 * 1024
SLICE_S = 20.0
#: Who reads nothing at all for this long is cut: as long as a network needs to find another way, and no longer.
STALL_S = 5.0
#: How often it is looked whether a client reads; who has not for this long may have to make room for another one.
LOOK_S = 0.5
#: Requests a second, over time, and at once. A page and what belongs to it are four; a scrape is one.
RATE, BURST = 200, 400
#: What a client still says is read for this long after a refusal: closed at once, it would never see the answer.
LINGER_S, LINGER_SIZE = 1.0, 64 * 1024
#: The kernel gives up a client that vanished after so long: a listener whose host lost its power.
VANISHED_MS = 30_000

#: Names of this host, where only it is listened to.
_LOCAL = ("localhost", "127.0.0.1", "::1")

Tell = Callable[[str, str, dict[str, object]], None]


class Pace:
    """A bucket of requests: `wait` says for how long the next one must wait."""

    def __init__(self, rate: float, burst: int) -> None:
        self._gap = 1 / rate
        self._credit = burst / rate
        self._next = 0.0

    def wait(self, now: float) -> float:
        """Book one request; seconds until its turn."""
        self._next = max(self._next, now - self._credit) + self._gap
        return max(0.0, self._next - now)


class Server:
    """Serves one site at one socket. All of it belongs to one event loop."""

    def __init__(
        self,
        source: Source,
        *,
        pages: bool,
        hosts: Iterable[str] = (),
        tell: Tell,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        self.feed = Feed(source)
        self._site = Site(source, self.feed, pages=pages, counters=self.metrics)
        self._names = [host.lower() for host in hosts]
        self._tell = tell
        self._connections_max = connections_max
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        #: Those that wait for a request, the longest first.
        self._idle: dict[asyncio.Task[None], None] = {}
        #: Those that do not read what was written for them, the longest first.
        self._blocked: dict[asyncio.Task[None], None] = {}
        self._pace = Pace(RATE, BURST)
        self._hosts: frozenset[str] | None = None
        #: Requests by status, and connections that were refused or ended, by reason.
        self.answered: Counter[int] = Counter()
        self.ended: Counter[str] = Counter()

    async def serve(self, listening: socket.socket) -> None:
        """Serve until cancelled; `listening` is bound, and closed at the end."""
        with listening:
            self._hosts = self._known_hosts(listening)
            server = await asyncio.start_server(self._connected, sock=listening, limit=HEAD_SIZE_MAX)
            feeding = asyncio.ensure_future(self.feed.run())
            try:
                await asyncio.wait({feeding})
                feeding.result()
            finally:
                server.close()
                await _end({feeding, *self._connections})

    def metrics(self, openmetrics: bool) -> bytes:
        """Its own counters, as Prometheus reads them; others follow."""
        out = Exposition(openmetrics)
        answered = [(labels(status=str(status)), count) for status, count in sorted(self.answered.items())]
        out.counter("hbagent_web_requests", "Requests answered over HTTP, by status.", answered)
        ended = {**self.ended, "slow-listener": self.feed.dropped}
        counts = [(labels(reason=reason), count) for reason, count in sorted(ended.items())]
        out.counter("hbagent_web_ended", "HTTP connections refused, evicted or dropped, by reason.", counts)
        out.gauge("hbagent_web_connections", "HTTP connections that are open.", [("", len(self._connections))])
        out.gauge("hbagent_web_listeners", "Browsers that follow the live feed.", [("", self.feed.listening)])
        return out.text(more=True)

    # ---- connections -------------------------------------------------------------------------------------

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._connections) >= self._connections_max and not self._make_room():
            self.ended["full"] += 1
            writer.write(_refusal(sentence(503, "too many connections")))
            await self._close(writer)
            return
        self._connections[task] = writer
        try:
            with contextlib.suppress(OSError):
                made = writer.get_extra_info("socket")
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, VANISHED_MS)
            await self._converse(task, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except asyncio.TimeoutError:
            self.ended["slow"] += 1
            writer.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()
        except Exception as error:
            self._tell("error", "web-defect", {"error": repr(error)})
            writer.transport.abort()
        finally:
            del self._connections[task]
            self._idle.pop(task, None)
            await self._close(writer)

    async def _close(self, writer: asyncio.StreamWriter) -> None:
        writer.close()
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            try:
                await asyncio.wait_for(writer.wait_closed(), STALL_S)
            except asyncio.TimeoutError:
                writer.transport.abort()

    def _make_room(self) -> bool:
        """End the connection that has said nothing for the longest, else the one that has read nothing for longest;
        False when all are being answered."""
        for waiting in (self._idle, self._blocked):
            for task in waiting:
                del waiting[task]
                self.ended["evicted"] += 1
                # Its own reading or writing then ends, and with it its task.
                self._connections[task].transport.abort()
                return True
        return False

    async def _converse(
        self, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        keep = True
        while keep:
            try:
                self._idle[task] = None
                try:
                    request = await self._read(reader)
                finally:
                    self._idle.pop(task, None)
                if request is None:
                    return
                self._check_host(request)
            except Refused as refused:
                await self._refuse(refused, task, reader, writer)
                return
            wait = self._pace.wait(time.monotonic())
            if wait:
                await asyncio.sleep(wait)
            keep = await self._respond(request, task, reader, writer)

    async def _read(self, reader: asyncio.StreamReader) -> Request | None:
        """The next request; None when the client is done. Raises Refused, ConnectionError, TimeoutError."""
        try:
            raw = await asyncio.wait_for(reader.readuntil(END), HEAD_S)
        except asyncio.IncompleteReadError as error:
            if error.partial:
                self.ended["half"] += 1
            return None
        except asyncio.LimitOverrunError as error:
            beginning = await reader.readexactly(min(error.consumed, LINE_SIZE_MAX + 2))
            if b"\r\n" in beginning:
                raise Refused(431, f"a head has at most {HEAD_SIZE_MAX} bytes") from error
            raise Refused(414, f"an address has at most {LINE_SIZE_MAX} bytes") from error
        return read_head(raw[: -len(END)])

    async def _respond(
        self,
        request: Request,
        task: asyncio.Task[None],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """Answer a request; True when the connection goes on."""
        try:
            answer = await self._site.answer(request)
        except Exception as error:
            self._tell("error", "web-defect", {"path": request.path[:200], "error": repr(error)})
            answer = sentence(500, "a defect; the log of the daemon says more")
        if isinstance(answer, Events):
            self.answered[200] += 1
            stream = Answer(kind=STREAM, headers=(("X-Accel-Buffering", "no"),))
            writer.write(head(stream, keep_alive=False, length=None))
            if request.method == "GET":
                await self.feed.listen(reader, writer, answer.position)
            return False
        self.answered[answer.status] += 1
        keep = request.keep_alive
        writer.write(head(answer, keep_alive=keep, length=len(answer.body)))
        if request.method == "GET" and answer.status != 304:
            for start in range(0, len(answer.body), SLICE):
                writer.write(answer.body[start : start + SLICE])
                await self._drain(task, writer)
        await self._drain(task, writer)
        return keep

    async def _drain(self, task: asyncio.Task[None], writer: asyncio.StreamWriter) -> None:
        """Until the client has taken what was written, but for little. Raises ConnectionError; TimeoutError when it
        takes nothing, or too slowly."""
        draining = asyncio.ensure_future(writer.drain())
        began = moved = time.monotonic()
        before = _held(writer)
        try:
            while not (await asyncio.wait({draining}, timeout=LOOK_S))[0]:
                now, held = time.monotonic(), _held(writer)
                if held < before:
                    moved = now
                    self._blocked.pop(task, None)
                else:
                    self._blocked.setdefault(task)
                before = held
                if now - moved >= STALL_S or now - began >= SLICE_S:
                    raise asyncio.TimeoutError
            draining.result()
        finally:
            draining.cancel()
            self._blocked.pop(task, None)

    async def _refuse(
        self, refused: Refused, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.answered[refused.status] += 1
        writer.write(_refusal(sentence(refused.status, str(refused))))
        await self._drain(task, writer)
        with contextlib.suppress(OSError):
            writer.write_eof()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_read_away(reader), LINGER_S)

    # ---- who is meant ------------------------------------------------------------------------------------

    def _known_hosts(self, listening: socket.socket) -> frozenset[str] | None:
        """Names by which it may be called; None: any."""
        address = str(listening.getsockname()[0])
        if address.startswith("127.") or address == "::1":
            return frozenset((*_LOCAL, address, *self._names))
        return frozenset((*_LOCAL, address, *self._names)) if self._names else None

    def _check_host(self, request: Request) -> None:
        # HTTP/1.0 has no such header, and no browser speaks it.
        if self._hosts is not None and request.headers.get("host") and request.host not in self._hosts:
            raise Refused(421, "this is not served under that name; [web] hosts in the config file can allow it")


def _held(writer: asyncio.StreamWriter) -> int:
    """Bytes that a client has not taken yet, here and in the kernel, which asks for more in large lumps only."""
    waiting = array.array("i", [0])
    # A connection that is lost by now says so to who writes.
    with contextlib.suppress(OSError, ValueError):
        fcntl.ioctl(writer.get_extra_info("socket").fileno(), termios.TIOCOUTQ, waiting)
    return writer.transport.get_write_buffer_size() + waiting[0]


def _refusal(answer: Answer) -> bytes:
    return head(answer, keep_alive=False, length=len(answer.body)) + answer.body


async def _end(tasks: set[asyncio.Task[None]]) -> None:
    """Cancel tasks until they are over: before Python 3.12 `wait_for` may swallow a cancellation."""
    while tasks:
        for task in tasks:
            task.cancel()
        _, tasks = await asyncio.wait(tasks, timeout=0.05)


async def _read_away(reader: asyncio.StreamReader) -> None:
    left = LINGER_SIZE
    while left > 0:
        data = await reader.read(8192)
        if not data:
            return
        left -= len(data)


def listen(address: str) -> socket.socket:
    """A listening socket at "127.0.0.1:8780", "[::1]:8780" or "*:8780". Raises OSError."""
    host, _, port = address.rpartition(":")
    bare = host.strip("[]")
    if bare == "*":
        return socket.create_server(("", int(port)), backlog=CONNECTIONS_MAX)
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    return socket.create_server((bare, int(port)), family=family, backlog=CONNECTIONS_MAX)
