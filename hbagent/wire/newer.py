"""Reading the words of a newer minor: what is not known is said to be not known.

A leader upgraded before its root may give a cause that the root has never heard of. Refusing the summary for it would
silence the whole rack, and guessing would be a lie; so a word outside this version's vocabulary becomes the
"don't know" of its axis. Liveness, health and a diagnosis have UNKNOWN, a cause is left out, an event is named after
the liveness that it ends in, a question whose outcome is strange counts as never asked, and an application in a strange
state as one that has not said yet that it is ready.

Only frames of a newer minor get this. From a version that should know better, a strange word is a malformed frame.
"""

from __future__ import annotations

from typing import Any, Union

from hbagent.core.messages import HealthChange
from hbagent.core.states import AppState, Cause, Health, Kind, Liveness, Outcome, Stall

Vocabulary = type[Union[Liveness, Health, Cause, Kind, Outcome, Stall, AppState]]

#: Every field of a wire message that holds a word, its vocabulary, and what stands in for a strange one.
WORDS: dict[str, tuple[Vocabulary, str | None]] = {
    "liveness": (Liveness, Liveness.UNKNOWN.value),
    "before": (Liveness, Liveness.UNKNOWN.value),
    "after": (Liveness, Liveness.UNKNOWN.value),
    "health": (Health, Health.UNKNOWN.value),
    "health_before": (Health, Health.UNKNOWN.value),
    "health_after": (Health, Health.UNKNOWN.value),
    "cause": (Cause, None),
    "kind": (Kind, None),
    "outcome": (Outcome, Outcome.UNSENT.value),
    "soft": (Health, Health.UNKNOWN.value),
    "stall": (Stall, Stall.UNKNOWN.value),
    "state": (AppState, AppState.STARTING.value),
}
#: The same of a `HealthChange`, in which two of these fields mean something else.
CHANGE_WORDS: dict[str, tuple[Vocabulary, str | None]] = {
    **WORDS,
    "before": (Health, Health.UNKNOWN.value),
    "after": (Health, Health.UNKNOWN.value),
}

_KNOWN = {words: frozenset(word.value for word in words) for words, _ in (*WORDS.values(), *CHANGE_WORDS.values())}

_KIND_OF_CHANGE = {
    Liveness.ALIVE.value: Kind.NODE_RECOVERED,
    Liveness.SUSPECT.value: Kind.NODE_SUSPECT,
    Liveness.DEAD.value: Kind.NODE_DEAD,
    Liveness.LEFT.value: Kind.NODE_LEFT,
    Liveness.UNKNOWN.value: Kind.NODE_UNKNOWN,
}


def translate(value: Any) -> Any:
    """`value`, as decoded from msgpack without a schema, with every strange word replaced.

    Raises RecursionError for a value nested deeper than the interpreter's stack.
    """
    if isinstance(value, list):
        return [translate(item) for item in value]
    if not isinstance(value, dict):
        return value
    words = CHANGE_WORDS if "subject" in value else WORDS
    known = {key: _word(words[key], item) if key in words else translate(item) for key, item in value.items()}
    if "kind" in known and known["kind"] is None:
        # That of a probe is no word of ours: whoever looks there has a name for it.
        known["kind"] = kind_of_change(known.get("before"), known.get("after")) if "after" in value else value["kind"]
    return known


def stand_in(struct: type, field: str) -> str | None:
    """What a word of this field is read as by whoever does not know it; None also for a kind (`kind_of_change`)."""
    return (CHANGE_WORDS if struct is HealthChange else WORDS)[field][1]


def _word(field: tuple[Vocabulary, str | None], value: Any) -> Any:
    vocabulary, stand_in = field
    return value if not isinstance(value, str) or value in _KNOWN[vocabulary] else stand_in


def kind_of_change(before: Any, after: Any) -> str:
    """The kind of a change whose own name is strange. One that moved nothing must not read as a death."""
    if before == after or not isinstance(after, str):
        return Kind.HEALTH_CHANGED.value
    return _KIND_OF_CHANGE[after].value
