"""Globs: what an operator writes to mean many nodes, racks, causes or kinds of event at once.

`*` is any text, `?` one character, `[abc]` and `[a-z]` one of these, `[!abc]` one of the others; upper and lower case
differ, and the whole text must fit. A glob of a node or a rack without a slash is compared with the last part of the
name: `web*` fits dc1/r12/web3, and so does `dc1/*/web?`.

Between two stars stands a piece of fixed length, and the leftmost place where a piece fits is as good as any other.
So no place is ever taken back, and a glob costs its length times that of the text at worst, whatever it is made of.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import lru_cache

from .names import NAME_LENGTH_MAX, rack_of, short_of
from .records import Matcher
from .states import Cause, Kind

#: Longest glob: nothing longer fits a name.
GLOB_LENGTH_MAX = NAME_LENGTH_MAX
#: Globs of each kind in one matcher; whoever means more hosts means a rack, or has a program that makes two silences.
GLOBS_MAX = 100
#: Compiled globs kept. They can be made anew at any time.
_COMPILED = 4_096
#: Globs that fit nothing, named to whoever wrote them.
_NAMED = 5


class Glob:
    """One glob, ready to be compared. Raises ValueError, a sentence for people, for one that means nothing."""

    __slots__ = ("_ends", "_exact", "_inner", "_starts", "pattern")

    def __init__(self, pattern: str) -> None:
        if not pattern or len(pattern) > GLOB_LENGTH_MAX or not pattern.isprintable():
            raise ValueError(f"a glob has 1 to {GLOB_LENGTH_MAX} printable characters; this one has {len(pattern)}")
        self.pattern = pattern
        pieces = _split(pattern)
        #: The text begins with the first piece and ends with the last, which are one where there is no star; the
        #: others follow one another in between.
        self._exact = len(pieces) == 1
        self._starts, self._ends = _Piece(pieces[0]), _Piece(pieces[-1])
        self._inner = [_Piece(piece) for piece in pieces[1:-1] if piece]

    @property
    def hint(self) -> str:
        """A text that stands in every text that fits; "" when none is known."""
        return max(
            (piece.text for piece in (self._starts, *self._inner, self._ends) if piece.plain), key=len, default=""
        )

    def fits(self, text: str) -> bool:
        """True when the whole text fits."""
        end = len(text) - self._ends.length
        if self._exact:
            return end == 0 and self._starts.stands(text, 0)
        begin = self._starts.length
        if end < begin or not self._starts.stands(text, 0) or not self._ends.stands(text, end):
            return False
        for piece in self._inner:
            at = piece.find(text, begin, end)
            if at < 0:
                return False
            begin = at + piece.length
        return True


class _Piece:
    """What stands between two stars. Most are plain text, which strings compare faster than expressions do."""

    __slots__ = ("_expression", "length", "plain", "text")

    def __init__(self, elements: list[str]) -> None:
        self.length = len(elements)
        self.text = "".join(elements)
        self.plain = all(len(element) == 1 and element != "?" for element in elements)
        self._expression = None if self.plain else re.compile("".join(map(_element, elements)), re.DOTALL)

    def stands(self, text: str, at: int) -> bool:
        """True when it stands at `at`."""
        if self._expression is None:
            return text.startswith(self.text, at)
        return self._expression.match(text, at) is not None

    def find(self, text: str, begin: int, end: int) -> int:
        """The first place of it between `begin` and `end`; -1 for none."""
        if self._expression is None:
            return text.find(self.text, begin, end)
        found = self._expression.search(text, begin, end)
        return -1 if found is None else found.start()


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


class Place:
    """The part of a matcher that is about node and rack, ready to be compared with thousands of them."""

    __slots__ = ("_nodes", "_racks", "hints")

    def __init__(self, matcher: Matcher) -> None:
        self._nodes = _compiled(matcher.node)
        self._racks = _compiled(matcher.rack)
        #: Every node that fits has one of these in its name: a look at that is ten times as fast as a comparison.
        self.hints = tuple(each.hint for _, each in self._nodes) or ("",)

    def fits_node(self, node: str) -> bool:
        """True when the node fits, whatever its rack. What is about no node has the node "", and only a matcher
        without globs of nodes fits that; the same with racks."""
        return _fits_name(self._nodes, node)

    def fits_rack(self, rack: str) -> bool:
        """True when the rack fits, whatever the node."""
        return _fits_name(self._racks, rack)


def _compiled(globs: tuple[str, ...]) -> tuple[tuple[bool, Glob], ...]:
    """Each glob, and whether it is compared with the whole name."""
    return tuple(("/" in pattern, glob(pattern)) for pattern in globs)


def _fits_name(globs: tuple[tuple[bool, Glob], ...], name: str) -> bool:
    if not globs:
        return True
    short = short_of(name)
    return name != "" and any(each.fits(name if whole else short) for whole, each in globs)


def fits_matter(matcher: Matcher, cause: str, kind: str) -> bool:
    """True when cause and kind fit, "" for none."""
    return _fits_word(matcher.cause, cause) and _fits_word(matcher.kind, kind)


def _fits_word(globs: tuple[str, ...], word: str) -> bool:
    return not globs or (word != "" and any(glob(pattern).fits(word) for pattern in globs))


def fits_nobody(matcher: Matcher, nodes: Collection[str], racks: Collection[str], leaders: Collection[str]) -> str:
    """Which globs of nodes and racks fit nothing of what is known, in words; "" when each fits something, and together
    they do. A typo covers nothing, and whoever made it would be woken, or would not sleep."""
    missing = [("node", pattern) for pattern in _missing(matcher.node, nodes)]
    missing += [("rack", pattern) for pattern in _missing(matcher.rack, racks)]
    together = not matcher.node and len(missing) < len(matcher.rack)
    if matcher.node:
        place = Place(matcher)
        fitting = {rack for rack in racks if place.fits_rack(rack)} if matcher.rack else None
        together = any(
            (fitting is None or rack_of(node) in fitting)
            and any(hint in node for hint in place.hints)
            and place.fits_node(node)
            for node in nodes
        )
    if (together and not missing) or not (matcher.node or matcher.rack):
        return ""
    names = [f"no {what} {pattern}" for what, pattern in missing]
    said = ", ".join(names[:_NAMED]) or "no such node in such a rack"
    if len(names) > _NAMED:
        said += f" and {len(names) - _NAMED} more"
    if len(_missing([pattern for _, pattern in missing], leaders)) < len(missing):
        said += " (a leader is covered with its rack)"
    return f"{'some of it' if together else 'it'} fits nothing that is known now: {said}"


def _missing(patterns: Iterable[str], names: Collection[str]) -> list[str]:
    """The globs that fit none of the names."""
    # Whoever orders much is not to hold up the root: most globs that fit nothing have a text that stands nowhere.
    everything = "\n".join(names)
    found = []
    for pattern in patterns:
        one = glob(pattern)
        hint, whole = one.hint, "/" in pattern
        if hint not in everything or not any(
            hint in name and one.fits(name if whole else short_of(name)) for name in names
        ):
            found.append(pattern)
    return found
