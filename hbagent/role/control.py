"""The control path's two ends as ports: a bound ROUTER that knows whom a connection belongs to, and a DEALER.

The bound end is also where a process learns what the kernel knows of its peers: which connection each has, from
where, and when it ended.

Both carry one frame a message, and take only the kinds that belong there: a core has handlers for more, such as a
console's questions, that are none of a peer's business. Sending never waits: what cannot go now is counted and
dropped, and the core that sent it sends again.

Each end remembers for each connection which minor of the wire the other one reads, and writes nothing newer: what it
may not be told at all is counted as `withheld`. See `wire.version` for the rule.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, NamedTuple

import zmq

from hbagent import __version__
from hbagent.core.messages import (
    Disconnected,
    Located,
    RackSummary,
    Refused,
    Transitions,
    Welcome,
    WireMessage,
)
from hbagent.core.units import MILLISECOND
from hbagent.transport.sockets import Socket
from hbagent.wire import codec, minors
from hbagent.wire.refusal import Refusal
from hbagent.wire.version import MINOR, MINOR_ASSUMED

from .driver import Driver

if TYPE_CHECKING:
    # Only the bound end has them; an agent does without.
    from hbagent.transport.connections import Connections
    from hbagent.transport.monitor import Link

#: Messages taken before the loop looks at its deadlines again.
DRAIN_MAX = 500

#: libzmq closes a descriptor right after it has told of it, but its thread may have to wait for a processor in between:
#: a connection that was told as lost and is still there is looked at again after this, doubling, for somewhat more than
#: a second in all. One that lives on then is another, which has the same number by now.
CLOSED_SOON_NS = 10 * MILLISECOND
CLOSED_WITHIN_NS = 640 * MILLISECOND

Feed = Callable[[str, object], None]
#: Told who introduced itself, with what, and which minor to speak to it.
Introduced = Callable[[str, WireMessage, int], None]


class _Route(NamedTuple):
    """Where a peer was last heard."""

    router: ControlRouter
    id: bytes
    user_id: str


class ControlRouter:
    """The bound end. Who sent a message is the key on its frames, whom to answer is where that key was last heard.

    `accepts` are the kinds that a sender may send, `accepts_of` those of senders who may send others. Each peer's
    newest connection is noted in `connections`; with `locate` its address is fed as `Located` before its first
    message, whenever it is another, and empty when the peer may not speak any more.

    A router made `beside` another one is a second door to the same house: they share what they know of the peers, and
    either of them sends to a peer where it was last heard. A peer that moves from one to the other and hangs up at the
    first is not believed to be back there by what was still on its way.
    """

    def __init__(
        self,
        socket: Socket,
        feed: Feed,
        senders: Mapping[str, str],
        accepts: Collection[type],
        accepts_of: Mapping[str, Collection[type]] | None = None,
        *,
        connections: Connections,
        locate: bool = False,
        beside: ControlRouter | None = None,
    ) -> None:
        self.source = socket
        self._feed = feed
        self._accepts = frozenset(accepts)
        self._connections = connections
        self._locate = locate
        self._routes: dict[str, _Route] = beside._routes if beside is not None else {}
        #: The connection that a peer left for one at the other door.
        self._left: dict[str, _Route] = beside._left if beside is not None else {}
        self._addresses: dict[str, str] = beside._addresses if beside is not None else {}
        #: The minor that a peer reads, and the connection on which it said so.
        self._reads: dict[str, tuple[_Route, int]] = beside._reads if beside is not None else {}
        self.unsent = 0
        self.withheld = 0
        self.cut = 0
        self.replace_senders(senders, accepts_of)

    def drain(self) -> int:
        """Take in what waits, at most `DRAIN_MAX` messages or verdicts."""
        taken = 0
        while taken < DRAIN_MAX:
            try:
                frames = self.source.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            taken += 1
            try:
                user_id = frames[-1].get(b"User-Id")
                name = self.senders[user_id]
            except (KeyError, zmq.ZMQError):
                self.cut += self._connections.cut_sender(frames[-1])
                self._feed("", Refused("", "unknown-sender"))
                continue
            route = _Route(self, frames[0].bytes, user_id)
            if self._routes.get(name) != route:
                self._met(name, route, frames[-1])
            if len(frames) != 2:
                self._feed("", Refused(name, "malformed", "not one frame"))
                continue
            accepts = self._accepts_of.get(name, self._accepts)
            taken += _deliver(self._feed, name, frames[1].bytes, accepts, self._introduced)
        return taken

    def send(self, peer: str, message: WireMessage) -> None:
        """To the connection where `peer` was last heard."""
        route = self._routes.get(peer)
        if route is None:
            self.unsent += 1
            return
        minor = self.minor_of(peer)
        if not codec.exists(message, minor):
            self.withheld += 1
            return
        try:
            frame = codec.encode(codec.introducing(message), minor)
            route.router.source.send_multipart((route.id, frame), zmq.NOBLOCK)
        except zmq.Again:
            self.unsent += 1
        except zmq.ZMQError:
            self.unsent += 1
            del self._routes[peer]
            self._connections.lost(peer)

    def minor_of(self, peer: str) -> int:
        """The minor to speak to `peer`, on the connection where it was last heard."""
        route, minor = self._reads.get(peer, (None, MINOR_ASSUMED))
        return minor if route is not None and route == self._routes.get(peer) else MINOR_ASSUMED

    def _introduced(self, peer: str, message: WireMessage, minor: int) -> None:
        self._reads[peer] = self._routes[peer], minor
        if isinstance(message, RackSummary) and message.page == 0:
            # Nothing else may have to be said to a leader that is well.
            self.send(peer, Welcome(reads=MINOR, version=__version__))

    def replace_senders(
        self, senders: Mapping[str, str], accepts_of: Mapping[str, Collection[type]] | None = None
    ) -> None:
        """Another list of who may speak, and what some of them may say. The connections of all others end at once."""
        self.senders = senders
        self._accepts_of = {name: frozenset(kinds) for name, kinds in (accepts_of or {}).items()}
        self._connections.forget_cuts()
        for name in [name for name, route in self._left.items() if senders.get(route.user_id) != name]:
            del self._left[name]
        for name in [name for name, route in self._routes.items() if senders.get(route.user_id) != name]:
            del self._routes[name]
            self._reads.pop(name, None)
            self.cut += self._connections.end(name)
            if self._addresses.pop(name, ""):
                self._feed("", Located(name, ""))

    def has_met(self, name: str) -> bool:
        """True when a peer was heard at this door or one beside it."""
        return name in self._routes

    def heard_here(self) -> list[str]:
        """Peers that were last heard at this door, and whose connection lives."""
        return [name for name, route in self._routes.items() if route.router is self and self._connections.lives(name)]

    def _met(self, name: str, route: _Route, frame: zmq.Frame) -> None:
        """`name` is heard on another connection than before."""
        before = self._routes.get(name)
        if before is not None and before.router is not self:
            if self._left.get(name) == route and self._connections.lives(name):
                return
            self._left[name] = before
        self._routes[name] = route
        self._note(name, frame)

    def _note(self, name: str, frame: zmq.Frame) -> None:
        gone = self._connections.note(name, frame.get(zmq.SRCFD))
        if gone is not None:
            self._feed("", Disconnected(gone))
        if self._locate:
            address = _address(frame)
            if address and self._addresses.get(name) != address:
                self._addresses[name] = address
                self._feed("", Located(name, address))


class Losses:
    """Feeds `Disconnected` when the kernel has closed the connection of a peer that `connections` knows.

    `told` is a monitor's callback. Whoever connects and hangs up, however often, costs the loop nothing: only
    connections of known peers are handed over, each once however often it is told, and all of them in one call.
    """

    def __init__(self, connections: Connections, driver: Driver) -> None:
        self._connections = connections
        self._driver = driver
        #: Numbers of descriptors in the order in which they were told.
        self._lost: dict[int, None] = {}

    def told(self, link: Link) -> None:
        """In the monitor's thread."""
        if self._connections.knows(link.value) and link.value not in self._lost:
            self._lost[link.value] = None
            self._driver.mailbox.post(self._look)

    def _look(self) -> None:
        for fd in [*self._lost]:
            # Before the look: what is told from here on is looked at again.
            del self._lost[fd]
            self._look_at(fd, CLOSED_SOON_NS)

    def _look_at(self, fd: int, again_ns: int) -> None:
        name = self._connections.gone(fd)
        if name is not None:
            self._driver.feed("", Disconnected(name))
        elif again_ns <= CLOSED_WITHIN_NS and self._connections.knows(fd):
            call = functools.partial(self._look_at, fd, 2 * again_ns)
            self._driver.call_later(time.monotonic_ns() + again_ns, call)


def _address(frame: zmq.Frame) -> str:
    """The numeric address that a frame came from; an IPv4 peer of an IPv6 socket under its own."""
    try:
        return str(frame.get("Peer-Address")).removeprefix("::ffff:")
    except zmq.ZMQError:
        return ""


class ControlDealer:
    """The calling end: one for each peer."""

    def __init__(self, socket: Socket, peer: str, feed: Feed, accepts: Collection[type]) -> None:
        self.source = socket
        self.peer = peer
        self._feed = feed
        self._accepts = frozenset(accepts)
        #: The minor to speak to the peer.
        self.minor = MINOR_ASSUMED
        self.unsent = 0
        self.withheld = 0

    def drain(self) -> int:
        """Take in what waits, at most `DRAIN_MAX` messages."""
        for count in range(DRAIN_MAX):
            try:
                frames = self.source.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return count
            if len(frames) == 1:
                _deliver(self._feed, self.peer, frames[0], self._accepts, self._introduced)
            else:
                self._feed("", Refused(self.peer, "malformed", "not one frame"))
        return DRAIN_MAX

    def send(self, message: WireMessage) -> None:
        """To the peer, if it is connected."""
        if not codec.exists(message, self.minor):
            self.withheld += 1
            return
        try:
            self.source.send(codec.encode(codec.introducing(message), self.minor), zmq.NOBLOCK)
        except zmq.ZMQError:
            self.unsent += 1

    def lost(self) -> None:
        """The connection is gone; at its other end there may be an older version next time."""
        self.minor = MINOR_ASSUMED

    def _introduced(self, peer: str, message: WireMessage, minor: int) -> None:
        self.minor = minor


def _deliver(feed: Feed, sender: str, data: bytes, accepts: frozenset[type], introduced: Introduced) -> int:
    """Give a core what one frame holds, or why it was refused; returns for how many more messages it counts.

    A hundred verdicts in one message are as much work as a hundred messages: when a datacenter falls over, thousands
    come at once, and somebody wants to be told how it stands meanwhile.
    """
    message = codec.decode(data)
    if isinstance(message, Refusal):
        feed("", Refused(sender, message.reason.value, message.detail))
    elif type(message) in accepts:
        reads = codec.announced(message, data)
        if reads is not None:
            introduced(sender, message, minors.clipped(reads))
        if not isinstance(message, Welcome):
            feed(sender, message)
    else:
        feed("", Refused(sender, "unexpected-type", type(message).__name__))
    return len(message.items) - 1 if isinstance(message, Transitions) and message.items else 0
