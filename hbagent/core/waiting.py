"""Notifications that are not decided yet: each waits for something, and for its end at a time that is known.

Think of a waiting room with a clock above each seat. Who is due is called; who waits beside them for the same receiver,
because of the same rack, may be called along: perhaps they all came for one reason.
"""

from __future__ import annotations

import heapq

from .records import HookRun
from .states import Axis, Reason

#: Reasons for which notifications of one rack are told together when they have waited together.
_TOGETHER = (Reason.DOUBT, Reason.HOLD, Reason.GRACE, Reason.INHIBITED)


class Waiting:
    """One notification that waits."""

    __slots__ = ("began", "doubted", "restored", "run", "until")

    def __init__(self, run: HookRun, began: int) -> None:
        self.run = run
        #: Since when the receiver is kept waiting for this trouble.
        self.began = began
        self.until = began
        #: It has waited for the others of its rack.
        self.doubted = False
        #: It waited in an earlier life of the root already; since when, only its wall clock says.
        self.restored = False


class WaitingRoom:
    """All that wait, by run id."""

    def __init__(self) -> None:
        self._seats: dict[str, Waiting] = {}
        #: (until, run id), some of them of somebody who left, or waits for something else by now.
        self._clock: list[tuple[int, str]] = []
        #: Until when the newest of a receiver and rack waits for the doubts about others.
        self._doubts: dict[tuple[str, str], int] = {}
        #: Ends that wait: run id by receiver, subject and axis.
        self._ends: dict[tuple[str, str, Axis | None], str] = {}

    def __len__(self) -> int:
        return len(self._seats)

    def seat(self, waiting: Waiting) -> None:
        """It waits until `waiting.until`."""
        run = waiting.run
        if run.reason is Reason.DOUBT:
            self._doubts[run.hook, run.rack] = waiting.until
        self._seats[run.run_id] = waiting
        if run.end:
            self._ends[run.hook, run.subject, run.axis] = run.run_id
        heapq.heappush(self._clock, (waiting.until, run.run_id))

    def take(self, run_id: str) -> Waiting | None:
        """It waits no more; None when it did not."""
        return self._seats.pop(run_id, None)

    def take_end(self, receiver: str, subject: str, axis: Axis | None) -> Waiting | None:
        """The end of a trouble that waits to be told to `receiver`: it waits no more."""
        run_id = self._ends.pop((receiver, subject, axis), None)
        return None if run_id is None else self._seats.pop(run_id, None)

    def due(self, now: int) -> list[Waiting]:
        """Those whose time is over: they wait no more."""
        called = []
        while self._clock and self._clock[0][0] <= now:
            until, run_id = heapq.heappop(self._clock)
            waiting = self._seats.get(run_id)
            if waiting is not None and waiting.until == until:
                run = self._seats.pop(run_id).run
                if self._ends.get((run.hook, run.subject, run.axis)) == run_id:
                    del self._ends[run.hook, run.subject, run.axis]
                called.append(waiting)
        return called

    def deadline(self) -> int | None:
        """When somebody may be due; perhaps too early."""
        return self._clock[0][0] if self._clock else None

    def companions(self, called: list[Waiting], until: int) -> list[Waiting]:
        """Those that wait for the same receivers and racks as these, until then at the latest. They stay seated."""
        places = {(waiting.run.hook, waiting.run.rack): None for waiting in called}
        return [
            waiting
            for waiting in self._seats.values()
            if waiting.run.reason in _TOGETHER
            and waiting.until <= until
            and (waiting.run.hook, waiting.run.rack) in places
        ]

    def doubted_until(self, receiver: str, rack: str, now: int) -> int | None:
        """Until when others of the rack wait for a doubt; None when nobody does."""
        until = self._doubts.get((receiver, rack))
        if until is not None and until <= now:
            del self._doubts[receiver, rack]
            return None
        return until

    def summary_due(self, run: HookRun, reason: Reason, otherwise: int) -> int:
        """When the summary of `reason` is due that `run` will be part of: with those that wait for it already."""
        for waiting in self._seats.values():
            other = waiting.run
            if other.reason is reason and other.hook == run.hook and other.end is run.end:
                return waiting.until
        return otherwise

    def hasten(self, receiver: str, reason: Reason, now: int) -> None:
        """Ends that wait for this reason are due now."""
        for waiting in self._seats.values():
            if waiting.run.hook == receiver and waiting.run.end and waiting.run.reason is reason:
                waiting.until = now
                heapq.heappush(self._clock, (now, waiting.run.run_id))
