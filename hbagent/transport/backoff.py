"""When to knock again after having been refused: later each time, and not in step with anybody else.

A leader that refuses a key (`transport.zap` answers 400) ends libzmq's own retries for good, so an agent started
before its key was enrolled has to come back by itself. A whole rack may be in that place, hence the jitter.
"""

from __future__ import annotations

from random import Random

from hbagent.core.units import SECOND

#: A refusal costs the leader half a millisecond of CPU (measured, CURVE with libsodium): 500 refused agents at
#: 2 s are an eighth of a core at the very start, and 0.5 % of one when all have reached the longest wait.
BACKOFF_MIN_NS = 2 * SECOND

#: An operator who has just enrolled a key watches for the node to join; a minute is what that may take.
BACKOFF_MAX_NS = 60 * SECOND


class Backoff:
    """The waits between one caller's attempts at one peer. Pure: time is passed in, chance is given.

    The n-th wait is uniform between the minimum and `minimum * 2^n`, at most the maximum.
    """

    __slots__ = ("_ceiling_ns", "_maximum_ns", "_minimum_ns", "_random", "retry_at")

    def __init__(self, random: Random, minimum_ns: int = BACKOFF_MIN_NS, maximum_ns: int = BACKOFF_MAX_NS) -> None:
        if not 0 < minimum_ns <= maximum_ns:
            raise ValueError(f"a back-off needs 0 < minimum <= maximum, not {minimum_ns} and {maximum_ns}")
        self._random = random
        self._minimum_ns = minimum_ns
        self._maximum_ns = maximum_ns
        self._ceiling_ns = minimum_ns
        #: When to try again; None while there is nothing to retry.
        self.retry_at: int | None = None

    def refused(self, now: int) -> int:
        """An attempt was refused: when to try again. While a retry is already planned, that one stands."""
        if self.retry_at is None:
            self._ceiling_ns = min(2 * self._ceiling_ns, self._maximum_ns)
            self.retry_at = now + self._random.randint(self._minimum_ns, self._ceiling_ns)
        return self.retry_at

    def due(self, now: int) -> bool:
        """True, once, when the time to try again has come."""
        if self.retry_at is None or now < self.retry_at:
            return False
        self.retry_at = None
        return True

    def admitted(self) -> None:
        """An attempt succeeded: nothing to retry, and the next refusal starts from the shortest wait."""
        self.retry_at = None
        self._ceiling_ns = self._minimum_ns
