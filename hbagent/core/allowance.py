"""So many at once, and so many over time: what one peer may have of something that costs.

Kept as one number: the instant up to which everything taken so far is paid for. It may lie ahead of now by what a
burst costs and no further.
"""

from __future__ import annotations


class Allowance:
    """One every `cost_ns` on average, up to `burst` at once."""

    __slots__ = ("_ahead_max_ns", "_cost_ns", "_paid_until")

    def __init__(self, cost_ns: int, burst: int) -> None:
        self._cost_ns = cost_ns
        self._ahead_max_ns = cost_ns * burst
        self._paid_until: int | None = None

    def take(self, now: int) -> bool:
        """True when one more is allowed now."""
        paid_until = max(now, self._paid_until if self._paid_until is not None else now) + self._cost_ns
        if paid_until - now > self._ahead_max_ns:
            return False
        self._paid_until = paid_until
        return True
