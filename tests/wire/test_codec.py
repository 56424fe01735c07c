from __future__ import annotations

import random
import struct
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hbagent.core import messages as m
from hbagent.wire import beat, codec
from hbagent.wire.refusal import DETAIL_LENGTH_MAX, Reason, Refusal
from hbagent.wire.version import FRAME_SIZE_MAX, MAGIC, MINOR
from tests.examples import examples

from . import golden, samples

NAMES = sorted(samples.MESSAGES)
FRAMES = [codec.encode(samples.MESSAGES[name]) for name in NAMES] + list(samples.foreign().values())


def reason(data: bytes) -> Reason | None:
    found = codec.decode(data)
    return found.reason if isinstance(found, Refusal) else None


def raw(type_code: int, body: bytes, minor: int = MINOR) -> bytes:
    return MAGIC + bytes([1, minor, type_code]) + body


# ---- round trip and golden vectors -----------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_message_comes_back_as_it_was(name: str) -> None:
    frame = codec.encode(samples.MESSAGES[name])
    assert codec.decode(frame) == samples.MESSAGES[name]
    assert codec.decode(memoryview(frame)) == samples.MESSAGES[name]


def test_this_version_writes_the_golden_vectors_byte_for_byte() -> None:
    assert {stem: golden.read(stem) for stem in golden.expected()} == golden.expected()


def test_every_vector_ever_released_is_read_as_it_was_meant() -> None:
    released = [stem for stem in golden.stems() if not stem.startswith("x-")]
    assert len(released) >= len(samples.MESSAGES) + 1
    for stem in released:
        name = stem.partition("-")[2]
        if name == "beat":
            assert beat.decode(golden.read(stem)) == samples.BEAT
        else:
            assert codec.decode(golden.read(stem)) == samples.EARLIER.get(stem, samples.MESSAGES[name])


@pytest.mark.parametrize("name", NAMES)
def test_fields_added_by_a_newer_minor_are_ignored(name: str) -> None:
    message = samples.MESSAGES[name]
    body = samples.fields(message) | {"colour": "blue", "nested": {"a": [1, {"b": None}]}, "ü": b"\xff"}
    assert codec.decode(samples.frame(samples.code_of(message), body, minor=MINOR + 1)) == message


@pytest.mark.parametrize("name", NAMES)
def test_fields_that_an_older_minor_did_not_send_have_their_default(name: str) -> None:
    message = samples.MESSAGES[name]
    required = {field.name for field in msgspec.structs.fields(type(message)) if field.required}
    body = {key: value for key, value in samples.fields(message).items() if key in required}
    found = codec.decode(samples.frame(samples.code_of(message), body))
    assert type(found) is type(message)
    assert all(getattr(found, key) == getattr(message, key) for key in required)


@pytest.mark.parametrize(
    ("stem", "expected"),
    [("x-newer-type", Reason.UNKNOWN_TYPE), ("x-major-2-hello", Reason.INCOMPATIBLE)],
)
def test_what_cannot_be_read_yet_is_counted_for_what_it_is(stem: str, expected: Reason) -> None:
    assert reason(golden.read(stem)) is expected


def test_vectors_of_newer_versions_are_read_as_far_as_they_can_be() -> None:
    assert codec.decode(golden.read("x-newer-hello-with-unknown-fields")) == samples.MESSAGES["hello"]
    assert isinstance(codec.decode(golden.read("x-newer-summary-with-unknown-words")), m.RackSummary)
    assert isinstance(codec.decode(golden.read("x-newer-transitions-with-unknown-words")), m.Transitions)
    assert isinstance(codec.decode(golden.read("x-newer-report-with-unknown-words")), m.Report)
    assert isinstance(codec.decode(golden.read("x-newer-health-change-with-unknown-words")), m.Transitions)
    assert beat.decode(golden.read("x-newer-beat-of-64-bytes")) == samples.BEAT
    found = beat.decode(golden.read("x-major-2-beat"))
    assert isinstance(found, Refusal)
    assert found.reason is Reason.INCOMPATIBLE


# ---- what is refused -------------------------------------------------------------------------------------


def test_beats_and_messages_are_told_apart() -> None:
    frame = beat.encode(samples.BEAT)
    assert codec.is_beat(frame)
    assert codec.is_beat(memoryview(frame))
    assert codec.is_beat(golden.read("x-major-2-beat"))
    assert not any(map(codec.is_beat, FRAMES[: len(NAMES)]))
    assert not any(map(codec.is_beat, (b"", b"HB\x01\x00", b"XX\x01\x00\x01")))
    assert reason(frame) is Reason.UNKNOWN_TYPE


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x80",
        b"\xc1",
        b"\x82\xa2id\x01",
        b"\x82\xa2id\x01\xa4what\xa2\xff\xfe",
        b"\x82\xa2id\x01\xa4what\xa1x\x00",
        b"\x82\xa2id\xa11\xa4what\xa1x",
        b"\x82\xa2id\xcb" + struct.pack("!d", float("nan")) + b"\xa4what\xa1x",
        b"\x83\xa2id\x01\xa4what\xa1x\xa1z" + b"\x91" * 60_000,
        b"\x83\xa2id\x01\xa4what\xa1x\xa1z" + b"\x81\xa1z" * 20_000,
        b"\x83\xa2id\x01\xa4what\xa1x\xa1z\xdd\xff\xff\xff\xff",
        b"\x83\xa2id\x01\xa4what\xdb\xff\xff\xff\xff",
    ],
)
@pytest.mark.parametrize("minor", [MINOR, samples.NEWER])
def test_a_body_that_cannot_be_read_is_malformed(body: bytes, minor: int) -> None:
    assert reason(raw(0x30, body, minor)) is Reason.MALFORMED


def test_nesting_is_bounded_for_a_newer_minor_too() -> None:
    strange = b"\x82\xa6health\xa5GREAT\xa1z" + b"\x91" * 60_000 + b"\x01"
    assert reason(raw(0x14, strange, samples.NEWER)) is Reason.MALFORMED


def test_a_frame_over_the_limit_is_neither_sent_nor_read() -> None:
    body = msgspec.structs.replace(m.AnswerPage(id=1, page=0, last=True, body=b""), body=bytes(FRAME_SIZE_MAX))
    with pytest.raises(ValueError, match="a frame has 65536 at most"):
        codec.encode(body)
    assert reason(raw(0x31, msgspec.msgpack.encode(body))) is Reason.TOO_LARGE


@pytest.mark.parametrize("query", [m.Query(id=2**64, what="x"), m.Query(id=1, what="\udcff")])
def test_what_msgpack_cannot_hold_is_a_value_error(query: m.Query) -> None:
    with pytest.raises(ValueError):
        codec.encode(query)


def test_the_words_of_a_peer_reach_a_log_only_escaped_and_cut() -> None:
    body = samples.fields(samples.MESSAGES["report"]) | {"health": "\x1b[31m" + "ü" * 5000}
    found = codec.decode(samples.frame(0x14, body))
    assert isinstance(found, Refusal)
    assert found.detail.isascii()
    assert found.detail.isprintable()
    assert len(found.detail) <= DETAIL_LENGTH_MAX
    assert r"\x1b[31m" in found.detail


# ---- fuzz ------------------------------------------------------------------------------------------------

FIELD_NAMES = sorted({field for name in NAMES for field in samples.fields(samples.MESSAGES[name])})
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=8),
    st.sampled_from(["ALIVE", "DEAD", "OK", "silence", "node-dead", "dc1/rack07", "dc1/rack07/host12", "host12"]),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(FIELD_NAMES) | st.text(max_size=3), inner, max_size=6),
    ),
    max_leaves=8,
)
TYPE_CODES = st.one_of(st.sampled_from(sorted(codec.TYPES)), st.integers(0, 255))
MINORS = st.sampled_from([MINOR, MINOR + 1, samples.NEWER])


@st.composite
def grown(draw: st.DrawFn) -> bytes:
    """A good message with some fields replaced by anything."""
    message = samples.MESSAGES[draw(st.sampled_from(NAMES))]
    body = samples.fields(message) | draw(st.dictionaries(st.sampled_from(FIELD_NAMES), TREES, max_size=3))
    return samples.frame(samples.code_of(message), body, minor=draw(MINORS))


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """A good frame with bytes changed, cut out or put in."""
    data = bytearray(draw(st.sampled_from(FRAMES)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data)


INPUTS = st.one_of(
    st.binary(max_size=200),
    st.builds(raw, TYPE_CODES, st.binary(max_size=200), MINORS),
    st.builds(lambda code, tree, minor: samples.frame(code, tree, minor=minor), TYPE_CODES, TREES, MINORS),
    grown(),
    mangled(),
)


def check_total(data: bytes) -> None:
    """Bytes are a message that can travel on, or a refusal that can be logged."""
    found = codec.decode(data)
    if isinstance(found, Refusal):
        assert len(found.detail) <= DETAIL_LENGTH_MAX
        assert found.detail.isascii()
        assert found.detail.isprintable()
    else:
        assert type(found) in codec.TYPES.values()
        assert codec.decode(codec.encode(found)) == found


@settings(max_examples=examples(600), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(INPUTS)
def test_any_bytes_are_a_message_or_a_refusal(data: bytes) -> None:
    check_total(data)


@pytest.mark.slow
@pytest.mark.timeout(300)
@settings(max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(INPUTS)
def test_any_of_more_bytes_are_a_message_or_a_refusal(data: bytes) -> None:
    check_total(data)


def mangle(pick: random.Random) -> bytes:
    """What `mangled` makes, at a hundredth of its price."""
    data = bytearray(pick.choice(FRAMES))
    for _ in range(pick.randint(1, 4)):
        at = pick.randrange(len(data))
        data[at : at + pick.randint(0, 2)] = pick.randbytes(pick.randint(0, 3))
    return bytes(data)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * 4096


@pytest.mark.slow
def test_a_hundred_thousand_mangled_frames_raise_nothing_and_leave_no_memory_behind() -> None:
    pick = random.Random(1)
    for _ in range(5_000):
        check_total(mangle(pick))
    before = resident_bytes()
    for _ in range(100_000):
        check_total(mangle(pick))
    assert resident_bytes() - before < 5 * 2**20
