"""Orders for drills on their way to an agent: who wants to know whether one has begun.

Leader and root both keep one of these. An answer counts only when it comes from whom the order went to.
"""

from __future__ import annotations

import msgspec

from .drill import UNDER_WAY
from .messages import DrillBegun
from .units import MILLISECOND, show_duration

#: Orders under way at once: a drill is one operator at one console.
DRILLS_MAX = 4
#: From the order to the answer, which an agent gives at once: at a leader, and at the root, which must outlast the
#: leader to name the agent, and be done before a console gives up after 2 s.
LEADER_TIME_NS = 1000 * MILLISECOND
ROOT_TIME_NS = 1500 * MILLISECOND
#: Lives of one process have numbers that do not meet.
_NUMBER_BITS = 24


class Errand(msgspec.Struct, frozen=True):
    """One order under way."""

    node: str
    #: Who must answer.
    peer: str
    #: Who wants to know, and under which number: a console's connection and query, or a peer and its own number.
    asker: str
    query: int
    until: int
    time_ns: int


class Drills:
    """Those of one process."""

    def __init__(self, life: int, time_ns: int) -> None:
        self._time_ns = time_ns
        self._number = (life & 0xFFFF_FFFF) << _NUMBER_BITS
        #: By number; a leader that wakes fifty times a second looks here first.
        self.under_way: dict[int, Errand] = {}

    def begin(self, node: str, peer: str, asker: str, query: int, now: int) -> int | None:
        """The number of a new order to `peer`; None when too many are under way."""
        if len(self.under_way) >= DRILLS_MAX:
            return None
        self._number += 1
        self.under_way[self._number] = Errand(node, peer, asker, query, now + self._time_ns, self._time_ns)
        return self._number

    def take(self, sender: str, begun: DrillBegun) -> Errand | None:
        """The order that this answers; None when `sender` got no such order."""
        errand = self.under_way.get(begun.number)
        if errand is None or errand.peer != sender or errand.node != begun.node:
            return None
        del self.under_way[begun.number]
        return errand

    def expired(self, now: int) -> list[Errand]:
        """Those that were not answered in time, and are over now."""
        late = {number: errand for number, errand in self.under_way.items() if errand.until <= now}
        for number in late:
            del self.under_way[number]
        return list(late.values())

    def deadline(self) -> int | None:
        """When `expired` has something to tell."""
        return min((errand.until for errand in self.under_way.values()), default=None)


def unanswered(errand: Errand) -> str:
    """Why a drill did not begin, when nobody answered."""
    return f"{errand.peer} did not answer within {show_duration(errand.time_ns)}"


def too_many() -> str:
    """Why no other drill is begun now."""
    return f"{DRILLS_MAX} orders for drills are {UNDER_WAY} already; ask again in a moment"
