"""Asking about a neighbour on a leader's behalf: 48 bytes there, 48 bytes back, none of them readable here.

A leader that does not hear a node wants to know whether others do. The answer is worth something for half a second,
so a relay is short: the request goes out up to three times, the first thing that comes back is passed on, and when
nothing does, that is said in time. Every relay is answered exactly once, also one that is refused.

Whoever holds a leader's key could have agents send packets for him. So there are few, they are small, and nothing but
an echo request is sent: to any other service it is noise.
"""

from __future__ import annotations

import msgspec

from .allowance import Allowance
from .echo import REQUEST_MAGIC
from .effects import Ask, Effect, Effects, Send
from .messages import RELAY_TIME_NS, Answered, Relay, Relayed
from .states import Outcome, Path
from .units import MILLISECOND, SECOND

#: Relays at once: three leaders that ask about two nodes each, and two to spare. Each holds up to three descriptors.
RELAYS_MAX = 8
#: Relays a second: a leader asks each neighbour once a doubt, so this is three leaders in doubt about sixteen nodes.
RELAYS_PER_SECOND = 50
#: Times that a request is sent: one lost packet must not make a witness silent.
TRIES_MAX = 3
#: Twenty round trips of a datacenter.
TRY_AGAIN_NS = 20 * MILLISECOND


class _Errand(msgspec.Struct):
    """One relay under way."""

    leader: str
    relay: Relay
    until: int
    again_at: int
    tries: int = 0
    #: Numbers of the questions that have not come back.
    asked: list[int] = []
    #: Something went out, so that nothing coming back means something.
    sent: bool = False


class Relays:
    """The relays that one agent has under way, for all its leaders."""

    __slots__ = ("_allowance", "_ended", "_errands", "_number")

    def __init__(self) -> None:
        self._errands: list[_Errand] = []
        self._allowance = Allowance(SECOND // RELAYS_PER_SECOND, RELAYS_PER_SECOND)
        self._number = 0
        self._ended = False

    def relay(self, leader: str, relay: Relay, now: int) -> Effects:
        """A leader of this agent wants one."""
        full = self._ended or len(self._errands) >= RELAYS_MAX
        if full or relay.request[:4] != REQUEST_MAGIC or not self._allowance.take(now):
            return (_relayed(leader, relay, Outcome.UNSENT),)
        errand = _Errand(leader, relay, now + RELAY_TIME_NS, now)
        self._errands.append(errand)
        return (self._ask(errand),)

    def answered(self, answered: Answered) -> Effects:
        """What came of a question; of one that is settled already it is dropped."""
        errand = next((errand for errand in self._errands if answered.number in errand.asked), None)
        if errand is None:
            return ()
        errand.asked.remove(answered.number)
        if answered.outcome in (Outcome.ANSWERED, Outcome.REFUSED):
            return (self._end(errand, answered.outcome, answered.data),)
        errand.sent = errand.sent or answered.outcome is not Outcome.UNSENT
        if errand.asked or errand.tries < TRIES_MAX:
            return ()
        return (self._end(errand, Outcome.SILENT if errand.sent else Outcome.UNSENT),)

    def wake(self, now: int) -> list[Effect]:
        """The deadline came."""
        effects: list[Effect] = []
        for errand in tuple(self._errands):
            if now >= errand.until:
                effects.append(self._end(errand, Outcome.SILENT if errand.sent or errand.asked else Outcome.UNSENT))
            elif errand.tries < TRIES_MAX and now >= errand.again_at:
                effects.append(self._ask(errand))
        return effects

    def deadline(self) -> int | None:
        """When `wake` wants to be called; None while there is nothing to do."""
        return min((e.again_at if e.tries < TRIES_MAX else e.until for e in self._errands), default=None)

    def end(self) -> Effects:
        """Answer all that are under way, and refuse all that come: this agent leaves."""
        self._ended = True
        return tuple(self._end(errand, Outcome.UNSENT) for errand in tuple(self._errands))

    def _ask(self, errand: _Errand) -> Ask:
        self._number += 1
        errand.tries += 1
        errand.again_at += TRY_AGAIN_NS
        errand.asked.append(self._number)
        relay = errand.relay
        return Ask(errand.leader, self._number, Path.UDP, relay.address, relay.port, relay.request)

    def _end(self, errand: _Errand, outcome: Outcome, answer: bytes = b"") -> Send:
        self._errands.remove(errand)
        return _relayed(errand.leader, errand.relay, outcome, answer)


def _relayed(leader: str, relay: Relay, outcome: Outcome, answer: bytes = b"") -> Send:
    return Send(leader, Relayed(number=relay.number, outcome=outcome, answer=answer))
