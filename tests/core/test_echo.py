from __future__ import annotations

from hashlib import blake2s

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.echo import answer, read_answer, request

KEY, OTHER = b"k" * 32, b"o" * 32
NONCE = b"n" * 12


def test_a_request_is_answered_under_its_own_nonce() -> None:
    asked = request(KEY, NONCE)
    answered = answer(asked, [OTHER, KEY], 2**64 - 1, 7)
    assert answered is not None
    assert len(answered) == len(asked) == 48
    assert read_answer(answered, KEY, NONCE) == (2**64 - 1, 7)


def test_the_frames_do_not_change() -> None:
    assert request(KEY, NONCE).hex() == (
        "4842453f6e6e6e6e6e6e6e6e6e6e6e6e00000000000000000000000000000000e1a6052cdddd2e7b8450d4d8ae5f652c"
    )
    answered = answer(request(KEY, NONCE), [KEY], 1, 2)
    assert answered is not None
    assert answered.hex() == (
        "484245216e6e6e6e6e6e6e6e6e6e6e6e00000000000000010000000000000002315dbdca4fa159b1c9a592aab208ad35"
    )


def test_an_answer_under_another_key_or_nonce_is_none() -> None:
    answered = answer(request(KEY, NONCE), [KEY], 1, 2)
    assert answered is not None
    assert read_answer(answered, OTHER, NONCE) is None
    assert read_answer(answered, KEY, b"m" * 12) is None


def test_an_answer_is_no_request_so_two_responders_cannot_talk() -> None:
    answered = answer(request(KEY, NONCE), [KEY], 0, 0)
    assert answered is not None
    assert answer(answered, [KEY], 1, 2) is None
    assert read_answer(request(KEY, NONCE), KEY, NONCE) is None


def test_without_a_fitting_key_there_is_no_answer() -> None:
    assert answer(request(KEY, NONCE), [OTHER], 1, 2) is None
    assert answer(request(KEY, NONCE), [], 1, 2) is None


@given(st.integers(0, 47), st.integers(1, 255))
def test_one_changed_byte_anywhere_spoils_a_request_and_an_answer(position: int, change: int) -> None:
    def spoil(data: bytes) -> bytes:
        return data[:position] + bytes([data[position] ^ change]) + data[position + 1 :]

    assert answer(spoil(request(KEY, NONCE)), [KEY], 1, 2) is None
    answered = answer(request(KEY, NONCE), [KEY], 1, 2)
    assert answered is not None
    assert read_answer(spoil(answered), KEY, NONCE) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_without_an_exception(data: bytes) -> None:
    assert answer(data, [KEY], 1, 2) is None
    assert read_answer(data, KEY, NONCE) is None


@pytest.mark.parametrize(
    ("signed", "filling"), [(b"HBE?" + NONCE + b"\x01" * 16, b""), (b"HBE?" + NONCE + bytes(16), b"\x00")]
)
def test_a_signed_request_of_another_shape_is_refused(signed: bytes, filling: bytes) -> None:
    mac = blake2s(signed, digest_size=16, key=KEY).digest()
    assert answer(signed + filling + mac, [KEY], 1, 2) is None


def test_a_nonce_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="a nonce has 12 bytes, not 3"):
        request(KEY, b"abc")
