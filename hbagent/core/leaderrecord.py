"""What the root knows of one leader: its right to speak, its own account of itself, and how far it was heard out.

A leader's lives (epochs) have no order by themselves, as incarnations of agents have none. Several may be under way at
once: a leader that was started again first sends what its earlier life could not deliver.
"""

from __future__ import annotations

from .lease import Lease
from .messages import LeaderStats
from .order import Order
from .records import MARKS_MAX, Mark


class Life:
    """One life of a leader's process: how far its transitions are taken in, and of these, how far they are on disk."""

    __slots__ = ("kept", "number", "taken")

    def __init__(self, number: int) -> None:
        #: Counts the lives of one leader, as they were met.
        self.number = number
        self.taken = 0
        self.kept = 0


class LeaderRecord:
    """One leader at the root."""

    __slots__ = ("_lives", "lease", "lost_told", "name", "newest", "order", "racks", "stats", "stats_at")

    def __init__(self, name: str, racks: tuple[str, ...], lease: Lease) -> None:
        self.name = name
        self.racks = racks
        self.lease = lease
        #: Which of its summaries is news: lives of a leader have no order, numbers within one have.
        self.order = Order()
        self.stats = LeaderStats()
        self.stats_at = 0
        self.newest = 0
        self.lost_told = False
        self._lives: dict[int, Life] = {}

    def restore(self, mark: Mark) -> None:
        """Take up what is on disk; the marks of one leader in the order of their lives."""
        life = self._lives[mark.epoch] = Life(mark.life)
        life.taken = life.kept = mark.number

    def taken(self, epoch: int) -> int:
        """Number of the newest transition of `epoch` that was taken in."""
        life = self._lives.get(epoch)
        return life.taken if life is not None else 0

    def kept(self, epoch: int) -> int:
        """Number of the newest transition of `epoch` that is on disk and may be acknowledged."""
        life = self._lives.get(epoch)
        return life.kept if life is not None else 0

    def take(self, epoch: int, number: int) -> Mark:
        """Everything of `epoch` up to `number` is taken in; returns the mark to be written."""
        life = self._lives.get(epoch)
        if life is None:
            newest = next(reversed(self._lives.values())).number + 1 if self._lives else 0
            life = self._lives[epoch] = Life(newest)
            if len(self._lives) > MARKS_MAX:
                del self._lives[next(iter(self._lives))]
        life.taken = number
        return Mark(leader=self.name, epoch=epoch, number=number, life=life.number)

    def keep(self, mark: Mark) -> None:
        """A mark is on disk."""
        life = self._lives.get(mark.epoch)
        if life is not None:
            life.kept = mark.number
