from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.units import DAY, HOUR, MILLISECOND, MINUTE, SECOND, parse_duration, seconds, show_duration


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("250ms", 250 * MILLISECOND),
        ("1s", SECOND),
        ("1.5s", 1500 * MILLISECOND),
        ("85us", 85_000),
        ("7ns", 7),
        ("1h30m", HOUR + 30 * MINUTE),
        (" 2d ", 2 * DAY),
        ("0s", 0),
        ("365d", 365 * DAY),
    ],
)
def test_a_duration_is_read_as_it_is_written(text: str, expected: int) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    "text", ["", " ", "5", "s", "-1s", "1 s", "1s 2", "1sec", "x1s", "1s;2s", "1e3s", "\u0661s", "1..5s"]
)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="250ms"):
        parse_duration(text)


@given(st.integers(0, 10**18 - 1), st.sampled_from(["ns", "us", "ms", "s", "m", "h", "d"]))
def test_whole_numbers_are_exact_however_large(number: int, unit: str) -> None:
    assert parse_duration(f"{number}{unit}") == number * parse_duration(f"1{unit}")


@given(st.text(max_size=20))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse_duration(text) >= 0


@pytest.mark.parametrize("digits", ["9" * 400 + ".0", "9" * 5000])
def test_a_number_too_large_for_a_duration_is_a_value_error(digits: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(f"{digits}s")


def test_seconds_are_rounded_to_the_nearest_nanosecond() -> None:
    assert (seconds(0.1), seconds(1e-9), seconds(2)) == (100 * MILLISECOND, 1, 2 * SECOND)


@pytest.mark.parametrize(
    ("value_ns", "expected"),
    [
        (85_000, "85us"),
        (12 * MILLISECOND, "12ms"),
        (1200 * MILLISECOND, "1.2s"),
        (3 * MINUTE + 5 * SECOND, "3m05s"),
        (2 * HOUR + 10 * MINUTE, "2h10m"),
        (4 * DAY + 6 * HOUR, "4d06h"),
        (0, "0us"),
        (-1200 * MILLISECOND, "-1.2s"),
    ],
)
def test_a_duration_is_shown_for_people(value_ns: int, expected: str) -> None:
    assert show_duration(value_ns) == expected
