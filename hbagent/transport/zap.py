"""The doorkeeper: libzmq asks it about every handshake, and it answers from the allow-list.

One per context, in a thread of its own, because libzmq finds it by a fixed name inside the context and because a
doorkeeper that is slow stops every handshake in the process. It therefore looks two things up and does nothing
else: no file, no log, no lock. A reload swaps one reference.

Make it *before* binding a socket. While it is absent nobody gets in: each bound socket enforces its domain.

A refusal is 400, which ends the caller's attempts and tells its monitor why at once; the caller comes back with a
back-off (`transport.backoff`). 300 would make libzmq retry by itself, but only after the whole handshake interval
and holding a descriptor of ours meanwhile.

Protocol: ZeroMQ RFC 27 (ZAP).
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Collection, Mapping

import zmq

from hbagent.core.units import MINUTE
from hbagent.transport.allow import AllowList, Peer, Role
from hbagent.transport.keys import key_text

#: The name of libzmq's own choosing.
ZAP_ENDPOINT = "inproc://zeromq.zap.01"

#: Refusals told to `note`; the rest are only counted. A thousand unknown keys in three seconds have been measured,
#: and a log that records each is the attack's second half.
NOTES_PER_MINUTE = 10

#: ZAP needs version, request id, domain, address, identity, mechanism; then the mechanism's own frames.
_FRAMES_MIN = 6
_STOP = b""
#: Tells one doorkeeper from another: libzmq frees the name of a closed socket later, in a thread of its own.
_NUMBERS = itertools.count()


class ZapServer:
    """Admits the peers of an allow-list, each role only on its own domains. Thread-safe.

    `domains` says which role, or roles, a domain admits. With `plain`, a peer may instead say its name without proof;
    only for sockets on loopback or ipc (`transport.sockets` sees to that). `note(what, fields)` is told of some
    refusals, from this object's thread: it must not block.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        allow: AllowList,
        domains: Mapping[str, Role | Collection[Role]],
        *,
        plain: bool = False,
        note: Callable[[str, dict[str, object]], None] | None = None,
    ) -> None:
        self._allow = allow
        self._domains = {
            domain.encode(): frozenset([roles] if isinstance(roles, Role) else roles)
            for domain, roles in domains.items()
        }
        self._plain = plain
        self._note = note
        self._noted: list[int] = []
        self._counts: dict[str, int] = {}
        self._requests = context.socket(zmq.REP)
        self._requests.linger = 0
        try:
            self._requests.bind(ZAP_ENDPOINT)
        except zmq.ZMQError:
            self._requests.close()
            raise
        stop_endpoint = f"inproc://hbagent-zap-stop-{next(_NUMBERS)}"
        self._stop_reader = context.socket(zmq.PAIR)
        self._stop_reader.linger = 0
        self._stop_reader.bind(stop_endpoint)
        self._stop_writer = context.socket(zmq.PAIR)
        self._stop_writer.linger = 0
        self._stop_writer.connect(stop_endpoint)
        self._thread = threading.Thread(target=self._run, name="zap", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """False when the doorkeeper has ended: nobody new gets in until there is another."""
        return self._thread.is_alive()

    @property
    def counts(self) -> dict[str, int]:
        """Handshakes by outcome: admitted, unknown-key, wrong-role, no-curve, unknown-domain, malformed."""
        return dict(self._counts)

    def replace(self, allow: AllowList) -> None:
        """Decide by this list from the next handshake on. Living connections stay; the intake checks each message."""
        self._allow = allow

    def stop(self) -> None:
        """End the thread and free its sockets; from the thread that made this object. Harmless when repeated, and
        when the thread has ended by itself."""
        if not self._stop_writer.closed:
            # A thread that has ended reads no more, and nothing may wait for it.
            with contextlib.suppress(zmq.Again):
                self._stop_writer.send(_STOP, zmq.NOBLOCK)
            self._thread.join()
            self._stop_writer.close()

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._requests, zmq.POLLIN)
        poller.register(self._stop_reader, zmq.POLLIN)
        try:
            while True:
                ready = dict(poller.poll())
                if self._stop_reader in ready:
                    return
                request = self._requests.recv_multipart()
                self._requests.send_multipart(self._answer(request))
        except zmq.ContextTerminated:
            return
        finally:
            # Closing frees the name some time later, in another thread; whoever is told to open the door again needs it
            # now.
            with contextlib.suppress(zmq.ZMQError):
                self._requests.unbind(ZAP_ENDPOINT)
            self._requests.close()
            self._stop_reader.close()

    def _answer(self, request: list[bytes]) -> list[bytes]:
        outcome, peer = self._judge(request)
        self._counts[outcome] = self._counts.get(outcome, 0) + 1
        head = [b"1.0", request[1] if len(request) > 1 else b""]
        if peer is not None:
            return [*head, b"200", b"OK", peer.user_id.encode(), b""]
        self._tell(outcome, request)
        return [*head, b"400", outcome.encode(), b"", b""]

    def _judge(self, request: list[bytes]) -> tuple[str, Peer | None]:
        if len(request) < _FRAMES_MIN or request[0] != b"1.0":
            return "malformed", None
        roles = self._domains.get(request[2])
        if roles is None:
            return "unknown-domain", None
        mechanism, credentials = request[5], request[6:]
        if mechanism == b"CURVE" and len(credentials) == 1:
            peer = self._allow.by_key(credentials[0])
        elif mechanism == b"PLAIN" and credentials and self._plain:
            peer = self._allow.by_user_id(credentials[0].decode("ascii", "replace"))
        else:
            return "no-curve", None
        if peer is None:
            return "unknown-key", None
        return ("admitted", peer) if peer.role in roles else ("wrong-role", None)

    def _tell(self, outcome: str, request: list[bytes]) -> None:
        """Pass a refusal on, at most so many a minute."""
        if self._note is None:
            return
        now = time.monotonic_ns()
        self._noted = [at for at in self._noted if now - at < MINUTE]
        if len(self._noted) >= NOTES_PER_MINUTE:
            return
        self._noted.append(now)
        fields: dict[str, object] = {"reason": outcome}
        if len(request) >= _FRAMES_MIN:
            fields["address"] = request[3].decode("ascii", "replace")
        if len(request) > _FRAMES_MIN and request[5] == b"CURVE" and len(request[6]) == 32:
            fields["key"] = key_text(request[6])
        with contextlib.suppress(Exception):
            self._note("handshake-refused", fields)
