"""Globs: what an operator writes to mean many nodes, racks, causes or kinds of event at once.

`*` is any text, `?` one character, `[abc]` and `[a-z]` one of these, `[!abc]` one of the others; upper and lower case
differ, and the whole text must fit. A glob of a node or a rack without a slash is compared with the last part of the
name: `web*` fits dc1/r12/web3, and so does `dc1/*/web?`.

Between two stars stands a piece of fixed length, and the leftmost place where a piece fits is as good as any other.
So no place is ever taken back, and a glob costs its length times that of the text at worst, whatever it is made of.
"""

from __future__ import annotations

import re
from functools import lru_cache

from .names import NAME_LENGTH_MAX, short_of
from .records import Matcher
from .states import Cause, Kind

#: Longest glob: nothing longer fits a name.
GLOB_LENGTH_MAX = NAME_LENGTH_MAX
#: Globs of each kind in one matcher; whoever means more hosts means a rack, or has a program that makes two silences.
GLOBS_MAX = 100
#: Compiled globs kept. They can be made anew at any time.
_COMPILED = 4_096


class Glob:
    """One glob, ready to be compared. Raises ValueError, a sentence for people, for one that means nothing."""

    __slots__ = ("_exact", "_first", "_inner", "_last", "_length_min", "pattern")

    def __init__(self, pattern: str) -> None:
        if not pattern or len(pattern) > GLOB_LENGTH_MAX or not pattern.isprintable():
            raise ValueError(f"a glob has 1 to {GLOB_LENGTH_MAX} printable characters; this one has {len(pattern)}")
        self.pattern = pattern
        #: The text itself, of a glob that is none.
        self._exact: str | None = None
        pieces = [_expression(piece) for piece in _split(pattern)]
        if len(pieces) == 1 and not re.search(r"[?[]", pattern):
            self._exact = pattern
        #: What the text begins and ends with, and what must follow one another in between.
        self._first = re.compile(pieces[0][0], re.DOTALL).match
        self._last = re.compile(pieces[-1][0] + r"\Z", re.DOTALL).match
        self._inner = [(re.compile(source, re.DOTALL), length) for source, length in pieces[1:-1] if length]
        self._length_min = (pieces[0][1], pieces[-1][1] if len(pieces) > 1 else -1)

    def fits(self, text: str) -> bool:
        """True when the whole text fits."""
        if self._exact is not None:
            return text == self._exact
        begin, tail = self._length_min
        if tail < 0:
            return len(text) == begin and self._first(text) is not None
        end = len(text) - tail
        if end < begin or self._first(text) is None or self._last(text, end) is None:
            return False
        for expression, length in self._inner:
            found = expression.search(text, begin, end)
            if found is None:
                return False
            begin = found.start() + length
        return True


def _split(pattern: str) -> list[list[str]]:
    """The pieces between the stars; a piece as its elements: a character, "?" or a class with its brackets."""
    pieces: list[list[str]] = [[]]
    at = 0
    while at < len(pattern):
        if pattern[at] == "*":
            pieces.append([])
        elif pattern[at] == "[":
            # A bracket right at the beginning of a class stands for itself.
            first = at + 2 if pattern[at + 1 : at + 2] == "!" else at + 1
            end = pattern.find("]", first + 1)
            if end < 0:
                raise ValueError(f"{pattern!r} has a [ without its ]")
            pieces[-1].append(pattern[at : end + 1])
            at = end
        else:
            pieces[-1].append(pattern[at])
        at += 1
    return pieces


def _expression(piece: list[str]) -> tuple[str, int]:
    """A piece as a regular expression of fixed length, and that length."""
    return "".join(_element(element) for element in piece), len(piece)


def _element(element: str) -> str:
    if element == "?":
        return "."
    if len(element) == 1:
        return re.escape(element)
    inside = element[1:-1]
    negated = inside.startswith("!")
    inside = inside[1:] if negated else inside
    parts = []
    at = 0
    while at < len(inside):
        low, high = inside[at], inside[at]
        if at + 2 < len(inside) and inside[at + 1] == "-":
            high = inside[at + 2]
            at += 2
        if low > high:
            raise ValueError(f"{element!r} runs backwards from {low} to {high}")
        parts.append(f"{re.escape(low)}-{re.escape(high)}")
        at += 1
    return f"[{'^' if negated else ''}{''.join(parts)}]"


@lru_cache(_COMPILED)
def glob(pattern: str) -> Glob:
    """The compiled glob, made once. Raises ValueError."""
    return Glob(pattern)


def check(matcher: Matcher) -> None:
    """Raises ValueError, a sentence for people, when a matcher means nothing, or everything without saying so."""
    if not (matcher.node or matcher.rack or matcher.cause or matcher.kind):
        raise ValueError("say what it is to cover: a node, a rack, a cause or a kind of event")
    for globs in (matcher.node, matcher.rack, matcher.cause, matcher.kind):
        if len(globs) > GLOBS_MAX:
            raise ValueError(f"at most {GLOBS_MAX} globs of one kind; these are {len(globs)}")
        for pattern in globs:
            glob(pattern)
    for what, globs, words in (
        ("cause", matcher.cause, tuple(cause.value for cause in Cause)),
        ("kind of event", matcher.kind, tuple(kind.value for kind in Kind)),
    ):
        for pattern in globs:
            if not any(glob(pattern).fits(word) for word in words):
                raise ValueError(f"{pattern!r} fits no {what}; there are {', '.join(words)}")


def fits_place(matcher: Matcher, node: str, rack: str) -> bool:
    """True when node and rack fit. What is about no node has the node "", and only a matcher without globs of nodes
    fits that; the same with racks."""
    return _fits_name(matcher.node, node) and _fits_name(matcher.rack, rack)


def fits_matter(matcher: Matcher, cause: str, kind: str) -> bool:
    """True when cause and kind fit, "" for none."""
    return _fits_word(matcher.cause, cause) and _fits_word(matcher.kind, kind)


def fits(matcher: Matcher, *, node: str, rack: str, cause: str, kind: str) -> bool:
    """True when all of it fits."""
    return fits_place(matcher, node, rack) and fits_matter(matcher, cause, kind)


def _fits_name(globs: tuple[str, ...], name: str) -> bool:
    if not globs:
        return True
    if not name:
        return False
    short = short_of(name)
    return any(glob(pattern).fits(name if "/" in pattern else short) for pattern in globs)


def _fits_word(globs: tuple[str, ...], word: str) -> bool:
    return not globs or (word != "" and any(glob(pattern).fits(word) for pattern in globs))
