"""The words of every view: a state with its symbol, how long ago, and when. Pure.

Each is one small text that has passed `clean`, so that a state, an age or a time looks the same wherever it stands.
"""

from __future__ import annotations

from hbagent.core.units import seconds, show_duration

from .answers import seconds_between
from .grid import Cell, Screen, clean

#: The symbol of each tone, and that of a screen that has ASCII alone.
SYMBOLS = {"bad": ("✗", "x"), "warn": ("!", "!"), "unknown": ("?", "?"), "good": ("✓", "+"), "away": ("-", "-")}
#: The tone of each state; that of a word that is not here is "unknown".
TONES_OF = {
    **dict.fromkeys(("ALIVE", "OK"), "good"),
    **dict.fromkeys(("SUSPECT", "WARNING", "STALLED", "DEGRADED"), "warn"),
    **dict.fromkeys(("DEAD", "CRITICAL", "DEADLOCKED", "DARK"), "bad"),
    **dict.fromkeys(("UNKNOWN", "LEADER-LOST"), "unknown"),
    "LEFT": "away",
    # Incidents and silences.
    "firing": "bad",
    **dict.fromkeys(("acknowledged", "pending"), "warn"),
    **dict.fromkeys(("resolved", "active"), "good"),
    **dict.fromkeys(("ended", "silenced", "inhibited"), "away"),
}


def state_cell(state: str, screen: Screen) -> Cell:
    """A state as symbol and word: "✗ DEAD"."""
    tone = TONES_OF.get(state, "unknown")
    return Cell(f"{SYMBOLS[tone][0 if screen.unicode else 1]} {clean(state, screen)}", tone)


def age(value_s: float | None, missing: str = "never") -> str:
    """Seconds for people: "85ms", "1.2s", "3m05s"."""
    if value_s is None:
        return missing
    return show_duration(seconds(value_s)) if value_s >= 0.001 else "0ms"


def clock(at: str, now: str, screen: Screen) -> str:
    """An RFC 3339 time as short as it can be told: "12:00:03Z" on the day of `now`, else "2026-11-20 12:00Z"."""
    if not is_told(at):
        return "-"
    if seconds_between(at, at) is None:
        return clean(at, screen)
    return f"{at[11:19]}Z" if at[:10] == now[:10] else f"{at[:10]} {at[11:16]}Z"


def is_told(at: str) -> bool:
    """False for the time 0, by which a daemon says that it does not know."""
    return bool(at) and not at.startswith("1970-01-01T00:00:00")
