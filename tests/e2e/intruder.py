"""A raw client that says whatever a test wants, with whatever key it has got hold of.

It publishes through an XPUB, because that one can tell when it was let in: the door sends its subscription.
"""

from __future__ import annotations

import contextlib
import time
from types import TracebackType

import zmq

from hbagent.core.messages import Beat, WireMessage
from hbagent.core.units import seconds
from hbagent.transport.keys import KeyPair
from hbagent.transport.sockets import Context, Socket
from hbagent.wire import beat as beat_wire
from hbagent.wire import codec
from hbagent.wire.version import head

#: A type byte that no version has.
UNKNOWN_TYPE = head(0x7F) + b"\x80"


def stranger(name: str = "demo/rack1/node1") -> KeyPair:
    """A key pair that nobody has enrolled."""
    public, secret = zmq.curve_keypair()
    return KeyPair(name=name, public=public.decode(), secret=secret.decode())


class Intruder:
    """One connection to a publish port, or with `kind` DEALER to a control port. Use it in a `with`."""

    def __init__(self, endpoint: str, server_key: str = "", keys: KeyPair | None = None, kind: int = zmq.XPUB) -> None:
        self._context: Context = zmq.Context()
        self.socket: Socket = self._context.socket(kind)
        self.socket.setsockopt(zmq.RECONNECT_IVL, 100)
        if keys is not None:
            self.socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public.encode())
            self.socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret.encode())
            self.socket.setsockopt(zmq.CURVE_SERVERKEY, server_key.encode())
        self.socket.connect(endpoint)
        self.said = 0

    def __enter__(self) -> Intruder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._context.destroy(linger=200)

    def is_admitted(self, bound_s: float = 30.0) -> bool:
        """Wait for the door's subscription; False when it does not come."""
        return bool(self.socket.poll(int(bound_s * 1000))) and self.socket.recv() == b"\x01"

    def say(self, *frames: bytes) -> None:
        """Send these, each as a message of its own; a control port that has not let us in takes none."""
        for frame in frames:
            with contextlib.suppress(zmq.Again):
                self.socket.send(frame, zmq.NOBLOCK)
                self.said += 1

    def tell(self, *messages: WireMessage) -> None:
        """Send these as this version writes them."""
        self.say(*(codec.encode(message) for message in messages))


def beat(incarnation: int, sequence: int, interval_s: float = 0.2, sent_ns: int | None = None) -> bytes:
    """A beat sent now, or when it is said to have been."""
    return beat_wire.encode(
        Beat(
            incarnation=incarnation,
            sequence=sequence,
            sent_mono_ns=time.monotonic_ns() if sent_ns is None else sent_ns,
            due_in_ns=seconds(interval_s),
            interval_ns=seconds(interval_s),
        )
    )


def of_next_major(frame: bytes) -> bytes:
    """The frame with the head of a protocol that is not spoken here yet."""
    return frame[:2] + bytes([frame[2] + 1]) + frame[3:]
