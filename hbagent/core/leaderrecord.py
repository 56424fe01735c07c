"""What the root knows of one leader: its right to speak, its own account of itself, and how far it was heard out.

A leader's lives (epochs) have no order by themselves, as incarnations of agents have none. Several may be under way at
once: a leader that was started again first sends what its earlier life could not deliver.
"""

from __future__ import annotations

from .lease import Lease
from .messages import LeaderStats
from .order import Order


class LeaderRecord:
    """One leader at the root."""

    __slots__ = ("acknowledged", "lease", "lost_told", "marks", "name", "newest", "order", "racks", "stats", "stats_at")

    def __init__(self, name: str, racks: tuple[str, ...], lease: Lease) -> None:
        self.name = name
        self.racks = racks
        self.lease = lease
        #: Which of its summaries is news: lives of a leader have no order, numbers within one have.
        self.order = Order()
        self.stats = LeaderStats()
        self.stats_at = 0
        self.newest = 0
        #: Transitions taken in, by epoch; and of these, what is on disk and may be acknowledged.
        self.marks: dict[int, int] = {}
        self.acknowledged: dict[int, int] = {}
        self.lost_told = False
