"""Text in columns for a terminal of some width: the pieces that `render` builds its views from. Pure.

Whatever came from elsewhere passes `clean` before it becomes a `Cell`, so no name, cause or message can move a
cursor or change a title. A `Grid` makes room by leaving out its least important columns; where there is no width, on
a pipe, nothing is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

#: Longest text of one cell; what is longer is a defect or an attempt to flood the terminal.
TEXT_LENGTH_MAX = 500
#: A column that is cut leaves at least this much, or it says nothing.
CUT_LENGTH_MIN = 12

#: The SGR codes of each tone.
TONES = {"bad": "1;31", "warn": "33", "unknown": "35", "good": "32", "away": "2", "dim": "2", "bold": "1"}


class Screen(msgspec.Struct, frozen=True, kw_only=True):
    """What the terminal can show; the default is a pipe that takes UTF-8."""

    colour: bool = False
    #: False when only ASCII arrives as it should.
    unicode: bool = True
    #: Columns and lines; None when there is no limit.
    width: int | None = None
    height: int | None = None


class Cell(NamedTuple):
    """A text and its tone, one of `TONES`."""

    text: str
    tone: str = ""


class Column(NamedTuple):
    """One column of a table."""

    title: str
    #: The column with the highest rank is left out first when the screen is narrow; those of rank 0 always stay.
    rank: int = 0
    right: bool = False
    #: May be cut at its end when it is the last one on a narrow screen: a sentence, never a name.
    cut: bool = False


def clean(text: str, screen: Screen) -> str:
    """`text` on one line without anything that a terminal would obey: control, format and private characters, and
    lone surrogates, are written as escapes; on an ASCII screen so is everything beyond it."""
    short = text if len(text) <= TEXT_LENGTH_MAX else text[: TEXT_LENGTH_MAX - 3] + "..."
    return "".join(_shown(character, screen.unicode) for character in short)


def _shown(character: str, unicode: bool) -> str:
    if character.isprintable() and (unicode or character.isascii()):
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def paint(text: str, tone: str, screen: Screen) -> str:
    """`text` in the colour of a tone, where the screen has colours."""
    return f"\x1b[{TONES[tone]}m{text}\x1b[0m" if screen.colour and tone and text else text


def cut(text: str, screen: Screen, used: int = 0) -> str:
    """`text` cut to what the line has room for after `used` columns."""
    if screen.width is None or len(text) <= screen.width - used:
        return text
    end = "…" if screen.unicode else "..."
    return text[: max(0, screen.width - used - len(end))] + end


class Grid:
    """A table that can go on: its columns are chosen for the first rows, later rows only widen them."""

    def __init__(self, columns: Sequence[Column], screen: Screen) -> None:
        self._columns = columns
        self.screen = screen
        self._widths = [len(column.title) for column in columns]
        self._kept: list[int] | None = None

    def lines(self, table: Sequence[Sequence[Cell]], header: bool = True) -> list[str]:
        """The rows as lines of equal columns, two spaces apart, under their titles."""
        for cells in table:
            self._widths = [max(width, len(cell.text)) for width, cell in zip(self._widths, cells, strict=True)]
        if self._kept is None:
            self._kept = self._fitting()
        titles = [Cell(column.title, "bold") for column in self._columns]
        return [self._line(cells) for cells in ([titles] if header else []) + list(table)]

    def _fitting(self) -> list[int]:
        kept = list(range(len(self._columns)))
        while self.screen.width is not None and self._width(kept) > self.screen.width:
            least = max(kept, key=lambda at: self._columns[at].rank)
            if not self._columns[least].rank:
                break
            kept.remove(least)
        return kept

    def _width(self, kept: Sequence[int]) -> int:
        needed = [self._widths[at] for at in kept]
        if self._columns[kept[-1]].cut:
            needed[-1] = min(needed[-1], CUT_LENGTH_MIN)
        return sum(needed) + 2 * (len(kept) - 1)

    def _line(self, cells: Sequence[Cell]) -> str:
        assert self._kept is not None
        parts = []
        used = 0
        for at in self._kept:
            text, tone = cells[at]
            last = at == self._kept[-1]
            if self._columns[at].right:
                text = text.rjust(self._widths[at])
            elif not last:
                text = text.ljust(self._widths[at])
            elif self._columns[at].cut:
                text = cut(text, self.screen, used)
            used += len(text) + 2
            parts.append(paint(text, tone, self.screen))
        return "  ".join(parts).rstrip()
