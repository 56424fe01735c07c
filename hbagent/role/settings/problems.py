"""What is wrong with a config file, in a form that leads to the place and the remedy.

A file is read to its end and all its problems come at once: who mends one typo and starts again only to meet the
next loses a restart for each. One problem is one line, in the form that editors and people know from compilers::

    etc/leader.toml:8: [detector]: unknown key "margn", did you mean "margin"?
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

#: Problems kept of one file. A person mends a handful at a time; a file of the wrong kind has one for each line.
PROBLEMS_MAX = 100
#: Characters of a value that a message repeats: enough to recognise it, short enough for a terminal's line.
SHOWN_MAX = 60
#: Words longer than this are not compared with anything: the comparison takes time with the square of the length.
WORD_MAX = 64


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing wrong with one file."""

    file: str
    #: Counted from 1; 0 when it is a matter of the whole file.
    line: int
    #: The table it is in, as a reader would say it: `[agent]`, `hook "pager"`; empty for the whole file.
    where: str
    text: str

    def __str__(self) -> str:
        line = f":{self.line}" if self.line else ""
        where = f" {self.where}:" if self.where else ""
        return f"{self.file}{line}:{where} {self.text}"


class ConfigError(Exception):
    """A config file that cannot be used; `problems` has every reason, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`, did you mean "timeout"?` for the known word nearest to `word`; empty when none is near."""
    if len(word) > WORD_MAX:
        return ""
    import difflib  # only for a file that is wrong: a daemon that starts well never pays for it

    near = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f', did you mean "{near[0]}"?' if near else ""


def show(value: Any) -> str:
    """A TOML value for a message: on one line, without control characters, at most `SHOWN_MAX` characters."""
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        # Python refuses to print integers of more than 4,300 digits, and TOML can write them in hexadecimal.
        return str(value) if value.bit_length() <= 128 else "a huge number"
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return "{...}" if value else "{}"
    if isinstance(value, list):
        return "[...]" if value else "[]"
    return str(value)


def _quoted(text: str) -> str:
    cut = text[:SHOWN_MAX]
    shown = "".join(_escaped(character) for character in cut)
    return f'"{shown}"' + ("..." if len(text) > SHOWN_MAX else "")


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() else f"\\u{ord(character):04x}"
