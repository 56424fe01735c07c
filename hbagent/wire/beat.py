"""The beat as bytes: 50 of them, always, in one frame.

Fixed offsets instead of a map, for three reasons: the leader reads thousands a second and one `unpack_from` is the
whole parse; a socket that keeps only the newest message needs each to be one frame; and a size that no input can
change is a queue that no input can fill.

All numbers are in network order::

    0  2s magic   2  u8 major   3  u8 minor   4  u8 type = 0x01   5  u8 flags (bit 0: leaving)
    6  u64 incarnation          14 u64 sequence, from 1           22 u64 sent, ns of the sender's monotonic clock
    30 u32 due in, us           34 u32 interval, us, from 1       38 u32 largest loop gap, us
    42 u32 progress             46 u32 health digest

Microseconds in 32 bits reach to 71 minutes; a longer span is sent as the longest. Unknown flags are ignored. A newer
minor may append bytes, up to `BEAT_SIZE_MAX`.

A hot path may read a frame itself: `len(data) == BEAT_SIZE and data[:5] in HEADS`, then `LAYOUT.unpack_from(data)`,
then `0 < sequence <= SEQUENCE_MAX and interval_us`. Whatever fails goes to `decode`, which says why.
"""

from __future__ import annotations

import struct

from hbagent.core.messages import Beat

from .refusal import Reason, Refusal, refuse
from .version import HEAD_SIZE, MINOR, Data, head, read_head

BEAT_TYPE = 0x01
LAYOUT = struct.Struct("!5sBQQQIIIII")
BEAT_SIZE = LAYOUT.size
#: With ZMTP and CURVE around it a beat of 64 bytes is still one small TCP segment.
BEAT_SIZE_MAX = 64
#: The first five bytes of every beat of this version.
HEAD = head(BEAT_TYPE)
#: The same for each minor up to this one, by its number: all of these beats are laid out alike.
HEADS = tuple(head(BEAT_TYPE, minor) for minor in range(MINOR + 1))

LEAVING = 0x01
#: Sequences and clocks stay below 2^63: every store and every language below has a signed 64-bit integer.
SEQUENCE_MAX = 2**63 - 1
_U32_MAX = 2**32 - 1


def encode(beat: Beat, minor: int = MINOR) -> bytes:
    """The frame of a beat, for receivers that read `minor`.

    Spans beyond 71 minutes saturate, `progress` and `health_digest` wrap at 2^32.

    Raises struct.error when incarnation, sequence or clock is not an unsigned 64-bit number: the caller's defect.
    """
    return LAYOUT.pack(
        HEADS[minor],
        LEAVING if beat.leaving else 0,
        beat.incarnation,
        beat.sequence,
        beat.sent_mono_ns,
        _microseconds(beat.due_in_ns),
        _microseconds(beat.interval_ns) or 1,
        _microseconds(beat.loop_gap_ns),
        beat.progress & _U32_MAX,
        beat.health_digest & _U32_MAX,
    )


def decode(data: Data) -> Beat | Refusal:
    """The beat in a frame, or why there is none. Total: never raises."""
    if len(data) != BEAT_SIZE or data[:HEAD_SIZE] not in HEADS:
        refusal = _examine(data)
        if refusal is not None:
            return refusal
    _, flags, incarnation, sequence, sent, due_in, interval, gap, progress, digest = LAYOUT.unpack_from(data)
    if not 0 < sequence <= SEQUENCE_MAX or sent > SEQUENCE_MAX or not interval:
        return refuse(Reason.MALFORMED, f"beat with sequence {sequence}, sent {sent} ns, interval {interval} us")
    return Beat(
        incarnation=incarnation,
        sequence=sequence,
        sent_mono_ns=sent,
        due_in_ns=due_in * 1000,
        interval_ns=interval * 1000,
        loop_gap_ns=gap * 1000,
        progress=progress,
        health_digest=digest,
        leaving=bool(flags & LEAVING),
    )


def _microseconds(span_ns: int) -> int:
    return min(max(span_ns, 0) // 1000, _U32_MAX)


def _examine(data: Data) -> Refusal | None:
    """Why a frame that does not look like a beat of this version isn't one; None for a beat of a newer minor."""
    found = read_head(data)
    if isinstance(found, Refusal):
        return found
    if found.type != BEAT_TYPE:
        return refuse(Reason.UNKNOWN_TYPE, f"type 0x{found.type:02x} where beats are taken")
    if len(data) > BEAT_SIZE_MAX:
        return refuse(Reason.TOO_LARGE, f"beat of {len(data)} bytes; a beat has {BEAT_SIZE_MAX} at most")
    if len(data) < BEAT_SIZE or (len(data) > BEAT_SIZE and found.minor <= MINOR):
        return refuse(Reason.MALFORMED, f"beat of {len(data)} bytes; a beat has {BEAT_SIZE}")
    return None
