"""The rule everybody can explain: one interval and a margin after the last beat arrived.

It learns nothing, so nothing can mislead it; it also pays for a late beat twice, since a beat that came 300 ms late
moves the next deadline by 300 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .adaptive import SLACK_MIN_NS, put_off


class Fixed:
    """suspect_at = arrival + interval + margin."""

    __slots__ = ("_suspect_at", "allowed_ns", "lead_ns", "margin_ns")

    name: Final = "fixed"

    def __init__(self, margin_ns: int) -> None:
        self.allowed_ns = self.margin_ns = margin_ns
        #: How long before suspicion the doubt begins.
        self.lead_ns = max(0, margin_ns - SLACK_MIN_NS)
        self._suspect_at = 0

    def beat(self, sent_mono_ns: int, due_in_ns: int, interval_ns: int, now: int) -> int:
        """A fresh beat arrived; returns when silence is suspicious. The sender's clock is not looked at."""
        self._suspect_at = now + interval_ns + self.allowed_ns
        return self._suspect_at

    def answered(self, interval_ns: int, now: int) -> int:
        """The sender answered at `now`: what is missing was lost on the way. Returns when silence is suspicious."""
        self._suspect_at += put_off(self._suspect_at - self.lead_ns, interval_ns, now)
        return self._suspect_at

    def forgive(self, silent_ns: int) -> None:
        """Nothing was learned."""

    def reset(self) -> None:
        """Nothing was learned, so there is nothing to forget."""

    def remember(self) -> list[int]:
        """Nothing."""
        return []

    def recall(self, numbers: Sequence[int]) -> None:
        """Nothing."""
