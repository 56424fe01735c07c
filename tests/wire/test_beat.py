from __future__ import annotations

import struct

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbagent.core.messages import Beat
from hbagent.wire import beat
from hbagent.wire.refusal import Reason, Refusal
from hbagent.wire.version import MINOR
from tests.examples import examples

from . import samples

U32 = 2**32 - 1
U64 = 2**64 - 1
SPANS = st.integers(0, U32).map(lambda microseconds: microseconds * 1000)
BEATS = st.builds(
    Beat,
    incarnation=st.integers(0, U64),
    sequence=st.integers(1, beat.SEQUENCE_MAX),
    sent_mono_ns=st.integers(0, beat.SEQUENCE_MAX),
    due_in_ns=SPANS,
    interval_ns=st.integers(1, U32).map(lambda microseconds: microseconds * 1000),
    loop_gap_ns=SPANS,
    progress=st.integers(0, U32),
    health_digest=st.integers(0, U32),
    leaving=st.booleans(),
)
FRAME = beat.encode(samples.BEAT)


def reason(data: bytes) -> Reason | None:
    found = beat.decode(data)
    return found.reason if isinstance(found, Refusal) else None


def put(offset: int, form: str, value: int) -> bytes:
    """A good frame with one number changed."""
    frame = bytearray(FRAME)
    struct.pack_into(form, frame, offset, value)
    return bytes(frame)


@given(BEATS)
def test_a_beat_comes_back_as_it_was(sent: Beat) -> None:
    data = beat.encode(sent)
    assert len(data) == beat.BEAT_SIZE <= 64
    assert beat.decode(data) == sent
    assert beat.decode(memoryview(data)) == sent


def test_the_documented_offsets_are_the_real_ones() -> None:
    values = struct.unpack("!2sBBBB", FRAME[:6])
    assert values == (b"HB", 1, MINOR, 0x01, 0x01)
    assert struct.unpack("!QQQ", FRAME[6:30]) == (0xFEDCBA9876543210, 81723, 5_000_000_123)
    assert struct.unpack("!5I", FRAME[30:50]) == (1_000_000, 1_000_000, 1_234, 77, 0xDEADBEEF)


def test_a_hot_path_may_read_layout_and_head_itself() -> None:
    assert FRAME[:5] == beat.HEAD
    head, flags, incarnation, sequence, *_ = beat.LAYOUT.unpack_from(FRAME)
    assert (head, flags, incarnation, sequence) == (beat.HEAD, beat.LEAVING, 0xFEDCBA9876543210, 81723)


def test_long_spans_saturate_and_marks_wrap() -> None:
    long = msgspec.structs.replace(
        samples.BEAT, due_in_ns=10**15, interval_ns=10**15, loop_gap_ns=10**15, progress=2**32 + 5
    )
    found = beat.decode(beat.encode(long))
    assert isinstance(found, Beat)
    assert (found.due_in_ns, found.interval_ns, found.loop_gap_ns) == (U32 * 1000,) * 3
    assert found.progress == 5


def test_an_interval_below_a_microsecond_and_an_overdue_beat_can_be_sent() -> None:
    found = beat.decode(beat.encode(msgspec.structs.replace(samples.BEAT, interval_ns=10, due_in_ns=-5)))
    assert isinstance(found, Beat)
    assert (found.interval_ns, found.due_in_ns) == (1000, 0)


def test_values_that_no_agent_sends_are_malformed() -> None:
    assert reason(put(14, "!Q", 0)) is Reason.MALFORMED
    assert reason(put(14, "!Q", 2**63)) is Reason.MALFORMED
    assert reason(put(22, "!Q", 2**63)) is Reason.MALFORMED
    assert reason(put(34, "!I", 0)) is Reason.MALFORMED


def test_unknown_flags_are_ignored() -> None:
    assert beat.decode(put(5, "!B", 0xFF)) == samples.BEAT


def test_a_newer_minor_may_append_bytes_and_ours_may_not() -> None:
    newer = FRAME[:3] + b"\x09" + FRAME[4:]
    assert beat.decode(newer) == samples.BEAT
    assert beat.decode(newer + b"\xff" * 14) == samples.BEAT
    assert reason(newer + b"\xff" * 15) is Reason.TOO_LARGE
    assert reason(newer[:-1]) is Reason.MALFORMED
    assert reason(FRAME + b"\x00") is Reason.MALFORMED


def test_every_cut_of_a_beat_is_malformed() -> None:
    assert {reason(FRAME[:size]) for size in range(beat.BEAT_SIZE)} == {Reason.MALFORMED}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (FRAME[:2] + b"\x02" + FRAME[3:], Reason.INCOMPATIBLE),
        (FRAME[:4] + b"\x10" + FRAME[5:], Reason.UNKNOWN_TYPE),
        (b"XX" + FRAME[2:], Reason.MALFORMED),
        (FRAME + bytes(65536), Reason.TOO_LARGE),
    ],
)
def test_what_is_no_beat_of_ours_is_refused_for_the_right_reason(data: bytes, expected: Reason) -> None:
    assert reason(data) is expected


def test_an_impossible_beat_of_our_own_is_a_defect() -> None:
    with pytest.raises(struct.error):
        beat.encode(msgspec.structs.replace(samples.BEAT, sequence=2**64))


@settings(max_examples=examples(2000))
@given(st.one_of(st.binary(max_size=80), st.binary(max_size=80).map(lambda tail: (beat.HEAD + tail)[:64])))
def test_any_bytes_are_a_beat_or_a_refusal(data: bytes) -> None:
    found = beat.decode(data)
    assert isinstance(found, (Beat, Refusal))
    if isinstance(found, Beat) and not data[5] & ~beat.LEAVING:
        assert beat.encode(found) == data
