"""What stands in a pane, line by line, and which line is chosen. Pure.

A pane asks for the lines that it has room for, so ten thousand problems cost as much as twenty. The chosen line is
remembered by what it stands for, not by its place: when the list moves under the cursor, the cursor moves along. Only
at the very top, where it has not been moved yet, does it stay at the top.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from hbagent.cli.answers import Row, number, word
from hbagent.cli.grid import Cell, Screen, clean
from hbagent.cli.pieces import age, clock
from hbagent.core.states import IncidentState, Liveness

from .lines import Line, Spans, Target, columns, fitted, word_of
from .model import Host

#: A pane of this width has room for times, and for sentences.
WIDE = 90
#: What covers a host, as people say it.
COVERED = {"silence": "silenced", "maintenance": "maintenance"}

_Item = TypeVar("_Item")


class Listing(Protocol):
    """What a pane shows."""

    def title(self, width: int) -> Spans:
        """The line above."""

    def count(self, width: int) -> int:
        """How many lines there are at a width."""

    def line(self, at: int, width: int) -> Spans:
        """One of them; the chosen one is marked."""

    def cursor(self, width: int) -> int:
        """Which line is chosen."""

    def move(self, across: int, down: int, width: int) -> None:
        """Choose another: so many columns to the right, so many lines down."""

    def target(self) -> Target | None:
        """What the chosen line stands for."""


def mark(chosen: bool, screen: Screen) -> str:
    """In front of a line: whether it is chosen, without any colour."""
    return ("▶" if screen.unicode else ">") if chosen else " "


class Rows(Generic[_Item]):
    """A list with one line an item."""

    def __init__(self, screen: Screen, key: Callable[[_Item], Target | None]) -> None:
        self.screen = screen
        self.items: Sequence[_Item] = ()
        #: False until anything was heard: then an empty list is no good news.
        self.told = True
        self._key = key
        self._at = 0

    def show(self, items: Sequence[_Item]) -> None:
        """Have other items; what was chosen stays chosen, if it is still there."""
        if self._at and self._at < len(self.items):
            chosen = self._key(self.items[self._at])
            if self._at >= len(items) or self._key(items[self._at]) != chosen:
                self._at = next((at for at, item in enumerate(items) if self._key(item) == chosen), self._at)
        self.items = items
        self._at = min(self._at, max(0, len(items) - 1))

    def count(self, width: int) -> int:
        """One line an item; without any, one that says so."""
        return max(1, len(self.items))

    def cursor(self, width: int) -> int:
        """The chosen item."""
        return self._at

    def move(self, across: int, down: int, width: int) -> None:
        """Up and down; there is nothing to the side."""
        self._at = max(0, min(len(self.items) - 1, self._at + down))

    def target(self) -> Target | None:
        """What the chosen item stands for."""
        return self._key(self.items[self._at]) if self.items else None

    def line(self, at: int, width: int) -> Spans:
        """One item behind its mark."""
        if not self.items:
            return [Cell(f" {self.none() if self.told else 'nothing is known'}", "dim")]
        chosen = at == self._at
        pieces = fitted([Cell(mark(chosen, self.screen)), *self.cells(self.items[at], width - 1)], width, self.screen)
        return [Cell(text, f"{tone} chosen".strip()) for text, tone in pieces] if chosen else pieces

    def cells(self, item: _Item, width: int) -> Spans:
        """An item in a width."""
        raise NotImplementedError

    def none(self) -> str:
        """What is said when there is no item."""
        return "none"


class Problems(Rows[Host]):
    """Hosts with trouble."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(screen, lambda host: Target("node", host.name))
        self.sort = ""
        self.now = 0.0
        #: Wall time of the newest answer.
        self.at = ""
        self.total = 0
        #: What every name begins with and nobody needs to read; and the longest name without it.
        self.site = ""
        self.longest = 10

    def none(self) -> str:
        """Nothing is wrong, or nothing that the filter lets through."""
        return "none that the filter lets through" if self.total else "none"

    def title(self, width: int) -> Spans:
        """How many, and by what they are sorted."""
        arrow = "▼" if self.screen.unicode else "v"
        shown = f"{len(self.items)} of {self.total}" if len(self.items) != self.total else f"{self.total}"
        return [Cell(f" Problems ({shown})", "bold"), Cell(f"  by {self.sort} {arrow}", "dim")]

    def cells(self, item: Host, width: int) -> Spans:
        """Name, state, age, since and why."""
        wide = width >= WIDE
        short = item.name.removeprefix(self.site)
        name = min(self.longest, 40 if wide else max(10, width - 33))
        widths = (name, 12, 6, 9 if wide else 0, max(0, width - name - 12 - 6 - 3 - (10 if wide else 0)))
        heard = None if item.heard is None else max(0.0, self.now - item.heard)
        # The age of a host that lives is not told again and again.
        old = "-" if item.liveness == Liveness.ALIVE.value else age(heard)
        cells = (
            Cell(tail(clean(short, self.screen), name, self.screen)),
            word_of(item, self.screen),
            Cell(old.rjust(6)),
            Cell(clock(item.since, self.at, self.screen)),
            Cell(clean(why(item), self.screen)),
        )
        return columns(cells, widths, self.screen)


def why(host: Host) -> str:
    """Why a host is in its state, and why nobody is told: "silenced; process-exit"."""
    cause = host.cause if host.cause.upper() != host.state else ""
    notes = (COVERED.get(host.covered, host.covered), "flapping" if host.flapping else "", cause, host.text)
    return "; ".join(filter(None, notes)) or "-"


def tail(text: str, width: int, screen: Screen) -> str:
    """The end of a name that is too long: hosts of one rack begin alike."""
    if len(text) <= width:
        return text
    end = "…" if screen.unicode else "..."
    return end + text[len(text) - max(1, width - len(end)) :]


_INCIDENT_TONES = {
    IncidentState.FIRING.value: ("bad", ("✗", "x")),
    IncidentState.ACKNOWLEDGED.value: ("warn", ("!", "!")),
    IncidentState.RESOLVED.value: ("good", ("✓", "+")),
}


def incident_word(incident: Row, screen: Screen) -> Cell:
    """Where an incident stands: "✗ firing", "- silenced"."""
    state = word(incident, "state")
    tone, symbols = _INCIDENT_TONES.get(state, ("unknown", ("?", "?")))
    if state != IncidentState.RESOLVED.value:
        for key, told in (("inhibited_by", "inhibited"), ("silenced_by", "silenced")):
            if incident.get(key):
                return Cell(f"- {told}", "dim")
    return Cell(f"{symbols[0 if screen.unicode else 1]} {clean(state, screen) or '?'}", tone)


class Incidents(Rows[Row]):
    """Incidents that are not over."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(screen, lambda incident: Target("incident", word(incident, "incident")))

    def title(self, width: int) -> Spans:
        """How many."""
        return [Cell(f" Incidents ({len(self.items)})", "bold")]

    def cells(self, item: Row, width: int) -> Spans:
        """Id, state, age, how many burn, and what it is about."""
        burning, count = number(item, "burning") or 0, number(item, "count") or 0
        about = word(item, "text") or " ".join(filter(None, (word(item, "rack"), word(item, "cause"))))
        old = 6 if width >= WIDE else 0
        widths = (6, 14, old, 7, max(0, width - 6 - 14 - old - 7 - 3 - (old > 0)))
        cells = (
            Cell(clean(word(item, "incident"), self.screen)),
            incident_word(item, self.screen),
            Cell(age(number(item, "age_s"), "?").rjust(6)),
            Cell(f"{burning:.0f}/{count:.0f}".rjust(7)),
            Cell(clean(about, self.screen)),
        )
        return columns(cells, widths, self.screen)


class Page(Rows[Line]):
    """A page of text; some of its lines lead further."""

    def __init__(self, screen: Screen, head: str) -> None:
        super().__init__(screen, lambda line: line.target)
        self.head = head

    def show(self, items: Sequence[Line]) -> None:
        """Have other lines; the cursor stays where it is, for a text has no lines that could be told apart."""
        self.items = items
        self._at = min(self._at, max(0, len(items) - 1))

    def title(self, width: int) -> Spans:
        """What it is about."""
        return [Cell(f" {clean(self.head, self.screen)}", "bold")]

    def cells(self, item: Line, width: int) -> Spans:
        """The line as it is."""
        return item.spans
