"""Racks of which too little is known yet to tell that a node of them is silent.

A leader or the root has just started, or what explained the silence of a whole rack has just ended. Beats are on their
way, connections come back, and who was down is asked again. A verdict of silence from this time may be right; it is
told when the time is over, if it still stands.
"""

from __future__ import annotations

from typing import NamedTuple

from .states import Reason


class Settle(NamedTuple):
    """Why, and until when."""

    reason: Reason
    #: The incident that has ended; "" after a start.
    ref: str
    until: int


class Settling:
    """The racks that settle, at most one entry for each."""

    def __init__(self) -> None:
        self._racks: dict[str, Settle] = {}

    def begin(self, rack: str, reason: Reason, ref: str, until: int) -> None:
        """`rack` settles until then; a time that ends later stays as it is."""
        known = self._racks.get(rack)
        if known is None or known.until < until:
            self._racks[rack] = Settle(reason, ref, until)

    def listen(self, rack: str, until: int) -> None:
        """Somebody begins to listen to `rack`: what was to wait for him waits until then, and no longer."""
        known = self._racks.get(rack)
        if known is not None and known.reason is Reason.GRACE:
            del self._racks[rack]
        self.begin(rack, Reason.GRACE, "", until)

    def of(self, rack: str, now: int) -> Settle | None:
        """Why `rack` settles; None when it does not."""
        settle = self._racks.get(rack)
        return None if settle is None or settle.until <= now else settle
