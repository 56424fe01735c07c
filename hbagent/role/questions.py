"""The query socket as a port: consoles ask, the core answers with a view, the answer leaves in pages.

Who may ask is decided by the mode of the socket file, so a question has no name, only a connection to answer to.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import zmq

from hbagent.core.effects import Answer
from hbagent.core.messages import Query
from hbagent.transport.sockets import Socket
from hbagent.wire import codec
from hbagent.wire.pages import answer_pages

#: Questions taken before the loop looks at its deadlines again.
DRAIN_MAX = 50


class Questions:
    """The port of a query ROUTER. A console that does not read its answer loses it."""

    def __init__(self, socket: Socket, feed: Callable[[str, object], None]) -> None:
        self.source = socket
        self._feed = feed
        #: Frames that were no question, and answers that nobody was there to take.
        self.refused = 0
        self.unsent = 0

    def drain(self) -> int:
        """Take in what waits, at most `DRAIN_MAX` questions."""
        for count in range(DRAIN_MAX):
            try:
                frames = self.source.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return count
            message = codec.decode(frames[-1]) if len(frames) == 2 else None
            if isinstance(message, Query):
                self._feed(frames[0].decode("latin-1"), message)
            else:
                self.refused += 1
        return DRAIN_MAX

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
        try:
            for page in answer_pages(id, document, error):
                self.source.send_multipart((asker, codec.encode(page)), zmq.NOBLOCK)
        except zmq.ZMQError:
            # Gone, or too slow to be waited for.
            self.unsent += 1
