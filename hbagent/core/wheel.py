"""When to look at whom next: a deadline for each of thousands of members, at a tenth of a heap's price.

Nearly every deadline is replaced before it comes (that is what a beat does), so it is never moved when a beat
arrives: the member stays in the slot of its old deadline and is looked at when that slot comes due, which is the
moment its newest deadline is read. A slot is about a millisecond wide; a member is handed out at most one slot late
and never early. Only slots are in a heap, as plain integers, and a slot is in it once however many members it holds.
"""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

T = TypeVar("T")

#: Slot width is 2^20 ns, 1.05 ms: finer than a poll can wake, coarse enough that 10,000 members fill few slots.
SLOT_SHIFT = 20


class Wheel(Generic[T]):
    """Members waiting for an instant. Adding and handing out are O(1) but for one heap of slot numbers."""

    __slots__ = ("_order", "_slots")

    def __init__(self) -> None:
        self._slots: dict[int, list[T]] = {}
        self._order: list[int] = []

    def add(self, member: T, at: int) -> None:
        """Hand out `member` once `at` has passed."""
        slot = (at >> SLOT_SHIFT) + 1
        waiting = self._slots.get(slot)
        if waiting is None:
            self._slots[slot] = [member]
            heapq.heappush(self._order, slot)
        else:
            waiting.append(member)

    def deadline(self) -> int | None:
        """The instant when the first slot comes due; None when nobody waits."""
        return self._order[0] << SLOT_SHIFT if self._order else None

    def due(self, now: int) -> list[T]:
        """Take out everybody whose slot has come, in the order of their slots and, within one, of being added."""
        order = self._order
        current = now >> SLOT_SHIFT
        if not order or order[0] > current:
            return []
        members = self._slots.pop(heapq.heappop(order))
        while order and order[0] <= current:
            members.extend(self._slots.pop(heapq.heappop(order)))
        return members

    def __len__(self) -> int:
        return sum(len(members) for members in self._slots.values())
