"""Messages to frames and back. All of `core.messages.WireMessage` goes through here; beats have `wire.beat`.

A frame is the head of `wire.version` and a msgpack map with the field names of the message. Names cost bytes that
positions would save, and they are what lets either side be older: a missing field has its default, an unknown one is
skipped.

Reading is total. Any bytes at all come out as a message or as a `Refusal`, in time and memory bounded by the frame:
its size is looked at first, msgspec stops at a length that the frame cannot hold and at nesting deeper than the
interpreter's stack, and what fits the schema is then held against `wire.rules`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from hbagent.core import messages as m

from . import minors, newer, rules
from .beat import BEAT_TYPE
from .refusal import Reason, Refusal, refuse
from .version import FRAME_SIZE_MAX, HEAD_SIZE, MAGIC, MINOR, MINOR_AT, Data, head, read_head

#: The type byte of each message. A number is never used for anything else again.
TYPES: dict[int, type[m.WireMessage]] = {
    0x10: m.Hello,
    0x11: m.Admission,
    0x12: m.Farewell,
    0x13: m.FarewellAck,
    0x14: m.Report,
    0x15: m.ReportWanted,
    0x16: m.Ping,
    0x17: m.Pong,
    0x18: m.Relay,
    0x19: m.Relayed,
    0x1A: m.HeardWanted,
    0x1B: m.LastHeard,
    0x1C: m.AccountWanted,
    0x1D: m.Account,
    0x1E: m.EvidenceWanted,
    0x1F: m.EvidencePage,
    0x20: m.RackSummary,
    0x21: m.RackReports,
    0x22: m.Transitions,
    0x23: m.TransitionsAck,
    0x24: m.DrillWanted,
    0x25: m.DrillBegun,
    0x26: m.Welcome,
    0x30: m.Query,
    0x31: m.AnswerPage,
    0x32: m.Order,
}

#: Everything that reading hostile msgpack can raise: bad text is a ValueError, deep nesting a RecursionError.
_UNREADABLE = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError, MemoryError, TypeError)

_ENCODER = msgspec.msgpack.Encoder()
_CODES = {message: code for code, message in TYPES.items()}
_HEADS = {message: head(code) for code, message in TYPES.items()}
_DECODERS: dict[int, msgspec.msgpack.Decoder[m.WireMessage]] = {
    code: msgspec.msgpack.Decoder(message) for code, message in TYPES.items()
}
_PLAIN: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder()


def is_beat(data: Data) -> bool:
    """True when a frame of any version calls itself a beat, so that `wire.beat` should read it."""
    return data[:2] == MAGIC and len(data) >= HEAD_SIZE and data[4] == BEAT_TYPE


def exists(message: m.WireMessage, minor: int) -> bool:
    """True when whoever reads `minor` knows messages of this type; to whom does not, it cannot be said."""
    return minors.exists(type(message), minor)


def introducing(message: m.WireMessage) -> m.WireMessage:
    """`message`; one that introduces its sender, with the minor that this version reads."""
    return msgspec.structs.replace(message, reads=MINOR) if isinstance(message, minors.INTRODUCTIONS) else message


def announced(message: m.WireMessage, data: Data) -> int | None:
    """The minor that the sender of this message, read from `data`, said that it reads; None when it says nothing."""
    if not isinstance(message, minors.INTRODUCTIONS):
        return None
    return message.reads or data[MINOR_AT]


def encode(message: m.WireMessage, minor: int = MINOR) -> bytes:
    """The frame of a message, for receivers that read `minor`: nothing in it is newer than that.

    Raises ValueError for what cannot travel: a type that such receivers do not know (see `exists`), a frame over
    `FRAME_SIZE_MAX` (see `wire.pages`), an integer of more than 64 bits, text with lone surrogates.
    """
    try:
        if minor >= MINOR:
            frame = _HEADS[type(message)] + _ENCODER.encode(message)
        elif minors.exists(type(message), minor):
            frame = head(_CODES[type(message)], minor) + _ENCODER.encode(minors.lowered(message, minor))
        else:
            raise ValueError(f"{type(message).__name__} does not exist in minor {minor}")
    except OverflowError as error:
        raise ValueError(f"{type(message).__name__}: {error}") from error
    if len(frame) > FRAME_SIZE_MAX:
        raise ValueError(f"{type(message).__name__} of {len(frame)} bytes; a frame has {FRAME_SIZE_MAX} at most")
    return frame


def decode(data: Data) -> m.WireMessage | Refusal:
    """The message in a frame, or why there is none. Total: never raises."""
    found = read_head(data)
    if isinstance(found, Refusal):
        return found
    decoder = _DECODERS.get(found.type)
    if decoder is None:
        return refuse(Reason.UNKNOWN_TYPE, f"type 0x{found.type:02x} of minor {found.minor}")
    body = memoryview(data)[HEAD_SIZE:]
    try:
        message = decoder.decode(body)
    except _UNREADABLE as error:
        if found.minor <= MINOR or not isinstance(error, msgspec.ValidationError):
            return _malformed(found.type, str(error))
        return _decode_newer(found.type, body)
    return _checked(found.type, message)


def _decode_newer(type_code: int, body: memoryview) -> m.WireMessage | Refusal:
    """A body of a newer minor that did not fit this version's schema: once more, without the words it added."""
    try:
        message = msgspec.convert(newer.translate(_PLAIN.decode(body)), TYPES[type_code])
    except _UNREADABLE as error:
        return _malformed(type_code, str(error))
    return _checked(type_code, message)


def _checked(type_code: int, message: m.WireMessage) -> m.WireMessage | Refusal:
    fault = rules.broken(message)
    return _malformed(type_code, fault) if fault else message


def _malformed(type_code: int, why: str) -> Refusal:
    return refuse(Reason.MALFORMED, f"{TYPES[type_code].__name__}: {why}")
