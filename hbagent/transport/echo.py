"""The echo responder: a second way to ask an agent whether it lives, past every queue of ZeroMQ.

A leader that has not heard a node asks here, by UDP or by one TCP connection. An answer carries the agent's
incarnation and newest sequence under a key that the leader agreed with the agent, so a neighbour may carry request
and answer without being able to forge either. A refused TCP connection says as much: the host lives, its agent
does not.

Nothing about it helps an attacker: an answer is never longer than the request, only whoever has a key gets one,
a request can never be mistaken for an answer (two responders cannot be made to talk to each other), and work,
answers and connections are bounded. It is evidence beside the beats and may go silent under attack.

The agent's loop turns it: register `fileno()`, call `ready` when it is readable and `wake` at `deadline`.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
from collections.abc import Sequence

from hbagent.core.echo import FRAME_SIZE, answer
from hbagent.core.units import MILLISECOND, SECOND

#: As many leaders as a rack has at most, and one old key of each during a change.
KEYS_MAX = 6

#: Answers a second: three leaders, each with two neighbours, asking three times are 27.
ANSWERS_PER_SECOND = 100

#: Datagrams and connections looked at in a second, genuine or not: a flood costs a few thousandths of a core and then
#: only waits in the kernel's buffer.
REQUESTS_PER_SECOND = 1_000

#: Requests looked at in one turn of the loop (about 0.2 ms), so that a flood does not hold a beat up.
REQUESTS_PER_TURN = 64

#: While the work of this second is used up, the sockets are not looked at for this long.
PAUSE_NS = 50 * MILLISECOND

CONNECTIONS_MAX = 16
CONNECTION_TIME_NS = 2 * SECOND

#: Ports tried until one is free for UDP as well as TCP, when any port will do.
_PORT_ATTEMPTS = 16


class TokenBucket:
    """Allows `rate` a second on average and as many at once. Pure: time is passed in."""

    __slots__ = ("_at", "_cost_ns", "_credit_max_ns", "_credit_ns")

    def __init__(self, rate: int, now: int) -> None:
        self._cost_ns = SECOND // rate
        self._credit_max_ns = self._cost_ns * rate
        self._credit_ns = self._credit_max_ns
        self._at = now

    def take(self, now: int) -> bool:
        """True when one more is allowed now."""
        self._credit_ns = min(self._credit_max_ns, self._credit_ns + max(0, now - self._at))
        self._at = now
        if self._credit_ns < self._cost_ns:
            return False
        self._credit_ns -= self._cost_ns
        return True


class EchoResponder:
    """Answers on one port, UDP and TCP, without ever waiting.

    Raises OSError from the constructor when the port cannot be had. Port 0 takes any; see `port`.
    """

    def __init__(self, bind: str, port: int, now: int) -> None:
        self._keys: tuple[bytes, ...] = ()
        self._incarnation = 0
        self._sequence = 0
        self._answers = TokenBucket(ANSWERS_PER_SECOND, now)
        self._requests = TokenBucket(REQUESTS_PER_SECOND, now)
        self._resume_at: int | None = None
        #: Connections in the order of their age: descriptor -> socket, bytes so far, time to give up.
        self._connections: dict[int, tuple[socket.socket, bytes, int]] = {}
        #: Requests by outcome: answered, refused (no key fits), limited, timed-out.
        self.counts: dict[str, int] = {}
        self._tcp, self._udp = _open(bind, port)
        self._poller = select.epoll()
        self._watch(True)

    @property
    def port(self) -> int:
        """The port that both sockets have."""
        port: int = self._tcp.getsockname()[1]
        return port

    def fileno(self) -> int:
        """The one descriptor that becomes readable when there is something to do."""
        return self._poller.fileno()

    def use_keys(self, keys: Sequence[bytes]) -> None:
        """Answer whoever has one of these keys. Raises ValueError when they are too many or not 32 bytes long."""
        if len(keys) > KEYS_MAX or any(len(key) != 32 for key in keys):
            raise ValueError(f"at most {KEYS_MAX} keys of 32 bytes")
        self._keys = tuple(keys)

    def tell(self, incarnation: int, sequence: int) -> None:
        """What to answer from now on: this agent's incarnation and the sequence of its newest beat."""
        self._incarnation = incarnation
        self._sequence = sequence

    def deadline(self) -> int | None:
        """When `wake` must be called; None when there is no need."""
        times = [until for _, _, until in self._connections.values()]
        if self._resume_at is not None:
            times.append(self._resume_at)
        return min(times, default=None)

    def wake(self, now: int) -> None:
        """Give up connections whose time is over and look at the sockets again after a pause. Never waits."""
        for descriptor, (_, _, until) in list(self._connections.items()):
            if now >= until:
                self._count("timed-out")
                self._drop(descriptor)
        if self._resume_at is not None and now >= self._resume_at:
            self._resume_at = None
            self._watch(True)

    def ready(self, now: int) -> None:
        """Do what there is to do, at most `REQUESTS_PER_TURN`; what is left keeps `fileno` readable. Never waits."""
        for descriptor, _ in self._poller.poll(0, CONNECTIONS_MAX + 2):
            if descriptor == self._udp.fileno():
                self._take_datagrams(now)
            elif descriptor == self._tcp.fileno():
                self._accept(now)
            elif descriptor in self._connections:
                self._read(descriptor, now)

    def close(self) -> None:
        """Close everything; from now on a connection to the port is refused by the kernel."""
        for descriptor in list(self._connections):
            self._drop(descriptor)
        self._poller.close()
        self._tcp.close()
        self._udp.close()

    def _take_datagrams(self, now: int) -> None:
        for _ in range(REQUESTS_PER_TURN):
            try:
                # One byte more than a request, so that a longer datagram is seen to be one.
                data, sender = self._udp.recvfrom(FRAME_SIZE + 1)
            except OSError:  # nothing more, or an ICMP error of an earlier answer
                return
            found = self._answer(data, now)
            if found is not None:
                with contextlib.suppress(OSError):
                    self._udp.sendto(found, sender)
            if self._resume_at is not None:
                return

    def _accept(self, now: int) -> None:
        for _ in range(CONNECTIONS_MAX):
            if not self._requests.take(now):
                self._count("limited")
                self._pause(now)
                return
            try:
                connection, _ = self._tcp.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                    self._pause(now)  # the kernel keeps saying "readable"; asking at once would spin
                return
            if len(self._connections) == CONNECTIONS_MAX:
                # The oldest makes room, else sixteen idle connections would shut the door for two seconds.
                self._count("timed-out")
                self._drop(next(iter(self._connections)))
            connection.setblocking(False)
            self._connections[connection.fileno()] = (connection, b"", now + CONNECTION_TIME_NS)
            self._poller.register(connection, select.EPOLLIN)

    def _read(self, descriptor: int, now: int) -> None:
        connection, data, until = self._connections[descriptor]
        try:
            more = connection.recv(FRAME_SIZE - len(data))
        except BlockingIOError:
            return
        except OSError:
            more = b""
        data += more
        if more and len(data) < FRAME_SIZE:
            self._connections[descriptor] = (connection, data, until)
            return
        found = self._answer(data, now) if more else None
        if found is not None:
            # 48 bytes into the empty buffer of a new connection: taken whole or the peer is gone.
            with contextlib.suppress(OSError):
                connection.send(found)
        self._drop(descriptor)

    def _answer(self, data: bytes, now: int) -> bytes | None:
        if not self._requests.take(now):
            self._count("limited")
            self._pause(now)
            return None
        found = answer(data, self._keys, self._incarnation, self._sequence)
        if found is None:
            self._count("refused")
            return None
        if not self._answers.take(now):
            self._count("limited")
            return None
        self._count("answered")
        return found

    def _pause(self, now: int) -> None:
        if self._resume_at is None:
            self._resume_at = now + PAUSE_NS
            self._watch(False)

    def _watch(self, on: bool) -> None:
        for listening in (self._udp, self._tcp):
            if on:
                self._poller.register(listening, select.EPOLLIN)
            else:
                self._poller.unregister(listening)

    def _drop(self, descriptor: int) -> None:
        connection, _, _ = self._connections.pop(descriptor)
        self._poller.unregister(descriptor)
        connection.close()

    def _count(self, outcome: str) -> None:
        self.counts[outcome] = self.counts.get(outcome, 0) + 1


def _open(bind: str, port: int) -> tuple[socket.socket, socket.socket]:
    """TCP and UDP on one port; with port 0 on any that is free for both."""
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    for attempt in range(1, _PORT_ATTEMPTS + 1):
        tcp = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        udp = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            # So that a restarted agent has its port at once, in spite of connections in TIME_WAIT.
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind((bind, port))
            udp.bind((bind, tcp.getsockname()[1]))
            tcp.listen(CONNECTIONS_MAX)
            return tcp, udp
        except OSError:
            tcp.close()
            udp.close()
            if port or attempt == _PORT_ATTEMPTS:
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")
