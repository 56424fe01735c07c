"""The first five bytes of every frame, and what two versions may expect of one another.

::

    0      2       3       4      5
    | "HB" | major | minor | type | body ...

Rule 1, minor. Within a major, a field's meaning and a type's number never change. A newer minor may add fields
(with a default), types, enum values and bytes at the end of a beat. A reader ignores fields it does not know, counts
types it does not know, and reads a word it does not know as the "don't know" of its axis (`wire.newer`).

Rule 2, major. Anything else is a new major. A frame of another major is counted `incompatible` and shown as such for
its sender, who is never called dead for it.

So during an upgrade old and new run side by side in any order. The rejected alternative, upgrading from the root
downwards only, makes the order of a package manager's work part of the protocol.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, Union

from .refusal import Reason, Refusal, refuse

MAGIC = b"HB"
MAJOR = 1
MINOR = 2

#: Longest frame. CURVE adds 33 bytes; sockets are closed on a peer that sends more than this, before it is read.
FRAME_SIZE_MAX = 65536

#: What a transport hands over: bytes, or a view on a frame that saves the copy.
Data = Union[bytes, memoryview]

_HEAD = struct.Struct("!2sBBB")
HEAD_SIZE = _HEAD.size


class Head(NamedTuple):
    """What the head says, once magic and major are known to be ours."""

    minor: int
    type: int


def head(type_code: int) -> bytes:
    """The first five bytes of a frame that this version sends."""
    return _HEAD.pack(MAGIC, MAJOR, MINOR, type_code)


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
