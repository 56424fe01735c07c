"""Why a call does not come about: what libzmq's monitor tells of its attempts, as a sentence with a remedy.

libzmq tries for ever and says nothing to whoever sends and receives, so a wrong address, key or mode of the first hour
would be silence at both ends. And it does not always try for ever: who answers in another mode, or is no hbagent at
all, ends its attempts for good, without a word. Whoever owns the call has to call again then.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import zmq

from hbagent.core.units import SECOND
from hbagent.transport.monitor import Link, LinkEvent

#: An attempt of which nothing is known for so long is no attempt that has just begun.
MUTE_NS = 2 * SECOND


class Trouble(NamedTuple):
    """Why there is no connection, and what to do about it."""

    reason: str
    remedy: str


_NOBODY = Trouble("nobody answers there", "is it running, is the address right, is the port open?")
_MUTE = Trouble(
    "something takes the connection and says nothing",
    "it stands still, or it is no port of hbagent: compare the address",
)
_FOREIGN = Trouble(
    "what listens there is something else",
    "compare the address: it is another program's, or publish and control are exchanged",
)
_PLAIN_THERE = Trouble(
    "it says plain = true, and this side has a key", "say it on both sides or on none, and restart who was changed"
)
_KEY_THERE = Trouble(
    "it has a key, and this side says plain = true", "say it on both sides or on none, and restart who was changed"
)
_BROKEN_OFF = Trouble(
    "it breaks off before anybody can be admitted",
    "compare public_key with `hbagent keys show` over there, plain = true on both sides, publish and control",
)


class Attempts:
    """The attempts of one connection. `took` is called in a monitor's thread, the rest from anywhere."""

    __slots__ = ("_connected_at", "_trouble", "again", "count", "refused", "told")

    def __init__(self) -> None:
        #: libzmq calls again by itself.
        self.again = True
        #: Attempts since it was last up.
        self.count = 0
        #: What was said of it since then.
        self.told = ""
        #: The other side does not know our key; that is told by itself.
        self.refused = False
        #: Since when TCP is there, and nothing more is known of this attempt.
        self._connected_at: int | None = None
        self._trouble: Trouble | None = None

    def took(self, link: Link, plain: bool) -> None:
        """One event of it. `plain` is this side's mode."""
        event = link.event
        if event is not LinkEvent.LOST and event is not LinkEvent.RETRIED and event is not LinkEvent.CONNECTED:
            self.refused = False
        if event is LinkEvent.UP:
            self.again, self.count, self.told, self._connected_at, self._trouble = True, 0, "", None, None
        elif event is LinkEvent.CONNECTED:
            self._connected_at = time.monotonic_ns()
            self.count += 1
        elif event is LinkEvent.RETRIED:
            self.again = True
        elif event is LinkEvent.UNREACHED:
            self._connected_at, self._trouble = None, _NOBODY
            self.count += 1
        elif event is LinkEvent.LOST:
            # Of a handshake that failed an event has told; of what was up there is nothing to tell.
            if self._connected_at is not None:
                self._trouble = _FOREIGN
            self.again, self._connected_at = False, None
        else:
            self._broke(link, plain)

    def _broke(self, link: Link, plain: bool) -> None:
        self._connected_at = None
        known = self._trouble in (_PLAIN_THERE, _KEY_THERE)
        if link.event is LinkEvent.REFUSED:
            self.refused, self._trouble = True, None
        elif link.event is LinkEvent.MISUNDERSTOOD and link.value == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
            self._trouble = _KEY_THERE if plain else _PLAIN_THERE
        elif not known:
            # Whoever finds out first that modes differ hangs up, and the other does not learn why.
            self._trouble = _BROKEN_OFF

    @property
    def trouble(self) -> Trouble:
        """Why it is not up."""
        since, known = self._connected_at, self._trouble
        if since is not None and (known is None or time.monotonic_ns() - since >= MUTE_NS):
            return _MUTE
        return known if known is not None else _NOBODY
