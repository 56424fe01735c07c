"""Which minor brought what, so that a sender can leave it out for whoever reads an older one.

Think of a letter to somebody who knows fewer words: a field that he does not know is left out, a word that he does not
know becomes the "don't know" of its axis, exactly as he would have read it himself (`wire.newer`), and a letter of a
kind that he does not know is not written. Everything not named here was there from the first.

Only what differs costs anything: a struct in which nothing is newer is handed on as it is, however much is in it.
"""

from __future__ import annotations

import enum
import functools
import typing
from collections.abc import Iterator
from typing import Any

import msgspec

from hbagent.core import messages as m
from hbagent.core.states import Kind

from . import newer
from .version import MINOR

#: Of each type of message that a later minor added.
TYPE_SINCE: dict[type, int] = {
    m.EvidenceWanted: 1,
    m.EvidencePage: 1,
    m.DrillWanted: 1,
    m.DrillBegun: 1,
    m.Order: 2,
    m.Welcome: 3,
}
#: Of each field that a later minor added to a struct, in a message or inside of one.
FIELD_SINCE: dict[type, dict[str, int]] = {
    m.Report: {"apps": 1, "window_ns": 1},
    m.ProbeResult: dict.fromkeys(("kind", "soft", "attempts", "since_ns", "app", "measures"), 1),
    m.Evidence: {"changes": 1},
    m.Transition: {"report": 1},
    m.Query: {"app": 1, "bundle": 1, "drill": 1, "event": 1, "incident": 2, "life": 2, "brief": 2},
    m.Hello: {"reads": 3},
    m.Admission: {"reads": 3},
    m.HeardWanted: {"reads": 3},
    m.LastHeard: {"reads": 3},
    m.RackSummary: {"reads": 3},
    m.NodeReport: {"version": 3},
    m.NodeRow: {"report": 3},
}
#: Of each word that a later minor added to a vocabulary, by its value.
WORD_SINCE: dict[type[enum.Enum], dict[str, int]] = {
    Kind: {Kind.NODE_FLAPPING.value: 1, Kind.NODE_STEADY.value: 1, Kind.NODE_AWAY.value: 2},
}
#: The messages that say what their sender reads, in the field `READS`.
INTRODUCTIONS = (m.Hello, m.Admission, m.RackSummary, m.Welcome, m.HeardWanted, m.LastHeard)
#: Goes out at every minor once it is set: it is for a reader who may be newer than was thought.
READS = "reads"


def exists(message: type, minor: int) -> bool:
    """True when readers of `minor` know this type of message."""
    return TYPE_SINCE.get(message, 0) <= minor


def lowered(message: m.WireMessage, minor: int) -> Any:
    """What of a message readers of `minor` know, to be encoded in its place."""
    return _lower(message, minor)


def _lower(value: Any, minor: int) -> Any:
    if isinstance(value, msgspec.Struct):
        fields = _plan(type(value), minor)
        return value if fields is None else _fields(value, fields, minor)
    if isinstance(value, tuple):
        return [_lower(item, minor) for item in value]
    return value


def _fields(value: msgspec.Struct, fields: tuple[tuple[str, int], ...], minor: int) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for name, how in fields:
        item = getattr(value, name)
        if how == _INSIDE:
            item = _lower(item, minor)
        elif how == _WORD and isinstance(item, enum.Enum) and _since(item) > minor:
            item = newer.stand_in(type(value), name)
        elif how == _IF_SET and not item:
            continue
        told[name] = item
    if isinstance(value, m.Transition) and told["kind"] is None:
        told["kind"] = newer.kind_of_change(value.before.value, value.after.value)
    return told


def _since(word: enum.Enum) -> int:
    return WORD_SINCE.get(type(word), {}).get(word.value, 0)


#: What is done with a field: nothing; looked into; replaced when it holds a newer word; left out unless it is set.
_AS_IS, _INSIDE, _WORD, _IF_SET = range(4)


@functools.cache
def _plan(struct: type, minor: int) -> tuple[tuple[str, int], ...] | None:
    """The fields that readers of `minor` know, and what is done with each; None when nothing is newer than that."""
    since = FIELD_SINCE.get(struct, {})
    plan = []
    hints = typing.get_type_hints(struct)
    # In the order in which they are written: a frame is the same bytes whichever version wrote it.
    for field in struct.__struct_fields__:  # type: ignore[attr-defined]
        if field == READS and since.get(field, 0) > minor:
            plan.append((field, _IF_SET))
        elif since.get(field, 0) <= minor:
            plan.append((field, _how(hints[field], minor)))
    if len(plan) == len(hints) and all(how == _AS_IS for _, how in plan):
        return None
    return tuple(plan)


def _how(hint: Any, minor: int) -> int:
    for part in _parts(hint):
        if issubclass(part, msgspec.Struct) and _plan(part, minor) is not None:
            return _INSIDE
        if issubclass(part, enum.Enum) and any(_since(word) > minor for word in part):
            return _WORD
    return _AS_IS


def _parts(hint: Any) -> Iterator[type]:
    """The classes that a field's annotation names."""
    if isinstance(hint, type) and not typing.get_args(hint):
        yield hint
    for part in typing.get_args(hint):
        yield from _parts(part)


def clipped(minor: int) -> int:
    """The minor to speak to whoever reads `minor`: what is newer than our own we do not know."""
    return max(0, min(minor, MINOR))
