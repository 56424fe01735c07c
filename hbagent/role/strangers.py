"""Whoever calls here and gets no further than the greeting: counted, and told now and then, with where he calls from.

The doorkeeper decides about keys. Who speaks in another mode, has another public key for this side, or is no hbagent
at all, never comes that far: without this, both ends would be silent.

libzmq's monitor tells of a bound socket only what went wrong; whose connection that was follows from its descriptor,
which it names when it accepts and when it closes. One thread of libzmq tells all three in this order.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, MutableMapping

import zmq

from hbagent.core.units import MINUTE
from hbagent.transport.monitor import Link, LinkEvent

from .driver import Driver

#: Lines in a minute, whoever calls; the rest is counted.
NOTES_PER_MINUTE = 10
#: The same address and reason again.
NOTE_AGAIN_NS = 10 * MINUTE
#: Addresses and reasons that are remembered.
REMEMBERED_MAX = 1_000
#: Who hangs up in the middle of it may have been killed just then; who does so again within a minute has a reason. And
#: whose connection was closed before anybody could look where it came from is better told of when he calls again.
OFTEN = 3

OTHER_MODE, OTHER_KEY, NO_HBAGENT, BROKEN_OFF = "other-mode", "other-public-key", "no-hbagent", "broken-off"
#: All of them: of connections, while every other reason of a refusal is of a message.
REASONS = (OTHER_MODE, OTHER_KEY, NO_HBAGENT, BROKEN_OFF)

_REMEDIES = {
    OTHER_KEY: "its file has another public_key for this side than `hbagent keys show` says here",
    NO_HBAGENT: "what it speaks is not what hbagent speaks; who calls there?",
    BROKEN_OFF: "it hangs up before it says who it is: plain = true on one side alone, or a check of the port",
}
_PLAIN_HERE = "it has a key, and this side says plain = true: say it on both sides or on none"
_KEY_HERE = "it says plain = true, and this side has a key: say it on both sides or on none"

Tell = Callable[[str, str, dict[str, object]], None]


class Strangers:
    """`told` is a monitor's callback. `counts` takes the count of each reason and `tell` the lines, in the loop."""

    def __init__(self, driver: Driver, counts: MutableMapping[str, int], tell: Tell, *, plain: bool) -> None:
        self._driver = driver
        self._counts = counts
        self._tell = tell
        self._remedies = {**_REMEDIES, OTHER_MODE: _PLAIN_HERE if plain else _KEY_HERE}
        #: Where a connection with this descriptor comes from.
        self._addresses: dict[int, str] = {}
        #: What was wrong with the connection of a socket that is closed next.
        self._wrong: dict[str, str] = {}
        #: Not yet in the counts; both threads write it.
        self._lock = threading.Lock()
        self._new: dict[str, int] = {}
        #: When an address was last told of for a reason; when it called in vain.
        self._noted: dict[tuple[str, str], int] = {}
        self._broken: dict[str, list[int]] = {}
        self._lately: list[int] = []

    def told(self, link: Link) -> None:
        """In the monitor's thread."""
        event = link.event
        if event is LinkEvent.ACCEPTED:
            self._addresses[link.value] = _address(link.value)
        elif event is LinkEvent.MISUNDERSTOOD:
            self._wrong[link.socket] = _reason(link.value)
        elif event is LinkEvent.BROKEN_OFF:
            self._wrong.setdefault(link.socket, BROKEN_OFF)
        elif event is LinkEvent.LOST:
            address = self._addresses.pop(link.value, "")
            reason = self._wrong.pop(link.socket, "")
            if reason:
                self._take(reason, address, time.monotonic_ns())

    def _take(self, reason: str, address: str, now: int) -> None:
        with self._lock:
            waits = bool(self._new)
            self._new[reason] = self._new.get(reason, 0) + 1
        if not waits:
            # However many there are, one call of the loop takes them in.
            self._driver.mailbox.post(self._count)
        if (reason == BROKEN_OFF or not address) and not self._goes_on(address, now):
            return
        self._lately = [at for at in self._lately if now - at < MINUTE]
        if self._is_noted(address, reason, now) or len(self._lately) >= NOTES_PER_MINUTE:
            return
        if len(self._noted) >= REMEMBERED_MAX:
            self._noted.clear()
        # Of whom nobody can say where he calls from, he may be the one.
        self._noted[address, reason] = self._noted["", reason] = now
        self._lately.append(now)
        fields: dict[str, object] = {"address": address, "reason": reason, "remedy": self._remedies[reason]}
        self._driver.mailbox.post(lambda: self._tell("warning", "handshake-failed", fields))

    def _is_noted(self, address: str, reason: str, now: int) -> bool:
        # Who speaks in another mode breaks off as often as not.
        for known in (reason, OTHER_MODE) if reason == BROKEN_OFF else (reason,):
            noted = self._noted.get((address, known))
            if noted is not None and now - noted < NOTE_AGAIN_NS:
                return True
        return False

    def _goes_on(self, address: str, now: int) -> bool:
        if address not in self._broken and len(self._broken) >= REMEMBERED_MAX:
            self._broken.clear()
        lately = [at for at in self._broken.get(address, ()) if now - at < MINUTE][1 - OFTEN :]
        self._broken[address] = [*lately, now]
        return len(lately) + 1 >= OFTEN

    def _count(self) -> None:
        with self._lock:
            new, self._new = self._new, {}
        for reason, count in new.items():
            self._counts[reason] = self._counts.get(reason, 0) + count


def _reason(number: int) -> str:
    if number == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
        return OTHER_MODE
    return OTHER_KEY if number == zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC else NO_HBAGENT


def _address(fd: int) -> str:
    """Where a connection comes from; "" when it is closed already."""
    try:
        borrowed = socket.socket(fileno=fd)
    except OSError:
        return ""
    try:
        peer = borrowed.getpeername()
        return str(peer[0]).removeprefix("::ffff:") if isinstance(peer, tuple) else ""
    except OSError:
        return ""
    finally:
        # It is libzmq's to close.
        borrowed.detach()
