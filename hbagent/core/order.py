"""Which of a sender's beats is news: the pair (incarnation, sequence) of one sender.

Think of a letter writer who numbers the letters. Within one life (an incarnation) only a higher number is news; an
equal one is a copy and a lower one was overtaken on the way. Lives have no order, for a host that has just booted may
believe any date, so a life is known only by having been met: one never met replaces the current one, and a replaced
one that still writes shows that two writers sign with the same name.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

#: Replaced incarnations that are remembered. Eight restarts within the time that an old beat can still be under way
#: are a crash loop; forgetting its oldest life costs a false "restart", and what is kept stays small.
RETIRED_MAX = 8


class Verdict(enum.Enum):
    """What one beat says about its sender."""

    #: News: the first beat of this sender, or a higher sequence of the current incarnation.
    FRESH = "fresh"
    #: The newest beat once more.
    DUPLICATE = "duplicate"
    #: A lower sequence than the newest.
    STALE = "stale"
    #: News: the first beat of an incarnation never met before, which takes the place of the current one.
    RESTART = "restart"
    #: A replaced incarnation speaks after its successor: an old beat that was long under way, or, when it goes on,
    #: two agents with one name.
    RETIRED = "retired"


class Order:
    """The newest (incarnation, sequence) of one sender.

    The usual beat, `incarnation == order.incarnation and sequence == order.sequence + 1`, may be taken in by setting
    `order.sequence` alone; every other one goes through `judge`.
    """

    __slots__ = ("_restored", "incarnation", "lost", "retired", "sequence")

    def __init__(self) -> None:
        #: None until the first beat.
        self.incarnation: int | None = None
        #: Newest sequence of the incarnation.
        self.sequence = 0
        #: Beats of this incarnation that never came, by the gaps in its sequence.
        self.lost = 0
        #: Replaced incarnations, oldest first, at most `RETIRED_MAX`.
        self.retired: list[int] = []
        self._restored = 0

    def judge(self, incarnation: int, sequence: int) -> Verdict:
        """Take in one beat and say what it is; FRESH and RESTART move the pair, the others change nothing."""
        if incarnation != self.incarnation:
            return self._meet(incarnation, sequence)
        if sequence > self.sequence:
            # What was sent while this observer was down was not lost on the way.
            if self.sequence != self._restored:
                self.lost += sequence - self.sequence - 1
            self.sequence = sequence
            return Verdict.FRESH
        return Verdict.DUPLICATE if sequence == self.sequence else Verdict.STALE

    def restore(self, incarnation: int, sequence: int, retired: Iterable[int] = ()) -> None:
        """Go on from a kept pair; the gap from it to the next beat is not counted as lost."""
        self.incarnation = incarnation
        self.sequence = self._restored = sequence
        self.lost = 0
        self.retired = [old for old in retired if old != incarnation][-RETIRED_MAX:]

    def _meet(self, incarnation: int, sequence: int) -> Verdict:
        if incarnation in self.retired:
            return Verdict.RETIRED
        verdict = Verdict.FRESH
        if self.incarnation is not None:
            self.retired.append(self.incarnation)
            del self.retired[:-RETIRED_MAX]
            verdict = Verdict.RESTART
        self.incarnation = incarnation
        self.sequence = sequence
        self.lost = 0
        # No sequence is 0, so the next gap counts.
        self._restored = 0
        return verdict
