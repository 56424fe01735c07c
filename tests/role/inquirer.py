"""A leader that only asks: it stands where a real one would, admits whom the allow-list has, and decides nothing."""

from __future__ import annotations

import time
from typing import Any, TypeVar

import zmq

from hbagent.core.echo import read_answer, request
from hbagent.core.messages import Account, Admission, Farewell, Hello, Pong, Relay, Relayed
from hbagent.role.control import ControlRouter
from hbagent.transport import sockets
from hbagent.transport.allow import Role, load
from hbagent.transport.connections import Connections
from hbagent.transport.zap import ZapServer
from tests.e2e.fleet import Fleet, node_of

M = TypeVar("M")
EPOCH = 5


class Inquirer:
    """Listens at the endpoints of a leader of `fleet` that is not running."""

    def __init__(self, fleet: Fleet, leader: str) -> None:
        allow = load(fleet.allow_file())
        self.hellos: dict[str, Hello] = {}
        self._heard: list[tuple[str, object, int]] = []
        self._context: sockets.Context = zmq.Context()
        self._zap = ZapServer(self._context, allow, {"agents": Role.AGENT})
        host = sockets.Host(keys=fleet.keys(leader), domain="agents", peers_expected=4)
        endpoint = fleet.setting(leader, "control")
        self._router = ControlRouter(
            sockets.control_router(self._context, host, endpoint),
            lambda sender, message: self._heard.append((sender, message, time.monotonic_ns())),
            allow.senders(Role.AGENT),
            (Hello, Farewell, Pong, Relayed, Account),
            connections=Connections(),
        )

    def admit(self, name: str, bound_s: float = 30.0) -> None:
        """Wait for an agent's hello and admit it with a key of its own."""
        node = node_of(name)
        self.hellos[node] = self.hear(Hello, name, bound_s)
        self.send(name, Admission(accepted=True, epoch=EPOCH, echo_key=self.key(name)))

    def key(self, name: str) -> bytes:
        """The key for echo requests to an agent."""
        return node_of(name).encode().ljust(32, b"k")

    def send(self, name: str, message: Any) -> None:
        self._router.send(node_of(name), message)

    def hear(self, kind: type[M], name: str, bound_s: float = 30.0) -> M:
        """The next message of this kind from an agent."""
        end = time.monotonic() + bound_s
        while True:
            for index, (sender, message, _) in enumerate(self._heard):
                if sender == node_of(name) and isinstance(message, kind):
                    del self._heard[: index + 1]
                    return message
            left = end - time.monotonic()
            assert left > 0, f"no {kind.__name__} from {name}, but {self._heard}"
            if self._router.source.poll(int(left * 1000) + 1):
                self._router.drain()

    def relayed(self, helper: str, target: str, number: int, port: int = 0) -> tuple[Relayed, tuple[int, int] | None]:
        """Have `helper` ask at the echo port of `target`: what it tells, and what its answer says."""
        nonce = number.to_bytes(12, "big")
        address = Relay(
            number=number,
            address="127.0.0.1",
            port=port or self.hellos[node_of(target)].echo_port,
            request=request(self.key(target), nonce),
        )
        self.send(helper, address)
        told = self.hear(Relayed, helper)
        assert told.number == number
        return told, read_answer(told.answer, self.key(target), nonce)

    def close(self) -> None:
        self._router.source.close(0)
        self._zap.stop()
        self._context.term()
