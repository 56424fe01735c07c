"""The control path's two ends as ports: a bound ROUTER that knows whom a connection belongs to, and a DEALER.

Both carry one frame a message. Sending never waits: what cannot go now is counted and dropped, and the core that
sent it sends again.
"""

from __future__ import annotations

from collections.abc import Callable

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

    def __init__(self, socket: Socket, feed: Feed, senders: dict[str, str]) -> None:
        self.source = socket
        self._feed = feed
        self.senders = senders
        self._routes: dict[str, bytes] = {}
        self.unsent = 0

    def drain(self) -> int:
        """Take in what waits, at most `DRAIN_MAX` messages."""
        for count in range(DRAIN_MAX):
            try:
                frames = self.source.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return count
            try:
                name = self.senders[frames[-1].get(b"User-Id")]
            except (KeyError, zmq.ZMQError):
                self._feed("", Refused("", "unknown-sender"))
                continue
            if len(frames) != 2:
                self._feed("", Refused(name, "malformed", "not one frame"))
                continue
            self._routes[name] = frames[0].bytes
            self._feed(name, _message(name, frames[1].bytes))
        return DRAIN_MAX

    def send(self, peer: str, message: WireMessage) -> None:
        """To the connection where `peer` was last heard."""
        route = self._routes.get(peer)
        if route is None:
            self.unsent += 1
            return
        try:
            self.source.send_multipart((route, codec.encode(message)), zmq.NOBLOCK)
        except zmq.Again:
            self.unsent += 1
        except zmq.ZMQError:
            self.unsent += 1
            del self._routes[peer]

    def replace_senders(self, senders: dict[str, str]) -> None:
        """Another list of who may speak; nobody else is answered any more."""
        self.senders = senders
        names = set(senders.values())
        self._routes = {name: route for name, route in self._routes.items() if name in names}


class ControlDealer:
    """The calling end: one for each peer."""

    def __init__(self, socket: Socket, peer: str, feed: Feed) -> None:
        self.source = socket
        self.peer = peer
        self._feed = feed
        self.unsent = 0

    def drain(self) -> int:
        """Take in what waits, at most `DRAIN_MAX` messages."""
        for count in range(DRAIN_MAX):
            try:
                frames = self.source.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return count
            message = _message(self.peer, frames[0]) if len(frames) == 1 else Refused(self.peer, "malformed")
            self._feed(self.peer, message)
        return DRAIN_MAX

    def send(self, message: WireMessage) -> None:
        """To the peer, if it is connected."""
        try:
            self.source.send(codec.encode(message), zmq.NOBLOCK)
        except zmq.ZMQError:
            self.unsent += 1


def _message(sender: str, data: bytes) -> object:
    """What a core is given for one frame."""
    message = codec.decode(data)
    return Refused(sender, message.reason.value, message.detail) if isinstance(message, Refusal) else message
