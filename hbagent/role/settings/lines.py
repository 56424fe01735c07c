"""On which line of a TOML text each key and each list item stands.

The TOML parser gives values without positions, and an error without a line sends its reader searching. So a text
that turned out to hold a wrong value is walked a second time, for positions only. The walk leans on the parser: it
sees only text that the parser accepted, so it need not check anything and just steps over values.

A place is a path of keys and list indices: `("hook", 1, "timeout")` is the timeout of the second `[[hook]]`.
"""

from __future__ import annotations

import contextlib
import re
from bisect import bisect_right
from typing import Union

import tomli

Place = tuple[Union[str, int], ...]

_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
#: Numbers, booleans and times; a time may hold a space, so only what ends a value ends it.
_SCALAR = re.compile(r"[^,\]}#\n]+")


class Lines:
    """The line of each place in `text`, which must be valid TOML."""

    def __init__(self, text: str) -> None:
        walk = _Walk(text)
        # Where the walk ends early, what was found before stays; the rest falls back to the table around it.
        with contextlib.suppress(RecursionError, _Lost):
            walk.document()
        starts = [match.end() for match in re.finditer("\n", text)]
        self._lines = {place: bisect_right(starts, position) + 1 for place, position in walk.positions.items()}

    def of(self, place: Place) -> int:
        """The line of `place`, or of the nearest thing around it that has one; 0 for the whole file."""
        while place and place not in self._lines:
            place = place[:-1]
        return self._lines.get(place, 0)


class _Lost(Exception):
    """The walk met something that it does not know."""


class _Walk:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self.positions: dict[Place, int] = {}
        #: How many `[[name]]` headers each place has had so far.
        self._counts: dict[Place, int] = {}

    def document(self) -> None:
        table: Place = ()
        while self._skip_blank():
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Place:
        start = self._at
        repeated = self._text.startswith("[[", start)
        self._at += 2 if repeated else 1
        place: Place = ()
        parts = self._key()
        for depth, part in enumerate(parts, 1):
            place += (part,)
            self.positions.setdefault(place, start)
            count = self._counts.get(place, 0)
            if repeated and depth == len(parts):
                self._counts[place] = count + 1
                place += (count,)
            elif count:
                place += (count - 1,)
            self.positions.setdefault(place, start)
        # A table that an earlier header only implied (`[a.b]` before `[a]`) has its line where it stands itself.
        self.positions[place] = start
        self._skip_blank()
        self._expect("]]" if repeated else "]")
        return place

    def _pair(self, table: Place) -> None:
        start = self._at
        place = table
        for part in self._key():
            place += (part,)
            self.positions.setdefault(place, start)
        self._expect("=")
        self._value(place)

    def _key(self) -> list[str]:
        parts = []
        while True:
            self._skip_blank()
            parts.append(self._key_part())
            self._skip_blank()
            if not self._text.startswith(".", self._at):
                return parts
            self._at += 1

    def _key_part(self) -> str:
        if self._text[self._at : self._at + 1] in ('"', "'"):
            quoted = self._match(_STRING)
            return str(tomli.loads(f"key = {quoted}")["key"])
        return self._match(_BARE_KEY)

    def _value(self, place: Place) -> None:
        self._skip_blank()
        opening = self._text[self._at : self._at + 1]
        if opening == "[":
            self._array(place)
        elif opening == "{":
            self._inline_table(place)
        elif opening in ('"', "'"):
            self._match(_STRING)
        else:
            self._match(_SCALAR)

    def _array(self, place: Place) -> None:
        self._at += 1
        index = 0
        while not self._closes("]"):
            self.positions.setdefault((*place, index), self._at)
            self._value((*place, index))
            index += 1
            self._skip_comma()

    def _inline_table(self, place: Place) -> None:
        self._at += 1
        while not self._closes("}"):
            self._pair(place)
            self._skip_comma()

    def _closes(self, bracket: str) -> bool:
        if not self._skip_blank():
            raise _Lost
        if self._text[self._at] != bracket:
            return False
        self._at += 1
        return True

    def _skip_comma(self) -> None:
        self._skip_blank()
        if self._text.startswith(",", self._at):
            self._at += 1

    def _skip_blank(self) -> bool:
        """Step over white space and comments; False at the end of the text."""
        match = _BLANK.match(self._text, self._at)
        if match is not None:
            self._at = match.end()
        return self._at < len(self._text)

    def _expect(self, token: str) -> None:
        if not self._text.startswith(token, self._at):
            raise _Lost
        self._at += len(token)

    def _match(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise _Lost
        self._at = match.end()
        return match.group()
