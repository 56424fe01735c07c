"""A query socket as a port: consoles ask and order, the core answers with a view, the answer leaves in pages.

Who asks, and what they may, is for the port's door to say (`visitors`). A question reaches the core with nothing but
an address to answer to, an order with who gave it. That address begins with the mark of the door, so that an answer
leaves by the port that its question came in by (`Desks`), whatever routing id somebody has chosen there; and then has
the minor of the question, so that the answer is one that the console can read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import msgspec
import zmq

from hbagent.core.effects import Answer
from hbagent.core.messages import Order, Ordered, Query, Refused
from hbagent.transport.sockets import Socket
from hbagent.wire import codec, minors
from hbagent.wire.pages import answer_pages
from hbagent.wire.version import MINOR_AT

from .defects import Tell
from .visitors import Closed, Door

#: Questions taken before the loop looks at its deadlines again.
DRAIN_MAX = 50
ONLY_THE_ROOT = "only the root changes anything: give this order to the root"


class Questions:
    """The port of a query ROUTER. A console that does not read its answer loses it.

    Without a `door` everybody may ask, and nobody may order anything. A core tells of the orders that it carried out;
    of queries that change something, `tell` is told who asked.
    """

    def __init__(
        self,
        socket: Socket,
        feed: Callable[[str, object], None],
        door: Door | None = None,
        tell: Tell = lambda level, what, fields: None,
    ) -> None:
        self.source = socket
        self._feed = feed
        self._tell = tell
        self._door = door if door is not None else Closed(ONLY_THE_ROOT)
        self.mark = self._door.mark
        #: Frames that were no question, and answers that nobody was there to take.
        self.refused = 0
        self.unsent = 0

    def drain(self) -> int:
        """Take in what waits, at most `DRAIN_MAX` questions."""
        for count in range(DRAIN_MAX):
            try:
                frames = self.source.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return count
            self._take(frames)
        return DRAIN_MAX

    def _take(self, frames: list[zmq.Frame]) -> None:
        visitor = self._door.visitor(frames)
        if visitor is None:
            return
        data = frames[1].bytes if len(frames) == 2 else b""
        message = codec.decode(data)
        if not isinstance(message, (Query, Order)):
            self.refused += 1
            return
        asker = self.mark + bytes([minors.clipped(data[MINOR_AT])]) + frames[0].bytes
        if visitor.objection:
            self.answer(Answer(asker, message.id, None, visitor.objection))
        elif isinstance(message, Query) and message.what not in self._door.changing:
            self._feed(asker.decode("latin-1"), message)
        elif visitor.reads_only:
            if visitor.name:
                self._feed("", Refused(visitor.name, "read-only", message.what))
            self.answer(Answer(asker, message.id, None, visitor.reads_only))
        else:
            self._door.named(visitor, functools.partial(self._order, asker, message))

    def _order(self, asker: bytes, message: Order | Query, by: str) -> None:
        if isinstance(message, Query):
            self._tell("info", "operator", {"by": by, "did": message.what, "to": message.node})
        self._feed(asker.decode("latin-1"), Ordered(message, by) if isinstance(message, Order) else message)

    def answer(self, answer: Answer) -> None:
        """Send a view, or why there is none, to whoever asked.

        What cannot be encoded is a defect: it is raised, after the asker was told.
        """
        try:
            document = b"" if answer.error else msgspec.json.encode(answer.view)
        except Exception as error:
            self._send(answer.asker, answer.id, b"", f"a defect: {error!r}")
            raise
        self._send(answer.asker, answer.id, document, answer.error)

    def _send(self, asker: bytes, id: int, document: bytes, error: str) -> None:
        minor, route = asker[len(self.mark)], asker[len(self.mark) + 1 :]
        try:
            for page in answer_pages(id, document, error):
                self.source.send_multipart((route, codec.encode(page, minor)), zmq.NOBLOCK)
        except zmq.Again:
            # Too slow to be waited for.
            self.unsent += 1
            self._door.deaf(route)
        except zmq.ZMQError:
            self.unsent += 1


class Desks:
    """Everywhere that questions come from, by the first byte of an asker's address."""

    def __init__(self) -> None:
        self._desks: dict[bytes, Callable[[Answer], None]] = {}

    def add(self, mark: bytes, answer: Callable[[Answer], None]) -> None:
        """Answers to askers whose address begins with `mark`, one byte, go to `answer`."""
        self._desks[mark] = answer

    def answer(self, answer: Answer) -> None:
        """Have an answer go to where its question came from. Raises KeyError for an asker from nowhere."""
        self._desks[answer.asker[:1]](answer)
