"""The way between two hosts: a TCP connection as the cores meet it.

A route leads from the host that connects (agent, leader) to the one that listens (leader, root). Two things travel on
it. *Lossy* frames are those of a PUB socket: each may be lost, late, doubled or overtaken. The *stream* is that of a
DEALER: in order and whole, as long as the connection lives.

What a cut does is TCP's doing: until the connection is given up (3 s, TCP_MAXRT), whatever was sent waits in the
sender's kernel and arrives all at once after the cut, old as it is, and also when the process that sent it has died
meanwhile. After that it is gone, and the connecting side tries again. A cut in one direction is one in both as soon
as the connection has been given up, for its acknowledgements do not pass either.

The two ends of a connection do not end together. A process that dies is told to the listening side by its kernel in
a millisecond, if the way is clear; else the listener's kernel keeps half a connection until it learns better.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from hbagent.core.messages import Beat, Disconnected, Linked
from hbagent.core.units import MILLISECOND, SECOND
from hbagent.wire import beat as beat_wire

from .host import FAR, Host

#: A connection with unacknowledged data is given up after this.
GIVE_UP_NS = 3 * SECOND
#: Delay of a frame: this, and a share with a long tail. Median 0.3 ms, one in a hundred over 10 ms, none over 20 ms:
#: a LAN whose hosts have other work.
DELAY_NS = 100 * MILLISECOND // 1000
TAIL_NS = 200 * MILLISECOND // 1000
TAIL_CUT = 1.01
#: One retransmission: Linux waits 200 ms at least.
RETRANSMIT_NS = 200 * MILLISECOND
#: A peer that lost its connection tries again after a random time.
RECONNECT_NS = (50 * MILLISECOND, 1000 * MILLISECOND)
#: Recovery after a cut by which the connection was lost.
RECOVER_NS = (300 * MILLISECOND, 1900 * MILLISECOND)
#: The end of a process is known to the other side's kernel after this.
HANG_UP_NS = MILLISECOND
#: The listening side gives a connection up later than the connecting one: it seldom has anything unacknowledged.
LISTENER_GIVES_UP_NS = 2 * SECOND
#: A doubled frame comes again within this.
DOUBLE_NS = 4 * SECOND

Push = Callable[[int, Callable[..., None], Any, Any, Any], None]
#: A frame's way in at its destination: (at, route, data, sent).
Intake = Callable[[int, Any, bytes, int], None]


class Route:
    """One connection from `client` to `server`, over all its lives."""

    __slots__ = (
        "blocked_down",
        "blocked_up",
        "clear_at",
        "clear_down",
        "clear_up",
        "client",
        "connection",
        "cut_at",
        "cut_spans",
        "cuts",
        "down_at",
        "excused_at",
        "first_heard",
        "heard",
        "held",
        "known",
        "newest",
        "newest_sent",
        "open",
        "prompt_life",
        "proof_sent",
        "rows",
        "server",
        "server_open",
        "since_sleep",
        "slept_ns",
        "stuck",
        "told",
        "up_at",
        "valid_from",
        "verdicts",
    )

    def __init__(self, client: Host, server: Host) -> None:
        self.client = client
        self.server = server
        self.open = False
        #: Counts the connections.
        self.connection = 0
        #: The listener's kernel has the newest connection; and the one on which its process last read a message.
        self.server_open = False
        self.known = 0
        #: What was sent before this was lost with an earlier connection; FAR while there is none.
        self.valid_from = FAR
        self.blocked_up = 0
        self.blocked_down = 0
        #: A cut holds the connection up: nothing passes a blocked direction, and what passed one waits in `held`.
        self.stuck = False
        self.cuts = 0
        self.cut_at = 0
        #: Frames in the sender's kernel: (intake, upwards?, data, sent).
        self.held: list[tuple[Intake, bool, bytes, int]] = []
        #: Open, and nothing is in the way.
        self.clear_up = False
        self.clear_down = False
        #: The stream's newest arrival each way.
        self.up_at = 0
        self.down_at = 0
        # The truth and the verdicts, for the checker.
        #: The newest beat that arrived in the server's present life, and when it was sent.
        self.newest = b""
        self.newest_sent = -1
        #: When the newest answer to a question that arrived was sent.
        self.proof_sent = -1
        #: Since when nothing has been in the way.
        self.clear_at = FAR
        #: When nothing or only one direction passed; the end is FAR while that lasts.
        self.cut_spans: list[list[int]] = []
        #: The server's present life has heard the client; and when each life first did.
        self.heard = False
        self.first_heard: list[int] = []
        self.prompt_life = -1
        self.excused_at = -1
        #: By how much the client's clock has lately lost against the server's, and how many beats have come since.
        self.slept_ns = 0
        self.since_sleep = 0
        self.told = ""
        self.verdicts: list[tuple[int, str]] = []
        self.rows: tuple[int, int] | None = None

    def refresh(self) -> None:
        """Work out what is clear. Stuck and not cut any more means that the retransmission has not come yet."""
        self.clear_up = self.open and not (self.stuck and (self.blocked_up or not self.blocked_down))
        self.clear_down = self.open and not (self.stuck and (self.blocked_down or not self.blocked_up))

    def newest_due_ns(self) -> int:
        """How long after the newest beat that arrived its sender meant to send the next."""
        found = beat_wire.decode(self.newest)
        return found.due_in_ns if isinstance(found, Beat) else 0

    @property
    def blocked(self) -> bool:
        """True while a cut is on."""
        return bool(self.blocked_up or self.blocked_down)


class Network:
    """All routes, and the faults that hold for all of them."""

    def __init__(self, push: Push, tell: Callable[[int, Host, object], None], rng: random.Random, loss: float) -> None:
        self._push = push
        self._tell = tell
        self._random = rng.random
        self._rng = rng
        #: Share of lossy frames that never arrive; of frames on a stream, the share that is sent again.
        self.loss = loss
        #: Share of lossy frames that come twice.
        self.doubled = 0.0
        #: Share of lossy frames that are late by up to `late_ns`.
        self.late = 0.0
        self.late_ns = 0
        self.sent = 0
        self.lost = 0

    # ---- frames ------------------------------------------------------------------------------------------

    def publish(self, at: int, route: Route, intake: Intake, data: bytes) -> None:
        """A lossy frame from the client to the server."""
        self.sent += 1
        if not route.clear_up:
            if route.open and route.stuck:
                route.held.append((intake, True, data, at))
            else:
                self.lost += 1
            return
        if self.loss and self._random() < self.loss:
            self.lost += 1
            return
        share = self._random()
        arrives = at + DELAY_NS + int(TAIL_NS * share / (TAIL_CUT - share))
        if self.late and self._random() < self.late:
            arrives += self._rng.randrange(self.late_ns)
        self._push(arrives, intake, route, data, at)
        if self.doubled and self._random() < self.doubled:
            self._push(at + self._rng.randrange(DOUBLE_NS), intake, route, data, at)

    def up(self, at: int, route: Route, intake: Intake, data: bytes) -> None:
        """A frame of the stream from the client to the server."""
        if route.clear_up:
            route.up_at = max(route.up_at + 1, at + self.delay())
            self._push(route.up_at, intake, route, data, at)
        elif route.open and route.stuck:
            route.held.append((intake, True, data, at))

    def down(self, at: int, route: Route, intake: Intake, data: bytes) -> None:
        """A frame of the stream from the server to the client."""
        if route.clear_down:
            route.down_at = max(route.down_at + 1, at + self.delay())
            self._push(route.down_at, intake, route, data, at)
        elif route.open and route.stuck:
            route.held.append((intake, False, data, at))

    def passes(self, sender: Host, receiver: Host) -> bool:
        """True when a datagram would reach the other host now; neighbours have a way of their own."""
        if sender.gone or receiver.gone:
            return False
        route = sender.route_to.get(receiver.name)
        if route is None:
            return True
        return not (route.blocked_up if route.client is sender else route.blocked_down)

    def datagram(self) -> int:
        """Delay of one datagram; 0 for one that is lost."""
        if self.loss and self._random() < self.loss:
            return 0
        share = self._random()
        return DELAY_NS + int(TAIL_NS * share / (TAIL_CUT - share))

    def delay(self) -> int:
        share = self._random()
        delay = DELAY_NS + int(TAIL_NS * share / (TAIL_CUT - share))
        if self.loss and self._random() < self.loss:
            delay += RETRANSMIT_NS
        return delay

    # ---- connections -------------------------------------------------------------------------------------

    def connect_soon(self, at: int, route: Route, within: tuple[int, int] = RECONNECT_NS) -> None:
        """The client tries to connect after a random time."""
        self._push(at + self._rng.randrange(*within), self._connect, route, None, None)

    def _connect(self, at: int, route: Route, *_: Any) -> None:
        if route.open or route.blocked or route.client.core is None or route.server.core is None:
            return
        if route.client.paused:
            # Nobody connects who is held still.
            self.connect_soon(at, route)
            return
        if route.stuck:
            # The old connection's data is still on its way; a new one has nothing to do with it.
            route.stuck = False
            self._release(at, route)
        route.open = True
        route.clear_at = at
        route.connection += 1
        route.server_open = True
        route.known = 0
        if route.valid_from == FAR:
            route.valid_from = at
        route.refresh()
        self._tell(at, route.client, Linked(route.server.name, True))

    def server_gone(self, at: int, host: Host) -> None:
        """The listening process died: its kernel says so at once to whoever it reaches."""
        for route in (*host.routes_in, *host.peers_in):
            was = route.open
            self._close(route)
            route.server_open = False
            route.known = 0
            if was and not route.blocked:
                self._push(at + MILLISECOND, self._unlink, route, route.client.life, None)

    def server_came(self, at: int, host: Host) -> None:
        """A listening process started."""
        for route in (*host.routes_in, *host.peers_in):
            self.connect_soon(at, route)

    def client_gone(self, at: int, host: Host) -> None:
        """The connecting process died: its kernel says so, and what that holds is still delivered.

        When the whole machine is away, its kernel has nothing any more and says nothing.
        """
        for route in (*host.routes_out, *host.peers_out):
            route.open = False
            if host.gone:
                route.held.clear()
            elif not route.stuck:
                self._push(at + HANG_UP_NS, self._hang_up, route, route.connection, None)
            route.refresh()

    def _hang_up(self, at: int, route: Route, connection: int, *_: Any) -> None:
        """The listener's kernel learns that a connection is gone; its process is told whose it was, if it knows."""
        if route.connection != connection or not route.server_open:
            return
        route.server_open = False
        if route.server.core is not None and route.known == connection:
            self._tell(at, route.server, Disconnected(route.client.name))

    def _unlink(self, at: int, route: Route, life: int, *_: Any) -> None:
        if not route.open and route.client.life == life and route.client.core is not None:
            self._tell(at, route.client, Linked(route.server.name, False))

    def _close(self, route: Route) -> None:
        route.open = False
        route.valid_from = FAR
        route.held.clear()
        route.stuck = False
        route.refresh()

    # ---- cuts --------------------------------------------------------------------------------------------

    def cut(self, at: int, route: Route, up: bool, down: bool) -> None:
        """Nothing passes in these directions from now on; cuts add up."""
        if not route.blocked:
            route.cut_spans.append([at, FAR])
        route.blocked_up += up
        route.blocked_down += down
        if not route.stuck:
            route.stuck = True
            route.cut_at = at
            route.cuts += 1
            self._push(at + GIVE_UP_NS, self._give_up, route, route.cuts, None)
        route.refresh()

    def heal(self, at: int, route: Route, up: bool, down: bool) -> None:
        """Take a cut away. What waits is retransmitted, after a time that grew with the cut."""
        route.blocked_up -= up
        route.blocked_down -= down
        if route.blocked:
            return
        route.cut_spans[-1][1] = at
        if route.stuck:
            wait = self._rng.randrange(max(1, at - route.cut_at))
            self._push(at + wait, self._flush, route, route.cuts, None)
        route.refresh()
        if not route.open:
            self.connect_soon(at, route, RECOVER_NS)

    def _flush(self, at: int, route: Route, cut: int, *_: Any) -> None:
        if not route.stuck or route.cuts != cut or route.blocked:
            return
        route.stuck = False
        route.clear_at = at
        self._release(at, route)
        route.refresh()
        if not route.open and route.server_open:
            # After its last words comes the end of a process that died in the cut, or of a machine that came back.
            self._push(max(route.up_at, at) + HANG_UP_NS, self._hang_up, route, route.connection, None)

    def _release(self, at: int, route: Route) -> None:
        """Everything that was held arrives, in order."""
        held, route.held = route.held, []
        for intake, upwards, data, sent in held:
            if upwards:
                route.up_at = max(route.up_at + 1, at + DELAY_NS)
                self._push(route.up_at, intake, route, data, sent)
            else:
                route.down_at = max(route.down_at + 1, at + DELAY_NS)
                self._push(route.down_at, intake, route, data, sent)

    def _give_up(self, at: int, route: Route, cut: int, *_: Any) -> None:
        if not route.stuck or route.cuts != cut:
            return
        was = route.open
        self._close(route)
        if was:
            self._push(at, self._unlink, route, route.client.life, None)
        if route.server_open:
            later = at + self._rng.randrange(LISTENER_GIVES_UP_NS)
            self._push(later, self._hang_up, route, route.connection, None)
        if not route.blocked:
            self.connect_soon(at, route, RECOVER_NS)
