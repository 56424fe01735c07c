"""Which TCP connection each peer of a bound socket has, and what the kernel knows about it.

libzmq closes a descriptor in its own thread, and the next connection may have the same number at once. So a number
is believed only together with the cookie that the kernel gives to each socket once and never again. Whatever is read
is read first and the cookie after it: when that still fits, the number meant this connection all the while.

Nothing is duplicated to read it. A duplicate would keep a connection alive that libzmq has closed, and could not be
had at the very moment when it matters, while somebody uses up all descriptors.

All of it belongs to the loop's thread but `knows`.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
from collections.abc import Callable

import msgspec
import zmq

from hbagent.core.states import Outcome

#: <asm-generic/socket.h>: 64 bits that no other socket of this boot has.
_SO_COOKIE = 57
_COOKIE = struct.Struct("=Q")
#: `struct tcp_info` of <linux/tcp.h>: the state is its first byte, and the acknowledged bytes (RFC 4898,
#: tcpEStatsAppHCThruOctetsAcked; since Linux 4.1) stand at 120.
_ACKED = struct.Struct("=Q")
_ACKED_AT = 120
_INFO_SIZE = _ACKED_AT + _ACKED.size
_ESTABLISHED = 1
_QUEUED = struct.Struct("=i")
#: While acknowledgements come in between, what is sent to a peer is counted anew so often.
_LOOKS_MAX = 5


#: Connections that are remembered to have been cut. Whoever is cut is refused by the doorkeeper when he calls again, so
#: there are no more of them than keys revoked at once, with three connections each.
CUTS_MAX = 1_024


class _Seen(msgspec.Struct, gc=False):
    """A socket at one moment."""

    cookie: int
    established: bool
    #: Bytes that the peer's kernel has acknowledged, and those that wait for it.
    acked: int
    queued: int


class _Connection(msgspec.Struct):
    """The newest connection of one peer."""

    fd: int
    cookie: int
    gone: bool = False


class Watch:
    """Whether a peer's kernel acknowledges what is sent from now on."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        seen = _seen(connection)
        self._covered = 0 if seen is None else seen.acked + seen.queued

    def look(self) -> Outcome | None:
        """ACKED, CLOSED when the connection is gone, None while neither is known."""
        seen = _seen(self._connection)
        if seen is None:
            return Outcome.CLOSED
        # An acknowledgement beats the end of the connection: it came first.
        if seen.acked > self._covered:
            return Outcome.ACKED
        return None if seen.established else Outcome.CLOSED


class Connections:
    """The connections of named peers: as many as there are peers, since only the newest of each is kept."""

    def __init__(self) -> None:
        self._of: dict[str, _Connection] = {}
        self._names: dict[int, str] = {}
        #: Number and user id of connections that were cut.
        self._cut: dict[tuple[int, str], None] = {}

    def note(self, name: str, fd: int) -> str | None:
        """`name` was heard on a connection it had not used before.

        Returns another peer whose connection had this number and is therefore gone.
        """
        seen = _look(fd)
        before = self._names.get(fd)
        if seen is None or (before is not None and before != name and self._of[before].cookie == seen.cookie):
            # What was heard had waited for long: its connection is closed, and the number may be another's by now.
            return None
        self._forget_number(name)
        self._names[fd] = name
        self._of[name] = _Connection(fd, seen.cookie)
        if before is None or before == name:
            return None
        self._of[before].gone = True
        return before

    def lost(self, name: str) -> None:
        """There is no way to `name` any more: libzmq says so."""
        self._forget_number(name)

    def knows(self, fd: int) -> bool:
        """True when some peer's newest connection has this number. From any thread."""
        return fd in self._names

    def lives(self, name: str) -> bool:
        """True while the newest connection of `name` is there."""
        connection = self._of.get(name)
        seen = _seen(connection) if connection is not None else None
        return seen is not None and seen.established

    def gone(self, fd: int) -> str | None:
        """libzmq has closed `fd`, or is about to: the peer whose newest connection ended with it; None when there is
        none, or when the number means a connection that lives."""
        name = self._names.get(fd)
        if name is None:
            return None
        seen = _seen(self._of[name])
        if seen is not None and seen.established:
            return None
        self._forget_number(name)
        return name

    def watch(self, name: str) -> Watch | None:
        """Look whether `name` acknowledges what is sent next; None when it never had a connection here."""
        connection = self._of.get(name)
        return Watch(connection) if connection is not None else None

    def end(self, name: str) -> bool:
        """End the connection of a peer and forget the peer. False when it has none."""
        connection = self._of.pop(name, None)
        if connection is None or connection.gone:
            return False
        self._names.pop(connection.fd, None)
        return _end(connection.fd, lambda pinned: _cookie(pinned) == connection.cookie)

    def cut_sender(self, frame: zmq.Frame) -> bool:
        """`cut` the connection that a frame came by, once: what its sender said before comes after, and the number
        may be another's by then."""
        try:
            fd, address, user_id = frame.get(zmq.SRCFD), str(frame.get("Peer-Address")), str(frame.get("User-Id"))
        except zmq.ZMQError:
            return False
        if (fd, user_id) in self._cut:
            return False
        if len(self._cut) >= CUTS_MAX:
            del self._cut[next(iter(self._cut))]
        self._cut[fd, user_id] = None
        return self.cut(fd, address)

    def forget_cuts(self) -> None:
        """Another list of who may speak: who was cut may have been admitted again, and be cut again."""
        self._cut.clear()

    def cut(self, fd: int, address: str) -> bool:
        """End the connection that a frame came by; libzmq then closes it. `address` is the frame's Peer-Address.

        False when there is nothing to cut: the number means no TCP connection from there any more, or that of a
        peer who is known.
        """

        def is_it(pinned: socket.socket) -> bool:
            name = self._names.get(fd)
            if name is not None and self._of[name].cookie == _cookie(pinned):
                return False
            return pinned.type == socket.SOCK_STREAM and pinned.getpeername()[0] == address

        return _end(fd, is_it)

    def _forget_number(self, name: str) -> None:
        connection = self._of.get(name)
        if connection is not None and not connection.gone:
            connection.gone = True
            if self._names.get(connection.fd) == name:
                del self._names[connection.fd]


class Visits:
    """The connections of peers that may have several at once, as an operator has consoles; at most `most` of each."""

    def __init__(self, most: int) -> None:
        self._most = most
        #: By user id, and then by the routing id that libzmq gave to the connection; the oldest first.
        self._of: dict[str, dict[bytes, _Connection]] = {}

    def note(self, user_id: str, route: bytes, fd: int) -> int:
        """Something was heard on a connection. Returns how many older ones were ended to make room for it."""
        routes = self._of.setdefault(user_id, {})
        before = routes.get(route)
        if before is not None and before.fd == fd and _seen(before) is not None:
            return 0
        routes.pop(route, None)
        seen = _look(fd)
        if seen is None:
            return 0
        for known in [known for known, connection in routes.items() if _seen(connection) is None]:
            del routes[known]
        routes[route] = _Connection(fd, seen.cookie)
        return sum(self.end(user_id, oldest) for oldest in [*routes][: -self._most])

    def end(self, user_id: str, route: bytes) -> bool:
        """End one connection. False when there is none."""
        connection = self._of.get(user_id, {}).pop(route, None)
        return connection is not None and _end(connection.fd, lambda pinned: _cookie(pinned) == connection.cookie)

    def end_all(self, user_id: str) -> int:
        """End every connection of a peer. Returns how many there were."""
        ended = sum(self.end(user_id, route) for route in [*self._of.get(user_id, ())])
        self._of.pop(user_id, None)
        return ended


def _end(fd: int, is_it: Callable[[socket.socket], bool]) -> bool:
    """Shut a connection down, so that libzmq finds it at its end and closes it. False when it is not the one."""
    try:
        # Held by a duplicate, so that what is looked at is what is shut down.
        with socket.socket(fileno=os.dup(fd)) as pinned:
            if not is_it(pinned):
                return False
            pinned.shutdown(socket.SHUT_RDWR)
    except OSError:
        return False
    return True


def _seen(connection: _Connection) -> _Seen | None:
    """The connection now; None when it is closed."""
    if connection.gone:
        return None
    seen = _look(connection.fd)
    return seen if seen is not None and seen.cookie == connection.cookie else None


def _look(fd: int) -> _Seen | None:
    """The TCP connection that a number means now; None when it means none."""
    try:
        borrowed = socket.socket(fileno=fd)
    except OSError:
        return None
    try:
        info = borrowed.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
        for _ in range(_LOOKS_MAX):
            queued = fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(_QUEUED.size))
            before, info = info, borrowed.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
            # What is acknowledged between the two would be in neither, or in both.
            if info[_ACKED_AT:] == before[_ACKED_AT:]:
                break
        # Last, see above.
        cookie = _cookie(borrowed)
    except OSError:
        return None
    finally:
        # It is libzmq's to close.
        borrowed.detach()
    if len(info) < _INFO_SIZE:
        return None
    (acked,) = _ACKED.unpack_from(info, _ACKED_AT)
    return _Seen(cookie, info[0] == _ESTABLISHED, acked, *_QUEUED.unpack(queued))


def _cookie(of: socket.socket) -> int:
    (cookie,) = _COOKIE.unpack(of.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, _COOKIE.size))
    return int(cookie)
