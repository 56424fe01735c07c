"""Drills: a harmless program that really gets stuck, to find out whether anybody would be told.

It runs under an agent as any application does, with a name that says what it is, so whatever is told of it can be
told from the real thing.
"""

from __future__ import annotations

from .states import Health, Stall
from .units import MILLISECOND, SECOND

#: Applications whose names begin so are drills.
PREFIX = "hbagent-drill-"
#: What a drill does, the health that must come of it, and what its process must be found in.
OUTCOMES: dict[str, tuple[Health, Stall | None]] = {
    "deadlock": (Health.DEADLOCKED, Stall.DEADLOCKED),
    "freeze": (Health.STALLED, Stall.PAUSED),
    "crash": (Health.CRITICAL, None),
}
#: A drill's marks must move within this.
WINDOW_NS = 2 * SECOND
#: It works for so long before it gets stuck: it must be known to the root by then.
WARM_UP_NS = 4 * SECOND
#: From being stuck to the word at the root, beyond the window: two looks a second apart, and everything else.
VERDICT_NS = 2500 * MILLISECOND
#: It ends by itself after this and is forgotten, so that its node is not called bad for longer than it takes to tell:
#: by then the word is at the root, however late, and whoever ordered it has stopped waiting for that.
LENGTH_NS = 15 * SECOND
#: In every answer to an order for a drill that cannot begin only because of others.
UNDER_WAY = "under way"


def is_drill(app: str) -> bool:
    """True for the name of a drill."""
    return app.startswith(PREFIX)
