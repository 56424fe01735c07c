"""Real sockets on loopback: doors that admit by an allow-list, and callers that knock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import zmq

from hbagent.transport.allow import AllowList, Role
from hbagent.transport.keys import KeyPair
from hbagent.transport.monitor import Monitor
from hbagent.transport.sockets import Caller, Context, Host, Socket, Target, control_router, intake_subscriber
from hbagent.transport.zap import ZapServer
from tests.loopback import OWN

ANY_PORT = f"tcp://{OWN}:*"
Domains = Mapping[str, Role | Collection[Role]]


def new_keys(name: str) -> KeyPair:
    public, secret = zmq.curve_keypair()
    return KeyPair(name=name, public=public.decode(), secret=secret.decode())


def until(condition: Callable[[], object], bound_s: float = 30.0) -> bool:
    """Wait for a condition; False when it does not come true within the bound."""
    end = time.monotonic() + bound_s
    pause = threading.Event()
    while not condition():
        if time.monotonic() > end:
            return False
        pause.wait(0.005)
    return True


class CallersContext(zmq.Context[Socket]):
    """A context that keeps its sockets, so that none is collected while a test still means it to be open."""

    made: list[Socket]

    def socket(self, *args: Any, **options: Any) -> Socket:
        self.__dict__.setdefault("made", []).append(super().socket(*args, **options))
        return self.made[-1]


class Door:
    """What a leader opens: a doorkeeper, an intake and a control socket, in a context of its own."""

    def __init__(self, allow: AllowList, *, keys: KeyPair | None, domains: Domains, endpoint: str) -> None:
        self.context: Context = zmq.Context()
        self.keys = keys
        self.notes: list[dict[str, object]] = []
        self.zap = ZapServer(
            self.context, allow, domains, plain=keys is None, note=lambda what, fields: self.notes.append(fields)
        )
        host = Host(keys=keys, domain="agents", peers_expected=4)
        self.intake = intake_subscriber(self.context, host, endpoint)
        self.control = control_router(self.context, host, ANY_PORT)
        self.received: list[tuple[str, bytes]] = []

    @property
    def publish(self) -> Target:
        return self._target(self.intake)

    @property
    def control_target(self) -> Target:
        return self._target(self.control)

    def _target(self, socket: Socket) -> Target:
        endpoint = socket.getsockopt(zmq.LAST_ENDPOINT)
        assert isinstance(endpoint, bytes)
        return Target(endpoint.rstrip(b"\0").decode(), self.keys.public if self.keys else "")

    def drain(self) -> list[tuple[str, bytes]]:
        """Take in what has arrived: user id and body."""
        while self.intake.poll(0):
            frame = self.intake.recv(copy=False)
            self.received.append((str(frame.get("User-Id")), frame.bytes))
        return self.received

    def close(self) -> None:
        self.intake.close()
        self.control.close()
        self.zap.stop()
        self.context.term()


OpenDoor = Callable[..., Door]
Watch = Callable[..., Monitor]


def caller(keys: KeyPair | None, name: str = "") -> Caller:
    """A caller that reconnects at once, so that tests are quick."""
    return Caller(name=keys.name if keys else name, keys=keys, reconnect_ms=20)


def publish_until(socket: Socket, condition: Callable[[], object], bound_s: float = 30.0) -> bool:
    """Send a beat each few milliseconds until the condition holds."""

    def send_and_look() -> object:
        socket.send(b"beat")
        return condition()

    return until(send_and_look, bound_s)


def enrolled(*keys: KeyPair, role: Role = Role.AGENT) -> AllowList:
    allow = AllowList()
    for pair in keys:
        allow = allow.allow(role, pair.name, pair.public)
    return allow
