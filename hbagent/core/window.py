"""The last so many durations of something, with their exact mean and deviation at every moment.

Sums of integers do not drift, however long the window slides; sums of floats would, until a deviation comes out as
the root of a negative number.
"""

from __future__ import annotations

import math
from array import array

#: A duration is kept in 63 bits of nanoseconds, 292 years.
DURATION_MAX_NS = 2**63 - 1


class Window:
    """A bounded history of durations in nanoseconds. Holds 8 bytes a sample; O(1) an append."""

    __slots__ = ("_next", "_samples", "_size", "_sum", "_sum_of_squares")

    def __init__(self, size: int) -> None:
        """`size` is how many are kept; raises ValueError below 2, of which no deviation could be taken."""
        if size < 2:
            raise ValueError(f"a window of {size} samples has no deviation; at least 2 are needed, 1000 are usual")
        self._size = size
        self._samples = array("q")
        self._next = 0
        self._sum = 0
        self._sum_of_squares = 0

    def __len__(self) -> int:
        return len(self._samples)

    def append(self, duration_ns: int) -> None:
        """Add a duration; when the window is full the oldest leaves. Held within 0 and `DURATION_MAX_NS`."""
        duration = min(max(duration_ns, 0), DURATION_MAX_NS)
        if len(self._samples) < self._size:
            self._samples.append(duration)
        else:
            old = self._samples[self._next]
            self._samples[self._next] = duration
            self._next = (self._next + 1) % self._size
            self._sum -= old
            self._sum_of_squares -= old * old
        self._sum += duration
        self._sum_of_squares += duration * duration

    def clear(self) -> None:
        """Forget everything."""
        self._samples = array("q")
        self._next = 0
        self._sum = 0
        self._sum_of_squares = 0

    @property
    def mean_ns(self) -> int:
        """Mean, rounded down; 0 when empty."""
        return self._sum // len(self._samples) if self._samples else 0

    @property
    def deviation_ns(self) -> int:
        """Standard deviation of the samples as a whole population, rounded down; 0 when empty."""
        count = len(self._samples)
        if not count:
            return 0
        return math.isqrt(count * self._sum_of_squares - self._sum * self._sum) // count
