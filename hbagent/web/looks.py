"""How a state looks: one symbol, one word and one tone for whatever is worst of a node; never a colour alone. Pure."""

from __future__ import annotations

from typing import NamedTuple

from hbagent.core.states import Cause, Health, Liveness, RackState
from hbagent.core.views import Cell


class Look(NamedTuple):
    """One line of the legend. Symbols speak of liveness, letters of health."""

    key: str
    symbol: str
    word: str
    #: bad, warn, unknown, good or away: a class of the style sheet.
    tone: str


#: Worst first.
LOOKS = (
    Look("dead", "✗", "DEAD", "bad"),
    Look("deadlocked", "D", "DEADLOCKED", "bad"),
    Look("critical", "C", "CRITICAL", "bad"),
    Look("unknown", "?", "UNKNOWN", "unknown"),
    Look("suspect", "!", "SUSPECT", "warn"),
    Look("stalled", "S", "STALLED", "warn"),
    Look("warning", "W", "WARNING", "warn"),
    Look("cut", "~", "ALIVE, link cut", "warn"),
    Look("left", "-", "LEFT", "away"),
    Look("blank", "·", "ALIVE, health not known", "blank"),
    Look("alive", "✓", "ALIVE and OK", "good"),
)
LOOK = {look.key: look for look in LOOKS}
RANK = {look.key: rank for rank, look in enumerate(LOOKS)}
#: Looks that are nobody's trouble.
WELL = ("alive", "blank", "left")

_OF_LIVENESS = {
    Liveness.DEAD: "dead",
    Liveness.UNKNOWN: "unknown",
    Liveness.SUSPECT: "suspect",
    Liveness.LEFT: "left",
}
_OF_HEALTH = {
    Health.DEADLOCKED: "deadlocked",
    Health.CRITICAL: "critical",
    Health.STALLED: "stalled",
    Health.WARNING: "warning",
    Health.UNKNOWN: "blank",
    Health.OK: "alive",
}
_TONES = {"OK": "good", "DEGRADED": "warn", "DARK": "bad", "LEADER-LOST": "unknown", "UNKNOWN": "unknown"}
_SYMBOLS = {"good": "✓", "warn": "!", "bad": "✗", "unknown": "?", "away": "-"}


def look_of(cell: Cell) -> str:
    """The key of what is worst of a node."""
    seen = _OF_LIVENESS.get(cell.liveness, "alive")
    if seen == "alive" and cell.cause == Cause.LINK_CUT.value:
        seen = "cut"
    if cell.liveness not in (Liveness.ALIVE, Liveness.SUSPECT):
        return seen
    health = _OF_HEALTH[cell.health]
    return seen if RANK[seen] < RANK[health] else health


def tone_of(state: str) -> str:
    """The tone of any state's word."""
    for look in LOOKS:
        if look.word == state:
            return look.tone
    return _TONES.get(state, "good" if state == Liveness.ALIVE.value else "unknown")


def marked(state: str) -> str:
    """A state's word with its symbol: "✗ DEAD"."""
    return f"{_SYMBOLS[tone_of(state)]} {state}"


def verdict_of(counts: dict[str, int], states: dict[str, int]) -> tuple[str, str]:
    """Word and tone for everything, from nodes by look and racks by state: graded as `hbagent status` exits."""
    tones = {look.tone for look in LOOKS if counts.get(look.key)}
    if "bad" in tones or states.get(RackState.DARK.value):
        return "CRITICAL", "bad"
    if "unknown" in tones or states.get(RackState.LEADER_LOST.value) or states.get(RackState.UNKNOWN.value):
        return "UNKNOWN", "unknown"
    if counts.get("suspect") or counts.get("stalled") or counts.get("warning"):
        return "WARNING", "warn"
    return "OK", "good"
