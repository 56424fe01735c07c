from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hbagent.wire.refusal import DETAIL_LENGTH_MAX, Reason, refuse


@given(st.text(max_size=1000))
def test_a_detail_is_one_short_line_of_printable_ascii(text: str) -> None:
    detail = refuse(Reason.MALFORMED, text).detail
    assert len(detail) <= DETAIL_LENGTH_MAX
    assert detail.isascii()
    assert detail == "" or detail.isprintable()


def test_an_escape_sequence_from_the_wire_cannot_reach_a_terminal() -> None:
    assert refuse(Reason.MALFORMED, "\x1b[31mroot\n\u202e").detail == r"\x1b[31mroot\n\u202e"
