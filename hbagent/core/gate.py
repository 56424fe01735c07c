"""The peers as a witness against the observer: when many of a rack are late at once, the cause is rarely each of them.

Think of a teacher who finds a third of the class missing. Before writing thirty letters home one looks whether the
school bus came. So a rack has one gate at each observer. Members that are late together close it, and while it is
closed no silence is judged; once the others are heard again, who is still silent gets a moment longer and is judged.

A gate that could stay closed would be a rack in which nobody ever dies. It is closed for `hold_ns` at most, an opening
too short to judge anybody in counts as none, and after a full hold it stays open until the crowd has thinned out.

The brake is the last of these doubts: the gate asks how many are late, the brake how many would be buried by one look.

Neither is asked about a death that was proved.
"""

from __future__ import annotations

from typing import Final

from .units import MILLISECOND

#: More than this share of a rack, and more than `MASS_MIN` members, dying by silence in one look is a mass death.
MASS_PERCENT: Final = 30
#: Three hosts on one power strip die together now and then.
MASS_MIN: Final = 3
#: While the gate is closed, look again no sooner than this: one tick of the observer's loop.
LOOK_NS: Final = 20 * MILLISECOND


class Gate:
    """One rack at one observer: who is late right now, and whether silence may be judged. O(1) a call."""

    __slots__ = (
        "_again_ns",
        "_at_least",
        "_braked_until",
        "_closed_at",
        "_hold_ns",
        "_late",
        "_opened_at",
        "_rearmed_at",
        "_share",
        "_spent",
        "watched",
    )

    def __init__(self, share: float, at_least: int, hold_ns: int) -> None:
        self._share = share
        self._at_least = max(at_least, 1)
        self._hold_ns = hold_ns
        #: How many members of the rack are watched: alive or suspect. The owner keeps it.
        self.watched = 0
        self._late: set[str] = set()
        #: When it closed; None while it is open.
        self._closed_at: int | None = None
        #: When it last opened because peers were heard, with the closing that this ended.
        self._opened_at: tuple[int, int] | None = None
        #: True after a full hold, until fewer are late.
        self._spent = False
        #: How soon whoever asked last asks again: an opening shorter than this may have been seen by nobody.
        self._again_ns = 0
        self._braked_until = 0
        self._rearmed_at = 0

    @property
    def late_count(self) -> int:
        """Members that are late now."""
        return len(self._late)

    @property
    def closed(self) -> bool:
        """True while peers are late together, as of the last call."""
        return self._closed_at is not None

    def late(self, name: str, now: int) -> None:
        """`name` is past the moment at which it is missed, and unheard."""
        self._late.add(name)
        self._look(now)

    def heard(self, name: str, now: int) -> None:
        """`name` was heard again, or is no longer watched."""
        self._late.discard(name)
        self._look(now)

    def hold_until(self, now: int, grace_ns: int) -> int:
        """The instant before which no silence in this rack may be judged; 0 when it may be now.

        Of a closed gate it is the earliest one possible: asked again then, the answer may be a later one. Who is
        still late when peers were heard again gets `grace_ns` from that moment.
        """
        self._look(now)
        self._again_ns = max(grace_ns, LOOK_NS)
        if self._closed_at is not None:
            return min(self._closed_at + self._hold_ns, now + self._again_ns)
        if self._opened_at is not None:
            until = min(self._opened_at[1] + grace_ns, self._opened_at[0] + self._hold_ns)
            if now < until:
                return until
        return 0

    def brake(self, dying: int, now: int, hold_ns: int) -> int:
        """One look would bury `dying` members for silence: the instant to which all of them wait, 0 to go on.

        A mass is held once, for `hold_ns`; for as long again nothing is held, so that it is buried then.
        """
        if now < self._braked_until:
            return self._braked_until
        if now < self._rearmed_at or dying <= MASS_MIN or 100 * dying <= MASS_PERCENT * self.watched:
            return 0
        self._braked_until = now + hold_ns
        self._rearmed_at = now + 2 * hold_ns
        return self._braked_until

    def _look(self, now: int) -> None:
        """Close or open, by who is late now."""
        closed_at = self._closed_at
        if closed_at is not None and now >= closed_at + self._hold_ns:
            self._closed_at = None
            self._opened_at = None
            self._spent = True
            closed_at = None
        late = len(self._late)
        if late >= self._at_least and late >= self._share * self.watched:
            if closed_at is None and not self._spent:
                self._close(now)
            return
        self._spent = False
        if closed_at is not None:
            self._closed_at = None
            self._opened_at = (closed_at, now)

    def _close(self, now: int) -> None:
        if self._opened_at is not None and now < self._opened_at[1] + self._again_ns:
            now = self._opened_at[0]
        self._closed_at = now
        self._opened_at = None
