"""The first five bytes of every frame, and what two versions may expect of one another.

::

    0      2       3       4      5
    | "HB" | major | minor | type | body ...

Rule 1, minor. Within a major, a field's meaning and a type's number never change. A newer minor may add fields
(with a default), types, enum values and bytes at the end of a beat. A reader ignores fields it does not know, counts
types it does not know, and reads a word it does not know as the "don't know" of its axis (`wire.newer`).

Rule 2, major. Anything else is a new major. A frame of another major is counted `incompatible` and shown as such for
its sender, who is never called dead for it.

Rule 3, lowest. Whoever receives announces the minor that it reads, and whoever sends to it emits no newer one: no newer
head, field, type or word (`wire.minors`). Also what is published goes to each receiver by a connection of its own, and
at its own minor: an agent beats at 1.3 to one leader and at 1.2 to the other. So rule 1 is what keeps two versions from
misunderstanding one another, and rule 3 what keeps the older one from ever being told what it cannot read. A message of
a type that a receiver cannot know is withheld, and counted where it would have been sent.

An announcement is the field `reads` of the messages that introduce one side of a control connection to the other:
`Hello` and `Admission` between agent and leader, `RackSummary` and `Welcome` between leader and root, `HeardWanted` and
`LastHeard` between leaders. Versions to 1.2 do not have it; what they read is what the head of their frame says. It
holds for the connection that it came by, so that a host which was set back to an older version is not believed to be
the newer one. It is the one field that also frames of older minors carry, and whoever does not know it skips it.

Before a receiver has announced anything the minor is `MINOR_ASSUMED`, the one before our own: the oldest that a
supported mixture of versions has in it. With our own instead, each connection would begin with frames that the older
side cannot read, the first report of a reconnected agent among them; with the oldest of all, a report without probes
would go out to a leader that knows them. A console has no connection to speak of: it asks in its own minor, and is
answered in the lower of that and the answerer's.

So during an upgrade old and new run side by side in any order. The rejected alternative, upgrading from the root
downwards only, makes the order of a package manager's work part of the protocol.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, Union

from .refusal import Reason, Refusal, refuse

MAGIC = b"HB"
MAJOR = 1
MINOR = 3
#: What a receiver is taken to read until it says so.
MINOR_ASSUMED = MINOR - 1

#: Longest frame. CURVE adds 33 bytes; sockets are closed on a peer that sends more than this, before it is read.
FRAME_SIZE_MAX = 65536

#: What a transport hands over: bytes, or a view on a frame that saves the copy.
Data = Union[bytes, memoryview]

_HEAD = struct.Struct("!2sBBB")
HEAD_SIZE = _HEAD.size
#: Where in a head the minor stands.
MINOR_AT = 3


class Head(NamedTuple):
    """What the head says, once magic and major are known to be ours."""

    minor: int
    type: int


def head(type_code: int, minor: int = MINOR) -> bytes:
    """The first five bytes of a frame that this version sends to whoever reads `minor`."""
    return _HEAD.pack(MAGIC, MAJOR, minor, type_code)


def read_head(data: Data) -> Head | Refusal:
    """The head of any bytes from the wire, or why they cannot be read. Total: never raises."""
    if len(data) > FRAME_SIZE_MAX:
        return refuse(Reason.TOO_LARGE, f"{len(data)} bytes; a frame has {FRAME_SIZE_MAX} at most")
    if len(data) < HEAD_SIZE:
        return refuse(Reason.MALFORMED, f"{len(data)} bytes are less than a head")
    magic, major, minor, type_code = _HEAD.unpack_from(data)
    if magic != MAGIC:
        return refuse(Reason.MALFORMED, f"does not begin with {MAGIC.decode()}: {magic.hex()}")
    if major != MAJOR:
        return refuse(Reason.INCOMPATIBLE, f"protocol {major}.{minor}; this speaks {MAJOR}.{MINOR}")
    return Head(minor, type_code)
