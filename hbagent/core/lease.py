"""A leader's time-bounded right to speak for its racks.

Nobody has to take it away: a leader that falls silent loses it by itself, so what it said last can never stay
green. The root renews a lease with each summary, on its own clock.
"""

from __future__ import annotations


class Lease:
    """One leader's lease, as the root holds it."""

    __slots__ = ("epoch", "expires_at", "held", "held_since", "holder", "length_ns", "renewed_at")

    def __init__(self, holder: str, length_ns: int, grace_until: int) -> None:
        self.holder = holder
        #: How long the right lasts after a summary.
        self.length_ns = length_ns
        #: Identifies one life of the leader's process.
        self.epoch: int | None = None
        self.expires_at = grace_until
        self.renewed_at: int | None = None
        #: True from the first summary until the lease lapses.
        self.held = False
        #: When it was last gained, after none was held.
        self.held_since = 0

    def renew(self, epoch: int, now: int) -> bool:
        """A summary arrived; returns True when the leader had no lease before, or is another life of it."""
        fresh = not self.held or epoch != self.epoch
        if not self.held:
            self.held_since = now
        self.epoch = epoch
        self.expires_at = now + self.length_ns
        self.renewed_at = now
        self.held = True
        return fresh

    def extend(self, lag_ns: int, since: int) -> None:
        """The observer did not listen for `lag_ns` from `since` on: whoever was heard before gets that time on top."""
        if self.renewed_at is None or self.renewed_at < since:
            self.expires_at += lag_ns

    def lapsed(self, now: int) -> bool:
        """True once the lease has run out, or the grace for a leader that was never heard."""
        return now >= self.expires_at

    def drop(self) -> None:
        """Take note that the lease lapsed."""
        self.held = False
