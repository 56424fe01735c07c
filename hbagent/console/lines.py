"""Lines of the console: pieces of text with a tone each, fitted to a width. Pure.

The commands of `cli` already say everything in words; `spans` takes their painted lines apart again, so that the
console says the same. Only a terminal's own sequences that `grid.paint` wrote can be in such a line, for everything
that came from elsewhere has been cleaned.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hbagent.cli.grid import TONES, Cell, Screen, clean
from hbagent.cli.pieces import state_cell
from hbagent.core.states import Cause, Health, Liveness

from .model import Host

Spans = list[Cell]


class Target(NamedTuple):
    """What a line stands for: a host, rack, incident, silence or bundle, and which."""

    kind: str
    name: str
    #: Of a bundle: of which application.
    app: str = ""


class Line(NamedTuple):
    """One line, and what Enter does with it."""

    spans: Spans
    target: Target | None = None


_PAINTED = re.compile(r"\x1b\[([0-9;]*)m")
_TONE_OF = {code: tone for tone, code in TONES.items()}

#: One character for each trouble of a host, so that it is told without colour: signs for liveness, letters for health.
_SIGNS = {
    Liveness.DEAD.value: ("✗", "x"),
    Liveness.UNKNOWN.value: ("?", "?"),
    Liveness.SUSPECT.value: ("!", "!"),
    Liveness.LEFT.value: ("-", "-"),
    Liveness.ALIVE.value: ("✓", "+"),
    Health.DEADLOCKED.value: ("D", "D"),
    Health.CRITICAL.value: ("C", "C"),
    Health.STALLED.value: ("S", "S"),
    Health.WARNING.value: ("W", "W"),
    "health UNKNOWN": ("h", "h"),
    Cause.LINK_CUT.value: ("≠", "%"),
}
_TONE_OF_SIGN = {"health UNKNOWN": "unknown", Cause.LINK_CUT.value: "warn"}


def spans(line: str) -> Spans:
    """A painted line of `cli.render` as pieces."""
    pieces: Spans = []
    tone = ""
    for at, part in enumerate(_PAINTED.split(line)):
        if at % 2:
            tone = _TONE_OF.get(part, "")
        elif part:
            pieces.append(Cell(part, tone))
    return pieces


def plain(pieces: Iterable[Cell]) -> str:
    """The text alone."""
    return "".join(piece.text for piece in pieces)


def fitted(pieces: Spans, width: int, screen: Screen) -> Spans:
    """As much as a width has room for; what is cut ends in an ellipsis."""
    used = 0
    for at, (text, tone) in enumerate(pieces):
        if used + len(text) > width:
            end = "…" if screen.unicode else "..."
            kept = max(0, width - used - len(end))
            return [*pieces[:at], Cell((text[:kept] + end)[: max(0, width - used)], tone)]
        used += len(text)
    return pieces


def wrapped(pieces: Spans, width: int) -> list[Spans]:
    """The same on as many lines as it takes, broken between words; further lines are two columns further in."""
    text = plain(pieces)
    if len(text) <= width:
        return [pieces]
    indent = min(len(text) - len(text.lstrip()) + 2, max(0, width // 2))
    lines: list[Spans] = []
    start = 0
    while start < len(text):
        room = width - (indent if lines else 0)
        end = start + room
        if end < len(text):
            space = text.rfind(" ", start + 1, end + 1)
            end = space if space > start + indent else end
        piece = _slice(pieces, start, end)
        lines.append([Cell(" " * indent), *piece] if lines else piece)
        start = end + (text[end : end + 1] == " ")
    return lines


def _slice(pieces: Spans, start: int, end: int) -> Spans:
    found: Spans = []
    at = 0
    for text, tone in pieces:
        part = text[max(0, start - at) : max(0, end - at)]
        if part:
            found.append(Cell(part, tone))
        at += len(text)
    return found


def columns(cells: Sequence[Cell], widths: Sequence[int], screen: Screen) -> Spans:
    """Cells at fixed widths, one space apart; each is cut to its own, a width of 0 is left out."""
    found: Spans = []
    for (text, tone), width in zip(cells, widths, strict=True):
        if not width:
            continue
        (cell,) = fitted([Cell(text, tone)], width, screen)
        if found:
            found.append(Cell(" "))
        found.append(Cell(cell.text.ljust(width), tone))
    return found


def sign(host: Host, screen: Screen) -> Cell:
    """A host as one character with a tone; one that is silenced keeps its character and steps back."""
    state = host.state
    tone = "dim" if host.covered and state != Liveness.ALIVE.value else tone_of(state)
    return Cell(_SIGNS.get(state, ("?", "?"))[0 if screen.unicode else 1], tone)


def tone_of(state: str) -> str:
    """The tone of a state or trouble."""
    return _TONE_OF_SIGN.get(state) or state_cell(state, Screen()).tone


def word_of(host: Host, screen: Screen) -> Cell:
    """A host's worst trouble as sign and word: "✗ DEAD"."""
    one = sign(host, screen)
    return Cell(f"{one.text} {clean(host.state, screen)}", one.tone)


def legend(screen: Screen) -> list[Spans]:
    """What each sign of the grid means."""
    at = 0 if screen.unicode else 1
    words = {
        Liveness.DEAD.value: "DEAD: nobody reaches the agent",
        Liveness.UNKNOWN.value: "UNKNOWN: nobody can tell",
        Liveness.SUSPECT.value: "SUSPECT: silent, and being asked",
        Liveness.LEFT.value: "LEFT: said goodbye",
        Liveness.ALIVE.value: "ALIVE, and well",
        Health.DEADLOCKED.value: "DEADLOCKED: proved",
        Health.CRITICAL.value: "CRITICAL",
        Health.STALLED.value: "STALLED: no progress",
        Health.WARNING.value: "WARNING",
        "health UNKNOWN": "alive, and its health is not known",
        Cause.LINK_CUT.value: "alive, and a leader cannot reach it",
    }
    signs = [[Cell(f"  {_SIGNS[state][at]}", tone_of(state)), Cell(f"  {text}")] for state, text in words.items()]
    return [*signs, [Cell("  ~  before a rack: nothing new is known of it")]]
