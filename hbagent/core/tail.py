"""How late a node has ever been: the record from which a margin is read for an accepted number of mistakes.

Think of the marks on a riverside house, one for each of the highest floods. Who accepts one flood a year and has
forty years of marks builds above the fortieth highest; no theory of rain is needed. So a mistake a day, over sixteen
days, is a margin at the sixteenth largest lateness of those days. It is an order and not a mean: one pause of an hour
is one mark among the others, and a cluster (every lost beat is late by one interval) is hit to the microsecond, where
a histogram would step over it.

Memory is two short lists. The marks of the running epoch fill up, those of the epoch before still count, older ones
are forgotten: a margin is learned from the last one or two epochs, each long enough for `EPOCH_MISTAKES`.

Before the first of the accepted mistakes is due, nobody has seen the flood that one asks for. Until then a margin is
not bolder than the one assumed at the start. It may be more careful: the record is continued as a power law (Hill's
estimate of its exponent: the largest values decide) and trusted by the root of the share of time that has passed, so
that a bad first minute does not make a node slow to be suspected for a day.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Sequence
from typing import Final

from .units import DAY, MICROSECOND

#: An epoch has room for so many accepted mistakes: a rate counted from 16 to 32 events is right to about a fifth.
EPOCH_MISTAKES: Final = 16
#: Marks kept of an epoch. Two epochs hold up to twice the mistakes of one, and each of them may have had them all.
MARKS_MAX: Final = 2 * EPOCH_MISTAKES
#: Largest values from which the exponent is estimated; fewer are too few, more are no longer the tail.
HILL_MARKS: Final = 8
#: The longest epoch: who accepts a mistake a year does not wait sixteen years for a margin.
EPOCH_MAX_NS: Final = 64 * DAY
#: Beyond, a lateness is an outage of unknown length; also keeps `dump` within 64 bits.
LATENESS_MAX_NS: Final = DAY
#: Continuing a record for longer than this part of it says no more, and overflows in the end.
_RANK_MIN = 1e-9
_VERSION = 1
#: Microseconds that an epoch in a dump may have lasted: thirty years.
_TIME_MAX = 10**15


class Tail:
    """The largest latenesses of one node, and the margin that would have let the accepted number of them pass."""

    __slots__ = ("_before", "_before_ns", "_epoch_ns", "_marks", "_per_ns", "_since", "floor_ns")

    def __init__(self, mistakes_per_day: float) -> None:
        """Raises ValueError unless `mistakes_per_day` is above 0."""
        if not mistakes_per_day > 0:
            raise ValueError(f"{mistakes_per_day} mistakes a day; more than 0 are needed to learn a margin")
        self._per_ns = mistakes_per_day / DAY
        self._epoch_ns = max(1, round(min(EPOCH_MAX_NS, EPOCH_MISTAKES * (DAY / mistakes_per_day))))
        #: A lateness up to this changes nothing: as many larger ones are known of this epoch.
        self.floor_ns = 0
        #: Of the running epoch, smallest first; and of the one before it.
        self._marks: list[int] = []
        self._before: list[int] = []
        self._before_ns = 0
        #: When the running epoch began; None before the first beat.
        self._since: int | None = None

    def watch(self, now: int, left_at: int) -> None:
        """The node is watched from `now` on. If it was before, until `left_at`, the time between is not counted."""
        if self._since is None:
            self._since = now
        else:
            self._since += max(0, now - left_at)

    def add(self, lateness_ns: int, now: int) -> None:
        """A beat came `lateness_ns` later than expected. Only what is above `floor_ns` needs telling."""
        if self._since is None:
            self._since = now
        self._turn(now)
        marks = self._marks
        insort(marks, min(lateness_ns, LATENESS_MAX_NS))
        if len(marks) > MARKS_MAX:
            del marks[0]
            self.floor_ns = marks[0]

    def drop(self, lateness_ns: int) -> None:
        """Forget one lateness of the running epoch that turned out to be none."""
        if lateness_ns in self._marks:
            self._marks.remove(lateness_ns)
            self.floor_ns = 0

    def margin_ns(self, now: int, start_ns: int) -> int:
        """The margin for the accepted number of mistakes, as far as is known; `start_ns` when nothing is."""
        if self._since is None:
            return start_ns
        self._turn(now)
        marks = sorted((*self._before, *self._marks), reverse=True)
        # How many mistakes the time watched so far allows: the margin lies at the mark of that rank.
        rank = self._per_ns * (self._before_ns + now - self._since)
        if rank >= 1:
            return _at_rank(marks, rank, full=max(len(self._before), len(self._marks)) >= MARKS_MAX)
        if not marks:
            return start_ns
        beyond = marks[0] * math.pow(max(rank, _RANK_MIN), -min(_slope(marks), 1.0))
        if beyond <= start_ns or start_ns <= 0:
            return start_ns
        # By factors and not by differences; half of the way after a quarter of the time.
        return round(start_ns * math.pow(min(beyond, LATENESS_MAX_NS) / start_ns, math.sqrt(max(rank, 0.0))))

    def dump(self, now: int) -> list[int]:
        """What is known, in microseconds: version, time of each epoch, number of marks before, all marks."""
        since = now if self._since is None else self._since
        times = (max(0, now - since) // MICROSECOND, self._before_ns // MICROSECOND)
        marks = (mark // MICROSECOND for mark in (*self._before, *self._marks))
        return [_VERSION, *times, len(self._before), *marks]

    def load(self, numbers: Sequence[int], now: int) -> bool:
        """Go on from `dump`; False, and nothing changed, for numbers that it cannot have given."""
        if len(numbers) < 4 or numbers[0] != _VERSION or min(numbers) < 0 or max(numbers[1:3]) > _TIME_MAX:
            return False
        elapsed, before_ns, count = numbers[1] * MICROSECOND, numbers[2] * MICROSECOND, numbers[3]
        marks = [number * MICROSECOND for number in numbers[4:]]
        if count > len(marks) or max(count, len(marks) - count) > MARKS_MAX or max(marks, default=0) > LATENESS_MAX_NS:
            return False
        self._before, self._marks = sorted(marks[:count]), sorted(marks[count:])
        self._before_ns, self._since = before_ns, now - elapsed
        self.floor_ns = self._marks[0] if len(self._marks) == MARKS_MAX else 0
        return True

    def _turn(self, now: int) -> None:
        """Begin a new epoch when the running one is full."""
        assert self._since is not None
        elapsed = now - self._since
        if elapsed < self._epoch_ns:
            return
        self._before, self._marks = self._marks, []
        self._before_ns = elapsed
        self._since = now
        self.floor_ns = 0


def _at_rank(marks: Sequence[int], rank: float, *, full: bool) -> int:
    """The value at a rank from 1 on, between two neighbours in proportion.

    Where fewer marks are known it is 0, for fewer were late; or the least, when `full` says that others were dropped.
    """
    whole = int(rank)
    if whole > len(marks):
        return marks[-1] if full else 0
    above = marks[whole - 1]
    below = marks[whole] if whole < len(marks) else above
    return above - round((above - below) * (rank - whole))


def _slope(marks: Sequence[int]) -> float:
    """One over the tail's exponent: the mean logarithm of the largest values over the smallest of them (Hill, 1975)."""
    top = [max(mark, 1) for mark in marks[:HILL_MARKS]]
    if len(top) < 2:
        return 1.0
    return sum(math.log(mark / top[-1]) for mark in top[:-1]) / (len(top) - 1)
