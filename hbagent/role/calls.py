"""Whom this process calls, and how it moves to another address of theirs without a gap.

A line is everything that goes to one address and key of a peer: a control path, and a PUB for each kind of thing that
is published there. A call is a peer, and has one line; two while it moves.

When the config gives a peer another address or key, a second line is opened beside the first. Messages take the new one
as soon as its control path is up; what is published takes the old one until all of the new one has worked for
`SETTLE_NS`, and the next beat the new one, so that each goes out once. Then the old line is closed. A new line that
never works costs nothing: the old one stays, and that is told.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from random import Random

import zmq

from hbagent.core.messages import WireMessage
from hbagent.core.units import SECOND
from hbagent.transport import sockets
from hbagent.transport.backoff import Backoff
from hbagent.transport.monitor import Link, LinkEvent, Monitor

from .control import ControlDealer
from .defects import Tell
from .driver import Driver
from .settings import Endpoint

CONTROL = "control"
#: A bound SUB subscribes when its thread comes round, after the connection is up: whoever is a second late at that has
#: other troubles.
SETTLE_NS = SECOND
#: A new address that does not work within this is told of.
MOVE_TOLD_NS = 10 * SECOND
#: What was said last at an old address may still be on its way to the kernel.
LINGER_MS = 1_000

Publisher = Callable[[], sockets.Socket]
#: Name, up, refused, and whether it only goes another way than before.
Linked = Callable[[str, bool, bool, bool], None]


class Calls:
    """The calls to some peers, changed with the config.

    `publishers` make the PUB of each kind, `accepts` is what a peer may say and `heard` who is told of it. With
    `admits`, a line works only once the peer has said something there of which that is true. `linked` is told of each
    connection and loss of a control path. Whoever refuses our key is called again as `Backoff` says.
    """

    def __init__(
        self,
        context: sockets.Context,
        caller: sockets.Caller,
        driver: Driver,
        random: Random,
        tell: Tell,
        *,
        heard: Callable[[str, object], None],
        accepts: Collection[type],
        linked: Linked,
        publishers: Mapping[str, Publisher] | None = None,
        admits: Callable[[object], bool] | None = None,
    ) -> None:
        self._context = context
        self._caller = caller
        self._driver = driver
        self._random = random
        self._tell = tell
        self._heard = heard
        self._accepts = accepts
        self._linked = linked
        self._publishers = publishers if publishers is not None else {}
        self._admits = admits
        self._calls: dict[str, _Call] = {}

    def __len__(self) -> int:
        return len(self._calls)

    # ---- in the loop's thread ----------------------------------------------------------------------------

    def use(self, peers: Iterable[Endpoint]) -> None:
        """Call these and no other; who is called already under the same address and key is not disturbed.

        Raises EndpointError.
        """
        wanted = {peer.name: peer for peer in peers}
        for name in [name for name in self._calls if name not in wanted]:
            self._hang_up(self._calls.pop(name))
        for name, peer in wanted.items():
            call = self._calls.get(name)
            if call is None:
                self._calls[name] = _Call(self._open(peer))
            elif not _same(call.wanted.peer, peer):
                self._move(call, peer)

    def send(self, name: str, message: WireMessage) -> None:
        """To that peer, if it is called and connected."""
        call = self._calls.get(name)
        if call is not None:
            call.way.dealer.send(message)

    def publish(self, kind: str, written: Callable[[int], bytes]) -> None:
        """To all peers, to each as `written` for the minor that it reads. A PUB never has to wait: for one that is not
        there or does not read, it drops."""
        frames: dict[int, bytes] = {}
        for call in self._calls.values():
            line = call.way_of(kind)
            minor = line.dealer.minor
            frame = frames.get(minor)
            if frame is None:
                frame = frames[minor] = written(minor)
            line.sockets[kind].send(frame, zmq.NOBLOCK)

    def close(self, linger_ms: int = 0) -> None:
        """End all calls; before the context ends."""
        for call in self._calls.values():
            self._hang_up(call, linger_ms)
        self._calls.clear()

    # ---- lines -------------------------------------------------------------------------------------------

    def _open(self, peer: Endpoint) -> _Line:
        line = _Line(peer)
        for kind, make in self._publishers.items():
            line.sockets[kind] = make()
        line.sockets[CONTROL] = control = sockets.control_dealer(self._context, self._caller, ())
        line.dealer = ControlDealer(control, peer.name, functools.partial(self._said, line), self._accepts)
        line.monitor = Monitor(line.sockets, functools.partial(self._link_changed, line))
        self._driver.add(line.dealer)
        for kind in line.sockets:
            sockets.connect(line.sockets[kind], self._caller, line.target(kind))
        return line

    def _shut(self, line: _Line, linger_ms: int = 0) -> None:
        line.open = False
        line.monitor.stop()
        self._driver.remove(line.dealer)
        for socket in line.sockets.values():
            socket.close(linger=linger_ms)

    def _hang_up(self, call: _Call, linger_ms: int = 0) -> None:
        self._shut(call.line, linger_ms)
        if call.next is not None:
            self._shut(call.next, linger_ms)

    # ---- moving ------------------------------------------------------------------------------------------

    def _move(self, call: _Call, peer: Endpoint) -> None:
        """Another address or key: from the next line on, or back to that which still is there."""
        given_up, call.next = call.next, None
        if not _same(call.line.peer, peer):
            call.next = self._open(peer)
            self._look_later(call, call.next)
        if given_up is not None:
            self._shut(given_up, LINGER_MS)
            call.works_since = None
            if CONTROL in given_up.up:
                up = CONTROL in call.line.up
                self._linked(peer.name, up, False, up)

    def _look_later(self, call: _Call, line: _Line) -> None:
        at = time.monotonic_ns() + MOVE_TOLD_NS
        self._driver.call_later(at, functools.partial(self._look_whether_moved, call, line))

    def _look_whether_moved(self, call: _Call, line: _Line) -> None:
        if call.next is not line or not line.open:
            return
        if call.works_since is not None:
            self._look_later(call, line)
            return
        missing = ", ".join(kind for kind in line.sockets if kind not in line.up)
        reason = f"no {missing}" if missing else "not admitted there"
        fields: dict[str, object] = {
            "peer": line.peer.name,
            "new": line.peer.control,
            "kept": call.line.peer.control,
            "reason": "it refuses our key" if line.backoffs else reason,
        }
        self._tell("warning", "new-address-does-not-work", fields)

    def _look_whether_works(self, call: _Call) -> None:
        line = call.next
        if line is None or not self._works(line):
            call.works_since = None
        elif call.works_since is None:
            call.works_since = time.monotonic_ns()
            at = call.works_since + SETTLE_NS
            self._driver.call_later(at, functools.partial(self._arrive, call, line, call.works_since))

    def _works(self, line: _Line) -> bool:
        return line.up >= line.sockets.keys() and (self._admits is None or line.admitted)

    def _arrive(self, call: _Call, line: _Line, since: int) -> None:
        """The new line has worked for a while: the old one is not needed any more."""
        if call.next is not line or call.works_since != since or not line.open:
            return
        old, call.line, call.next, call.works_since = call.line, line, None, None
        self._shut(old, LINGER_MS)
        peer = line.peer
        self._tell("info", "moved", {"peer": peer.name, "from": old.peer.control, "to": peer.control})

    # ---- news --------------------------------------------------------------------------------------------

    def _said(self, line: _Line, name: str, message: object) -> None:
        if self._admits is not None and not line.admitted and name and self._admits(message):
            line.admitted = True
            call = self._call_of(line)
            if call is not None:
                self._look_whether_works(call)
        self._heard(name, message)

    def _link_changed(self, line: _Line, link: Link) -> None:
        """In the monitor's thread: the loop decides."""
        self._driver.mailbox.post(functools.partial(self._on_link, line, link))

    def _on_link(self, line: _Line, link: Link) -> None:
        call = self._call_of(line)
        if call is None:
            return
        kind, was_up = link.socket, link.socket in line.up
        if link.event is LinkEvent.UP:
            line.up.add(kind)
            line.backoffs.pop(kind, None)
        else:
            line.up.discard(kind)
            if link.event is LinkEvent.REFUSED:
                self._refused(line, kind)
        if kind == CONTROL:
            line.admitted = False
            line.dealer.lost()
            self._tell_of(call, line, link.event, was_up)
        self._look_whether_works(call)

    def _tell_of(self, call: _Call, line: _Line, event: LinkEvent, was_up: bool) -> None:
        """A control path came, or went. While there are two, only what makes a difference is told."""
        other = call.next if line is call.line else call.line
        other_up = other is not None and CONTROL in other.up
        name, up = line.peer.name, event is LinkEvent.UP
        if not other_up:
            self._linked(name, up, event is LinkEvent.REFUSED, False)
        elif line is call.next and (up or was_up):
            self._linked(name, True, False, True)

    def _refused(self, line: _Line, kind: str) -> None:
        """libzmq gives up a connection that was refused; call again in a while."""
        backoff = line.backoffs.setdefault(kind, Backoff(self._random))
        if backoff.retry_at is None:
            at = backoff.refused(time.monotonic_ns())
            self._driver.call_later(at, functools.partial(self._knock_again, line, kind, backoff))

    def _knock_again(self, line: _Line, kind: str, backoff: Backoff) -> None:
        if line.open and line.backoffs.get(kind) is backoff and backoff.due(time.monotonic_ns()):
            sockets.reconnect(line.sockets[kind], self._caller, line.target(kind))

    def _call_of(self, line: _Line) -> _Call | None:
        call = self._calls.get(line.peer.name)
        return call if call is not None and line in (call.line, call.next) else None


class _Line:
    """The connections to one address of a peer."""

    dealer: ControlDealer
    monitor: Monitor

    def __init__(self, peer: Endpoint) -> None:
        self.peer = peer
        self.sockets: dict[str, sockets.Socket] = {}
        #: Kinds whose connection is up.
        self.up: set[str] = set()
        self.admitted = False
        self.open = True
        #: One for each connection that was refused and has not been up since.
        self.backoffs: dict[str, Backoff] = {}

    def target(self, kind: str) -> sockets.Target:
        address = self.peer.control if kind == CONTROL else self.peer.publish
        return sockets.Target(address, self.peer.public_key)


class _Call:
    """One peer: the line that is in use, and while it moves the next one."""

    def __init__(self, line: _Line) -> None:
        self.line = line
        self.next: _Line | None = None
        #: Since when all of the next line works.
        self.works_since: int | None = None

    @property
    def wanted(self) -> _Line:
        """The line to the address that the config names."""
        return self.next if self.next is not None else self.line

    @property
    def way(self) -> _Line:
        """The line that messages take."""
        return self.next if self.next is not None and CONTROL in self.next.up else self.line

    def way_of(self, kind: str) -> _Line:
        """The line that takes what is published."""
        return self.line if self.next is None or kind in self.line.up else self.next


def _same(one: Endpoint, other: Endpoint) -> bool:
    """True when both are called alike."""
    return (one.publish, one.control, one.public_key) == (other.publish, other.control, other.public_key)
