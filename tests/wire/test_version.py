from __future__ import annotations

import pytest

from hbagent.wire.refusal import Reason, Refusal
from hbagent.wire.version import FRAME_SIZE_MAX, MAJOR, MINOR, Head, head, read_head


def test_a_head_is_read_back() -> None:
    assert read_head(head(0x22) + b"body") == Head(MINOR, 0x22)
    assert read_head(memoryview(head(0x22))) == Head(MINOR, 0x22)


def test_any_minor_of_our_major_is_read() -> None:
    for minor in range(256):
        assert read_head(b"HB" + bytes([MAJOR, minor, 0x10])) == Head(minor, 0x10)


@pytest.mark.parametrize("major", [0, MAJOR + 1, 255])
def test_another_major_is_incompatible_and_says_which(major: int) -> None:
    found = read_head(b"HB" + bytes([major, 7, 0x10]))
    assert isinstance(found, Refusal)
    assert found.reason is Reason.INCOMPATIBLE
    assert f"protocol {major}.7" in found.detail


@pytest.mark.parametrize("data", [b"", b"H", b"HB\x01\x00", b"HX\x01\x00\x10", b"hb\x01\x00\x10", b"\x00" * 100])
def test_what_is_no_frame_is_malformed(data: bytes) -> None:
    found = read_head(data)
    assert isinstance(found, Refusal)
    assert found.reason is Reason.MALFORMED


def test_size_is_looked_at_before_anything_else() -> None:
    longest = b"?" * FRAME_SIZE_MAX
    found = [read_head(longest), read_head(longest + b"?")]
    assert [refusal.reason for refusal in found if isinstance(refusal, Refusal)] == [Reason.MALFORMED, Reason.TOO_LARGE]
