"""What was refused, counted by reason, and said now and then.

Whoever floods a process with what it must refuse shall not flood its log as well: of one sender and reason there is
one line a second, and it says how many there were.
"""

from __future__ import annotations

from .effects import Effects, Note
from .units import SECOND

#: One line in this time for each sender and reason.
NOTE_EVERY_NS = SECOND
#: Senders and reasons remembered; a flood under many names makes a few more lines, and no memory.
REMEMBERED_MAX = 1000
#: What an honest network does to honest senders.
_ORDINARY = ("duplicate", "stale")


class Refusals:
    """One process's account of what it refused."""

    __slots__ = ("_noted", "_said", "counts")

    def __init__(self) -> None:
        #: How often, by reason.
        self.counts: dict[str, int] = {}
        self._noted: dict[tuple[str, str], int] = {}
        #: What goes on until somebody changes a file, and was said.
        self._said: set[tuple[str, ...]] = set()

    def add(self, sender: str, reason: str, now: int, detail: str = "") -> Effects:
        """Count one; returns the line for the log when it is time for one."""
        count = self._count(reason)
        if now < self._noted.get((sender, reason), 0):
            return ()
        if len(self._noted) >= REMEMBERED_MAX:
            self._noted.clear()
        self._noted[sender, reason] = now + NOTE_EVERY_NS
        fields = {"sender": sender, "reason": reason, "count": count}
        if detail:
            fields["detail"] = detail
        return (Note("debug" if reason in _ORDINARY else "warning", "refused", fields),)

    def add_once(self, reason: str, *about: str) -> bool:
        """Count one of what goes on until somebody changes a file; True when it is to be said: the first time that it
        is about this, until `reconfigured`."""
        self._count(reason)
        if (reason, *about) in self._said or len(self._said) >= REMEMBERED_MAX:
            return False
        self._said.add((reason, *about))
        return True

    def reconfigured(self) -> None:
        """Somebody has changed a file: what still goes on is said again."""
        self._said.clear()

    def _count(self, reason: str) -> int:
        count = self.counts[reason] = self.counts.get(reason, 0) + 1
        return count
