"""The control path's two ends as ports: a bound ROUTER that knows whom a connection belongs to, and a DEALER.

Both carry one frame a message, and take only the kinds that belong there: a core has handlers for more, such as a
console's questions, that are none of a peer's business. Sending never waits: what cannot go now is counted and
dropped, and the core that sent it sends again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import zmq

from hbagent.core.messages import Refused, WireMessage
from hbagent.transport.sockets import Socket
from hbagent.wire import codec
from hbagent.wire.refusal import Refusal

#: Messages taken before the loop looks at its deadlines again.
DRAIN_MAX = 500

Feed = Callable[[str, object], None]


class ControlRouter:
    """The bound end. Who sent a message is the key on its frames, whom to answer is where that key was last heard."""

    def __init__(self, socket: Socket, feed: Feed, senders: dict[str, str], accepts: Collection[type]) -> None:
        self.source = socket
        self._feed = feed
        self.senders = senders
        self._accepts = frozenset(accepts)
        #: Name to the connection where it was last heard, and that connection's user id.
        self._routes: dict[str, tuple[bytes, str]] = {}
        self.unsent = 0

    def drain(self) -> int:
        """Take in what waits, at most `DRAIN_MAX` messages."""
        for count in range(DRAIN_MAX):
            try:
                frames = self.source.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return count
            try:
                user_id = frames[-1].get(b"User-Id")
                name = self.senders[user_id]
            except (KeyError, zmq.ZMQError):
                self._feed("", Refused("", "unknown-sender"))
                continue
            if len(frames) != 2:
                self._feed("", Refused(name, "malformed", "not one frame"))
                continue
            self._routes[name] = (frames[0].bytes, user_id)
            _deliver(self._feed, name, frames[1].bytes, self._accepts)
        return DRAIN_MAX

    def send(self, peer: str, message: WireMessage) -> None:
        """To the connection where `peer` was last heard."""
        route = self._routes.get(peer)
        if route is None:
            self.unsent += 1
            return
        try:
            self.source.send_multipart((route[0], codec.encode(message)), zmq.NOBLOCK)
        except zmq.Again:
            self.unsent += 1
        except zmq.ZMQError:
            self.unsent += 1
            del self._routes[peer]

    def replace_senders(self, senders: dict[str, str]) -> None:
        """Another list of who may speak; nobody else is answered any more."""
        self.senders = senders
        self._routes = {name: route for name, route in self._routes.items() if senders.get(route[1]) == name}


class ControlDealer:
    """The calling end: one for each peer."""

    def __init__(self, socket: Socket, peer: str, feed: Feed, accepts: Collection[type]) -> None:
        self.source = socket
        self.peer = peer
        self._feed = feed
        self._accepts = frozenset(accepts)
        self.unsent = 0

    def drain(self) -> int:
        """Take in what waits, at most `DRAIN_MAX` messages."""
        for count in range(DRAIN_MAX):
            try:
                frames = self.source.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return count
            if len(frames) == 1:
                _deliver(self._feed, self.peer, frames[0], self._accepts)
            else:
                self._feed("", Refused(self.peer, "malformed", "not one frame"))
        return DRAIN_MAX

    def send(self, message: WireMessage) -> None:
        """To the peer, if it is connected."""
        try:
            self.source.send(codec.encode(message), zmq.NOBLOCK)
        except zmq.ZMQError:
            self.unsent += 1


def _deliver(feed: Feed, sender: str, data: bytes, accepts: frozenset[type]) -> None:
    """Give a core what one frame holds, or why it was refused."""
    message = codec.decode(data)
    if isinstance(message, Refusal):
        feed("", Refused(sender, message.reason.value, message.detail))
    elif type(message) in accepts:
        feed(sender, message)
    else:
        feed("", Refused(sender, "unexpected-type", type(message).__name__))
