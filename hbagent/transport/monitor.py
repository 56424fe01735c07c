"""What libzmq knows of connections: up, refused, lost; told to a callback as it happens.

A socket monitor that nobody reads stops the socket's I/O thread, and with it every other socket: a leader with an
unread one and 2,000 connections fell silent within a second (measured). So one thread does nothing but read them
all, and only the kinds of event that are needed are asked for: failed accepts alone can be 35,000 a second.

Make it before the sockets connect or bind, or the first events are missed. `stop` it before they are closed.
"""

from __future__ import annotations

import enum
import struct
import threading
from collections.abc import Callable, Collection, Mapping

import msgspec
import zmq

from hbagent.transport.sockets import Socket

#: zmq_socket_monitor: the first frame of an event is its number and its value, in the machine's byte order.
_EVENT = struct.Struct("=HI")


class LinkEvent(enum.Enum):
    """What happened to a connection.

    Never HANDSHAKE_FAILED_PROTOCOL: where somebody monitors that, libzmq 4.3.5 neither closes a connection on which a
    frame was spoiled nor reads from it any more (measured: 120 pieces with wrong bits, no connection closed).
    """

    #: Authenticated, both ways.
    UP = zmq.EVENT_HANDSHAKE_SUCCEEDED
    #: Refused by the other side's doorkeeper, or by our own. A caller must call again by itself.
    REFUSED = zmq.EVENT_HANDSHAKE_FAILED_AUTH
    #: It was up and is gone, or was refused; a caller's libzmq reconnects, except after a refusal.
    LOST = zmq.EVENT_DISCONNECTED


_EVENTS = {event.value: event for event in LinkEvent}


class Link(msgspec.Struct, frozen=True, gc=False):
    """One event of one connection."""

    #: The label that the socket was given.
    socket: str
    event: LinkEvent
    #: As it was given to `connect`; of a bound socket, its own.
    endpoint: str
    #: LOST: the descriptor that the connection had. REFUSED: the ZAP status.
    value: int


class Monitor:
    """Reads the monitors of some labelled sockets until `stop`.

    Made and stopped by the thread that owns the sockets. `callback` runs in the monitor's thread: it must be quick
    and must not touch a ZeroMQ socket of another thread. What it raises is counted in `callback_errors` and dropped,
    since reading may never stop.
    """

    def __init__(
        self,
        sockets: Mapping[str, Socket],
        callback: Callable[[Link], None],
        events: Collection[LinkEvent] = tuple(LinkEvent),
    ) -> None:
        self._sockets = tuple(sockets.values())
        self._callback = callback
        self.callback_errors = 0
        mask = sum(event.value for event in events) | zmq.EVENT_MONITOR_STOPPED
        readers = {socket.get_monitor_socket(mask): label for label, socket in sockets.items()}
        self._thread = threading.Thread(target=self._run, args=(readers,), name="monitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End all monitors, then the thread. Harmless when repeated."""
        for socket in self._sockets:
            if not socket.closed:
                socket.disable_monitor()
        self._sockets = ()
        self._thread.join()

    def _run(self, readers: dict[Socket, str]) -> None:
        poller = zmq.Poller()
        for reader in readers:
            poller.register(reader, zmq.POLLIN)
        try:
            while readers:
                for reader, _ in poller.poll():
                    if not self._read(reader, readers[reader]):
                        poller.unregister(reader)
                        del readers[reader]
                        reader.close(0)
        except zmq.ContextTerminated:
            return
        finally:
            for reader in readers:
                reader.close(0)

    def _read(self, reader: Socket, label: str) -> bool:
        """Pass one event on; False when it was the last of its socket."""
        head, address = reader.recv_multipart()
        number, value = _EVENT.unpack(head)
        event = _EVENTS.get(number)
        if event is not None:
            try:
                self._callback(Link(label, event, address.decode("ascii", "replace"), value))
            except Exception:
                self.callback_errors += 1
        return bool(number != zmq.EVENT_MONITOR_STOPPED)
