"""Whether a rack is dark, as the root tells it: one event for all of its nodes.

Its leaders say of each node that nothing can be said of it, because most of the rack fell silent at once. The root
counts what is left of that when all leaders have been heard: a node that one of them hears is not dark. Leaders may be
set to call a rack dark by less; what all of them say is told as well, for of its nodes nobody is told one by one.
"""

from __future__ import annotations

from collections.abc import Iterable

from .fleet import NodeRecord
from .states import Cause, Liveness

#: A rack is dark when this share of the nodes that were not dead or gone before is, and as many as `DARK_MIN`.
DARK_PERCENT = 55
#: Of two nodes both are often down together, and say so one by one.
DARK_MIN = 3


class RackRecord:
    """One rack at the root."""

    __slots__ = ("dark", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        #: True while people believe that it is dark.
        self.dark = False

    def look(self, nodes: Iterable[NodeRecord], said: bool = False) -> tuple[int, int] | None:
        """When it goes dark, or comes back: (dark nodes, nodes that count), and `dark` is the new value; else None.

        `said`: every leader that may speak for the rack calls it dark.

        It is back when less than half of what makes a rack dark is left of it and some of its nodes live: nodes that
        stay silent are then told one by one. Those that died meanwhile are no recovery.
        """
        dark = alive = suspect = 0
        for record in nodes:
            dark += is_dark(record)
            alive += record.told is Liveness.ALIVE
            suspect += record.told is Liveness.SUSPECT
        if self.dark:
            ended = 2 * 100 * dark < DARK_PERCENT * (dark + alive)
        else:
            ended = dark < DARK_MIN or 100 * dark < DARK_PERCENT * (dark + alive + suspect)
        if said and dark:
            ended = False
        if self.dark is not ended:
            return None
        self.dark = not ended
        return dark, dark + alive + suspect


def is_dark(record: NodeRecord) -> bool:
    """True when nothing is said of a node because its rack fell silent."""
    return record.told is Liveness.UNKNOWN and record.cause is Cause.RACK_DARK
