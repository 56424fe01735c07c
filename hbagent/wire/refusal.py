"""Why a frame was not taken. Bytes from a network are never an exception: they are a message or a counted refusal.

Think of a doorman with a tally sheet. He says which of four things is wrong, one tick each, and lets nobody's own
words onto the sheet: `Refusal.detail` goes to logs and consoles, so what came from the wire is escaped and cut.
"""

from __future__ import annotations

import enum

import msgspec

#: A detail is one line of a log; more would let a flood of bad frames fill a disk.
DETAIL_LENGTH_MAX = 200


class Reason(str, enum.Enum):
    """The counter that a refused frame raises."""

    #: Not a frame of ours, cut short, or a value that breaks a rule.
    MALFORMED = "malformed"
    #: A frame of this major whose type this version does not know: a newer minor sends it.
    UNKNOWN_TYPE = "unknown-type"
    #: Another major version. Its sender lives, and nothing else can be said of it.
    INCOMPATIBLE = "incompatible"
    #: Longer than any frame may be; not looked into.
    TOO_LARGE = "too-large"


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """A frame that was not taken: the counter to raise and one printable ASCII line for the log."""

    reason: Reason
    detail: str


def refuse(reason: Reason, detail: str) -> Refusal:
    """A `Refusal` whose detail is escaped to printable ASCII and at most `DETAIL_LENGTH_MAX` characters."""
    return Refusal(reason, ascii(detail[:DETAIL_LENGTH_MAX])[1:-1][:DETAIL_LENGTH_MAX])
