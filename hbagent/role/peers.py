"""The other leaders of this leader's racks: each calls each, asks what it has heard of a node, and is answered.

Two leaders have two connections between them, and a question goes out by the own one: so neither waits for the other
to call first, and a wall that lets only one of them call costs only that one its questions.

What a leader may say to another is a question, and what it may answer is one; which of its connections is a leader's
is a matter of the key in its `[[peer]]` table. Such a key opens the control path alone: nothing is published to a
leader by another one, so it proves nobody's life by itself.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable
from random import Random

from hbagent.core.messages import HeardWanted, LastHeard, WireMessage
from hbagent.transport import sockets
from hbagent.transport.backoff import Backoff
from hbagent.transport.monitor import Link, LinkEvent, Monitor

from .control import ControlDealer
from .defects import Tell
from .driver import Driver
from .settings import Endpoint

#: What another leader asks at the control path's bound end, and answers at the calling one.
QUESTIONS = (HeardWanted,)
ANSWERS = (LastHeard,)


class Peers:
    """The calls to the other leaders, changed with the config. Whoever refused is called again as `Backoff` says."""

    def __init__(
        self, context: sockets.Context, caller: sockets.Caller, driver: Driver, random: Random, tell: Tell
    ) -> None:
        self._context = context
        self._caller = caller
        self._driver = driver
        self._random = random
        self._tell = tell
        self._calls: dict[str, _Call] = {}

    def use(self, peers: Iterable[Endpoint]) -> None:
        """Call these and no other; who is called already under the same address and key is not disturbed.

        Raises EndpointError.
        """
        wanted = {peer.name: peer for peer in peers}
        for call in [call for name, call in self._calls.items() if wanted.get(name) != call.peer]:
            self._hang_up(self._calls.pop(call.peer.name))
        for name, peer in wanted.items():
            if name not in self._calls:
                self._calls[name] = self._call(peer)

    def send(self, name: str, message: WireMessage) -> None:
        """To that leader, if it is called and connected; a question in vain is one without an answer."""
        call = self._calls.get(name)
        if call is not None:
            call.dealer.send(message)

    def close(self) -> None:
        """End all calls; before the context ends."""
        for call in self._calls.values():
            self._hang_up(call)
        self._calls.clear()

    def _call(self, peer: Endpoint) -> _Call:
        socket = sockets.control_dealer(self._context, self._caller, ())
        dealer = ControlDealer(socket, peer.name, self._driver.feed, ANSWERS)
        call = _Call(peer, dealer, Backoff(self._random))
        call.monitor = Monitor({peer.name: socket}, functools.partial(self._link_changed, call))
        self._driver.add(dealer)
        sockets.connect(socket, self._caller, call.target)
        return call

    def _hang_up(self, call: _Call) -> None:
        if call.monitor is not None:
            call.monitor.stop()
        self._driver.remove(call.dealer)
        call.dealer.source.close(linger=0)

    def _link_changed(self, call: _Call, link: Link) -> None:
        """In the monitor's thread: the loop decides."""
        self._driver.mailbox.post(functools.partial(self._on_link, call, link.event))

    def _on_link(self, call: _Call, event: LinkEvent) -> None:
        name = call.peer.name
        if self._calls.get(name) is not call:
            return
        if event is LinkEvent.UP:
            call.backoff.admitted()
            call.up = True
            self._tell("info", "peer-connected", {"leader": name})
        elif event is LinkEvent.LOST:
            # A refused connection is lost as well.
            if call.up:
                self._tell("warning", "peer-lost", {"leader": name})
            call.up = False
        elif call.backoff.retry_at is None:
            at = call.backoff.refused(time.monotonic_ns())
            self._driver.call_later(at, functools.partial(self._knock_again, call))
            remedy = "its config needs a [[peer]] with this leader's name and public key"
            self._tell("warning", "peer-refused-our-key", {"leader": name, "remedy": remedy})

    def _knock_again(self, call: _Call) -> None:
        if self._calls.get(call.peer.name) is call and call.backoff.due(time.monotonic_ns()):
            sockets.reconnect(call.dealer.source, self._caller, call.target)


class _Call:
    """The connection to one leader."""

    def __init__(self, peer: Endpoint, dealer: ControlDealer, backoff: Backoff) -> None:
        self.peer = peer
        self.dealer = dealer
        self.backoff = backoff
        self.monitor: Monitor | None = None
        self.up = False
        self.target = sockets.Target(peer.control, peer.public_key)


def user_ids(peers: Iterable[Endpoint]) -> dict[str, str]:
    """Name to user id of other leaders: their key, or in plain mode their name."""
    return {peer.name: peer.public_key or peer.name for peer in peers}
