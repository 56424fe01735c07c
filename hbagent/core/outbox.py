"""Transitions that the root has not acknowledged: in order, sent again until it has, bounded.

The order is the leader's order of verdicts. The root acknowledges by number, so one number stands for all of its epoch
before it.
Transitions of an earlier life of this leader (another epoch, from its journal) come first and keep their numbers:
a number is never used for two things.

When the root is away for so long that the box is full, the oldest transition of a node that has a newer one is
folded away and counted: the newest liveness and the newest health of each node are what must arrive.
"""

from __future__ import annotations

from collections import deque
from itertools import groupby, islice

from .messages import Transition, Transitions
from .states import Kind

#: Transitions in one message: at about 300 bytes each, below a page of 32 KiB.
BATCH_MAX = 64
#: A full box folds this share of itself at a time.
FOLD_SHARE = 8


class Outbox:
    """Unacknowledged transitions, oldest first."""

    __slots__ = ("_counts", "_entries", "_limit", "_present", "_sent", "dropped")

    def __init__(self, limit: int, present: int = 0) -> None:
        self._entries: deque[tuple[int, Transition]] = deque()
        #: Entries of each node and axis.
        self._counts: dict[tuple[str, bool], int] = {}
        self._limit = limit
        #: Epoch of this life, for the root to tell what an earlier one left behind.
        self._present = present
        #: How many entries from the front are on their way.
        self._sent = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._entries)

    def entries(self) -> tuple[tuple[int, Transition], ...]:
        """Everything unacknowledged as (epoch, transition), oldest first."""
        return tuple(self._entries)

    def add(self, epoch: int, transition: Transition) -> None:
        """Append; folds some away when full."""
        if len(self._entries) >= self._limit:
            self._fold()
        self._entries.append((epoch, transition))
        about = _about(transition)
        self._counts[about] = self._counts.get(about, 0) + 1

    def _fold(self) -> None:
        """Drop the oldest entries whose node has a newer one on the same axis, a share of the box at a time: to look
        for each of them once more took 4 ms of the leader's loop. The very oldest when no node has two."""
        foldable = len(self._entries) - len(self._counts)
        if not foldable:
            self._forget(_about(self._entries.popleft()[1]))
            self._sent = max(0, self._sent - 1)
            self.dropped += 1
            return
        victims = min(foldable, max(1, self._limit // FOLD_SHARE))
        self.dropped += victims
        kept: deque[tuple[int, Transition]] = deque()
        sent = 0
        for position, entry in enumerate(self._entries):
            about = _about(entry[1])
            if victims and self._counts[about] > 1:
                victims -= 1
                self._forget(about)
                continue
            kept.append(entry)
            sent += position < self._sent
        self._entries, self._sent = kept, sent

    def _forget(self, about: tuple[str, bool]) -> None:
        self._counts[about] -= 1
        if not self._counts[about]:
            del self._counts[about]

    def acknowledge(self, epoch: int, number: int) -> bool:
        """Forget everything of `epoch` up to `number`; True when something went.

        Another epoch's entries stay, wherever they stand: a message of an earlier life may have been lost where one of
        this life arrived.
        """
        kept: deque[tuple[int, Transition]] = deque()
        sent = 0
        for position, entry in enumerate(self._entries):
            if entry[0] != epoch or entry[1].number > number:
                kept.append(entry)
                sent += position < self._sent
            else:
                self._forget(_about(entry[1]))
        went = len(kept) < len(self._entries)
        self._entries, self._sent = kept, sent
        return went

    def rewind(self) -> None:
        """Count everything as not sent: the link was lost, or no acknowledgement came in time."""
        self._sent = 0

    def waiting(self) -> bool:
        """True when something has been sent and not acknowledged."""
        return self._sent > 0

    def take(self) -> tuple[Transitions, ...]:
        """Everything not yet sent, as messages of one epoch and at most `BATCH_MAX` each; marks it sent."""
        first = max(0, self._sent - 1)
        entries = list(islice(self._entries, first, None))
        previous = entries.pop(0) if self._sent else None
        self._sent = len(self._entries)
        messages = []
        for epoch, group in groupby(entries, key=lambda entry: entry[0]):
            items = [transition for _, transition in group]
            base = next(t.number for e, t in self._entries if e == epoch)
            after = previous[1].number if previous is not None and previous[0] == epoch else base - 1
            for start in range(0, len(items), BATCH_MAX):
                batch = items[start : start + BATCH_MAX]
                messages.append(
                    Transitions(
                        epoch=epoch,
                        base=base,
                        after=after,
                        items=tuple(batch),
                        dropped=self.dropped,
                        present=self._present,
                    )
                )
                after = batch[-1].number
        return tuple(messages)


def _about(transition: Transition) -> tuple[str, bool]:
    """What a transition is about: a node, and whether its health or whether it lives."""
    return transition.node, transition.kind is Kind.HEALTH_CHANGED
