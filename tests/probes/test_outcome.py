"""What all checks share: time, text, thresholds."""

from __future__ import annotations

import errno
import unicodedata
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.states import Health
from hbagent.core.units import SECOND
from hbagent.probes import outcome
from hbagent.probes.outcome import (
    TEXT_LENGTH_MAX,
    Deadline,
    OutOfTime,
    absent,
    clean,
    counted,
    failed,
    finished,
    judge,
    named,
    read,
    show_bytes,
)


@given(st.text())
def test_a_text_is_one_short_line_that_a_terminal_can_show(text: str) -> None:
    shown = clean(text)
    assert len(shown) <= TEXT_LENGTH_MAX
    assert all(unicodedata.category(char)[0] != "C" for char in shown)
    assert clean(shown) == shown


def test_a_long_text_says_that_it_goes_on() -> None:
    assert clean("x" * 1000) == "x" * (TEXT_LENGTH_MAX - 1) + "…"
    assert clean("a\r\n\x1b[31mb‮c") == "a [31mb c"


def test_a_deadline_ends_before_the_time_limit_and_says_what_was_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome, "time", SimpleNamespace(monotonic_ns=lambda: 0))
    assert Deadline(10 * SECOND).left_s("nothing came") == 9.8
    assert Deadline(SECOND).left_s("nothing came") == 0.9
    with pytest.raises(OutOfTime, match=r"^nothing came$"):
        Deadline(0).left_s("nothing came")
    assert Deadline(0).passed() and not Deadline(SECOND).passed()


def test_a_threshold_counts_from_its_value_on() -> None:
    assert [judge(value, 2, 3) for value in (1.9, 2, 3)] == [Health.OK, Health.WARNING, Health.CRITICAL]
    assert judge(9, None, None) is Health.OK


def test_an_error_of_our_own_says_nothing_about_the_other_side() -> None:
    assert failed(OSError(errno.ECONNREFUSED, "refused"), "x").health is Health.CRITICAL
    assert failed(OSError(errno.EMFILE, "too many"), "x").health is Health.UNKNOWN


def test_one_thing_is_not_many() -> None:
    assert [counted(1, "line"), counted(2, "line"), counted(0, "process", "processes")] == [
        *("1 line", "2 lines", "0 processes")
    ]


def test_names_beyond_the_first_are_counted() -> None:
    assert named(["a", "b"]) == "a, b"
    assert named([*"abcdefg"]) == "a, b, c, d, e and 2 more"


def test_amounts_are_for_people() -> None:
    assert [show_bytes(value) for value in (0, 512, 1536, 20 << 30, 3 << 40)] == [
        *("0 B", "512 B", "1.5 KiB", "20 GiB", "3 TiB")
    ]


def test_a_read_is_bounded() -> None:
    assert len(read("/dev/zero", 100_000)) == 100_000


def test_a_result_is_clean_and_what_is_absent_does_not_apply() -> None:
    assert finished(Health.OK, "a\nb").text == "a b"
    assert not absent("no swap").applies
