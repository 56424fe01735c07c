"""A console's connection to the root of another host, and why it does not come about.

libzmq says nothing to whoever sends and receives, and tries for ever; its monitor knows. So each wait here looks at
both, and what the monitor tells becomes one sentence for people: who has the wrong key, and what to do about it.
"""

from __future__ import annotations

import random
import socket as bsd
import struct
from collections.abc import Callable
from pathlib import Path

import zmq

from hbagent.transport import sockets
from hbagent.transport.keys import KeyFileError, KeyPair, fingerprint, load_public, load_secret
from hbagent.transport.sockets import Context

#: A console comes back so soon after the root was restarted.
RECONNECT_MS = (200, 500)
#: How long a look at why nobody listens may take.
LOOK_S = 1.0
_EVENT = struct.Struct("=HI")


class KeyProblem(Exception):
    """A key that cannot be used; the text says which and why."""


def server_key(text: str) -> str:
    """The public key that is written out, or stands in a ".pub" file. Raises KeyProblem."""
    try:
        return load_public(Path(text)).key if text.endswith(".pub") else text
    except KeyFileError as error:
        raise KeyProblem(f"the root's public key: {error}") from error


class Line:
    """A DEALER to an operators' port. Raises KeyProblem, and EndpointError for an address that cannot be called."""

    def __init__(self, context: Context, endpoint: str, server_key: str, key: Path) -> None:
        try:
            self._keys: KeyPair = load_secret(key)
        except KeyFileError as error:
            raise KeyProblem(f"the operator's key: {error}") from error
        self._target = sockets.Target(endpoint, server_key)
        self._caller = sockets.Caller(name=self._keys.name, keys=self._keys, reconnect_ms=random.randint(*RECONNECT_MS))
        self.socket = sockets.operator_dealer(context, self._caller)
        self._monitor = self.socket.get_monitor_socket()
        self._poller = zmq.Poller()
        self._poller.register(self._monitor, zmq.POLLIN)
        self._asked = False
        self._up = False
        #: A connection was made, and nothing is known yet of the handshake on it.
        self._greeting = False
        self._refused = False
        try:
            sockets.connect(self.socket, self._caller, self._target)
        except sockets.EndpointError:
            self.close()
            raise

    def close(self) -> None:
        self.socket.disable_monitor()
        self._monitor.close(0)
        self.socket.close()

    def begin(self) -> None:
        """Before something is asked: what was told of trouble with an earlier question is no news, and a refusal, which
        libzmq takes for final, may be over."""
        first, self._asked = not self._asked, True
        while not first and self._monitor.poll(0):
            self._told()
        if self._refused:
            self._refused = False
            sockets.reconnect(self.socket, self._caller, self._target)

    def wait(self, flag: int, timeout_ms: int) -> tuple[bool, str]:
        """Wait until the socket can be written (POLLOUT) or read (POLLIN), or something has happened to the
        connection; whether it can, and what makes further waiting useless, "" for nothing."""
        self._poller.register(self.socket, flag)
        ready = dict(self._poller.poll(timeout_ms))
        self._poller.unregister(self.socket)
        trouble = ""
        while not trouble and self._monitor.poll(0):
            trouble = self._told()
        return bool(ready.get(self.socket)), trouble

    def _told(self) -> str:
        """Take one event in."""
        number, _ = _EVENT.unpack(self._monitor.recv_multipart()[0])
        handler = _HANDLERS.get(number)
        return handler(self) if handler is not None else ""

    # ---- what the monitor tells --------------------------------------------------------------------------

    def _was_connected(self) -> str:
        self._greeting = True
        return ""

    def _came_up(self) -> str:
        self._up, self._greeting = True, False
        return ""

    def _was_refused(self) -> str:
        self._refused = True
        self._greeting = False
        mine = f"{self._keys.name}, {self._keys.public}, fingerprint {fingerprint(self._keys.public)}"
        return f"it refuses this key ({mine}); whoever runs it lists it in an [[operator]] table of its root.toml"

    def _was_not_understood(self) -> str:
        self._greeting = False
        return "it does not have the key that it should have: compare --server-key with `hbagent keys show` over there"

    def _went_down(self) -> str:
        greeting, self._greeting, self._up = self._greeting, False, False
        if not greeting:
            return ""  # a root that is restarted, and libzmq calls again; or the end of what has been told already
        return "what listens there is no operators' port: compare the address with [operators] in its root.toml"

    def _cannot_be_reached(self) -> str:
        return "" if self._up else unreachable(self._target.endpoint)


_HANDLERS: dict[int, Callable[[Line], str]] = {
    zmq.EVENT_CONNECTED: Line._was_connected,
    zmq.EVENT_HANDSHAKE_SUCCEEDED: Line._came_up,
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: Line._was_refused,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: Line._was_not_understood,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: Line._was_not_understood,
    zmq.EVENT_DISCONNECTED: Line._went_down,
    zmq.EVENT_CLOSED: Line._cannot_be_reached,
    zmq.EVENT_CONNECT_RETRIED: Line._cannot_be_reached,
}


def unreachable(endpoint: str) -> str:
    """Why no TCP connection to an endpoint can be made; "" when one was, and was closed again."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    try:
        with bsd.create_connection((host.strip("[]"), int(port)), LOOK_S):
            return ""
    except TimeoutError:
        return "no answer at all (a firewall drops it, or the host is down)"
    except OSError as error:
        return (error.strerror or str(error)).lower()
