"""A sender writes what the receiver's minor knows: held against the frames that such versions really wrote."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hbagent.core import messages as m
from hbagent.core.states import Kind, Liveness
from hbagent.wire import beat, codec, minors
from hbagent.wire.refusal import Refusal
from hbagent.wire.version import HEAD_SIZE, MAJOR, MINOR, MINOR_ASSUMED
from tests.examples import examples

from . import golden, samples

NAMES = sorted(samples.MESSAGES)
MINORS = range(MINOR + 1)
RELEASED = [stem for stem in golden.stems() if not stem.startswith("x-") and not stem.endswith("-beat")]


def unannounced(message: Any) -> Any:
    """A message as a core makes it: what its sender reads is not filled in yet."""
    replaceable = isinstance(message, minors.INTRODUCTIONS) and not isinstance(message, m.Welcome)
    return msgspec.structs.replace(message, reads=0) if replaceable else message


def plain(frame: bytes) -> Any:
    return msgspec.msgpack.decode(frame[HEAD_SIZE:])


def paths(value: Any, at: str = "") -> set[str]:
    """The names of all fields, each below those that it is in."""
    if isinstance(value, dict):
        return {f"{at}.{key}" for key in value}.union(*(paths(item, f"{at}.{key}") for key, item in value.items()))
    return set().union(*(paths(item, f"{at}[]") for item in value)) if isinstance(value, list) else set()


# ---- against the vectors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stem", RELEASED)
def test_what_an_older_version_wrote_is_written_the_same_for_its_readers(stem: str) -> None:
    written = golden.read(stem)
    minor = written[3]
    message = codec.decode(written)
    assert not isinstance(message, Refusal)
    assert codec.encode(message, minor) == written


@pytest.mark.parametrize("stem", [stem for stem in RELEASED if stem != "1.0-transitions"])
def test_a_message_of_today_is_to_a_reader_of_a_minor_what_that_minor_would_have_written(stem: str) -> None:
    """A field that is new, and that the table does not know as new, shows here."""
    minor, _, name = stem.removeprefix(f"{MAJOR}.").partition("-")
    message = samples.MESSAGES[name]
    if int(minor) < minors.FIELD_SINCE.get(type(message), {}).get(minors.READS, 0):
        message = unannounced(message)
    assert codec.encode(message, int(minor)) == golden.read(stem)


@pytest.mark.parametrize("minor", MINORS)
def test_a_beat_differs_in_its_head_alone(minor: int) -> None:
    written = beat.encode(samples.BEAT, minor)
    assert written == golden.read(f"{MAJOR}.{minor}-beat")
    assert beat.decode(written) == samples.BEAT
    assert written[:HEAD_SIZE] in beat.HEADS


# ---- every type at every minor ---------------------------------------------------------------------------


@pytest.mark.parametrize("minor", MINORS)
@pytest.mark.parametrize("name", NAMES)
def test_a_type_is_there_from_its_minor_on_and_not_written_before(name: str, minor: int) -> None:
    message = samples.MESSAGES[name]
    assert codec.exists(message, minor) == (f"{MAJOR}.{minor}-{name}" in golden.stems())
    if not codec.exists(message, minor):
        with pytest.raises(ValueError, match=f"does not exist in minor {minor}"):
            codec.encode(message, minor)


@st.composite
def sparse(draw: st.DrawFn) -> tuple[str, m.WireMessage]:
    """A message some of whose fields have their defaults, on any level."""
    name = draw(st.sampled_from(NAMES))

    def thin(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(thin(item) for item in value[: draw(st.integers(0, len(value)))])
        if not isinstance(value, msgspec.Struct):
            return value
        fields = {field.name: field for field in msgspec.structs.fields(type(value))}
        dropped = draw(st.sets(st.sampled_from([*fields]), max_size=3))
        kept = {key: thin(getattr(value, key)) for key, field in fields.items() if field.required or key not in dropped}
        return type(value)(**kept)

    return name, thin(samples.MESSAGES[name])


@settings(max_examples=examples(300), deadline=None)
@given(sparse(), st.sampled_from([*MINORS]))
def test_whatever_is_in_a_message_a_reader_of_any_minor_is_told_no_field_that_it_does_not_know(
    made: tuple[str, m.WireMessage], minor: int
) -> None:
    name, message = made
    # Without some of its fields a message may break a rule.
    assume(codec.exists(message, minor) and not isinstance(codec.decode(codec.encode(message)), Refusal))
    frame = codec.encode(codec.introducing(message), minor)
    assert frame[3] == minor
    known = paths(plain(codec.encode(samples.MESSAGES[name], minor)))
    assert known - {".reads"} <= paths(plain(codec.encode(samples.MESSAGES[name])))
    assert paths(plain(frame)) <= known | {".reads"}
    read = codec.decode(frame)
    assert type(read) is type(message)
    assert codec.encode(read, minor) == frame


def test_the_tables_name_what_there_is() -> None:
    for struct, since in minors.FIELD_SINCE.items():
        assert set(since) <= set(struct.__struct_fields__)  # type: ignore[attr-defined]
    assert set(minors.TYPE_SINCE) <= set(codec.TYPES.values())
    for words, values in minors.WORD_SINCE.items():
        assert set(values) <= {word.value for word in words}
    inner: list[dict[str, int]] = [*minors.FIELD_SINCE.values(), *minors.WORD_SINCE.values()]
    minor_of_each = [*minors.TYPE_SINCE.values(), *(minor for table in inner for minor in table.values())]
    assert all(0 < minor <= MINOR for minor in minor_of_each)


# ---- words -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("minor", "kind"), [(0, Kind.NODE_LEFT), (1, Kind.NODE_LEFT), (2, Kind.NODE_AWAY), (3, Kind.NODE_AWAY)]
)
def test_a_word_that_a_reader_does_not_know_is_told_as_it_would_read_it(minor: int, kind: Kind) -> None:
    away = msgspec.structs.replace(samples.TRANSITION, kind=Kind.NODE_AWAY, before=Liveness.ALIVE, after=Liveness.LEFT)
    told = codec.decode(codec.encode(m.Transitions(epoch=1, base=1, after=0, items=(away,)), minor))
    assert isinstance(told, m.Transitions)
    assert told.items[0].kind is kind


# ---- announcements ---------------------------------------------------------------------------------------

INTRODUCED = [name for name in NAMES if isinstance(samples.MESSAGES[name], minors.INTRODUCTIONS)]


@pytest.mark.parametrize("name", INTRODUCED)
@pytest.mark.parametrize("minor", MINORS)
def test_an_introduction_says_what_its_sender_reads_at_whatever_minor_it_is_sent(name: str, minor: int) -> None:
    message = codec.introducing(unannounced(samples.MESSAGES[name]))
    if codec.exists(message, minor):
        frame = codec.encode(message, minor)
        read = codec.decode(frame)
        assert not isinstance(read, Refusal)
        assert codec.announced(read, frame) == MINOR


@pytest.mark.parametrize("stem", [stem for stem in RELEASED if stem.partition("-")[2] in INTRODUCED])
def test_who_announces_nothing_reads_what_the_head_of_its_frame_says(stem: str) -> None:
    frame = golden.read(stem)
    read = codec.decode(frame)
    assert not isinstance(read, Refusal)
    assert codec.announced(read, frame) == frame[3]


def test_only_introductions_announce_anything() -> None:
    for name in NAMES:
        message = samples.MESSAGES[name]
        frame = codec.encode(message)
        assert (codec.announced(message, frame) is None) == (name not in INTRODUCED)
        assert (codec.introducing(message) is message) == (name not in INTRODUCED)


def test_who_has_announced_nothing_is_taken_for_the_version_before_this_one() -> None:
    assert MINOR_ASSUMED == MINOR - 1
    assert [minors.clipped(minor) for minor in (0, MINOR, MINOR + 1, 255, 2**63)] == [0, MINOR, MINOR, MINOR, MINOR]
