"""Problems in words: the line's form, the nearest word, values that are safe to print."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.role.settings.problems import SHOWN_MAX, ConfigError, Problem, did_you_mean, show


def test_a_problem_names_file_line_and_table() -> None:
    problem = Problem(file="etc/leader.toml", line=8, where='probe "pg"', text='unknown key "tiemout"')
    assert str(problem) == 'etc/leader.toml:8: probe "pg": unknown key "tiemout"'


def test_a_problem_of_the_whole_file_names_the_file() -> None:
    assert str(Problem(file="a.toml", line=0, where="", text="cannot be read")) == "a.toml: cannot be read"


def test_an_error_is_one_line_for_each_problem() -> None:
    first = Problem(file="a.toml", line=1, where="", text="one")
    second = Problem(file="a.toml", line=2, where="[b]", text="two")
    assert str(ConfigError([first, second])) == "a.toml:1: one\na.toml:2: [b]: two"


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("tiemout", ', did you mean "timeout"?'),
        ("TIMEOUT", ', did you mean "timeout"?'),
        ("interval_ms", ', did you mean "interval"?'),
        ("colour", ""),
        ("", ""),
    ],
)
def test_the_nearest_known_word_is_offered(word: str, hint: str) -> None:
    assert did_you_mean(word, ["timeout", "interval"]) == hint


def test_a_huge_word_is_compared_with_nothing() -> None:
    # difflib's time grows with the square of the length: this would take minutes, and the test's time limit is one.
    assert did_you_mean("timeout" * 100_000, ["timeout" * 100_000] * 20) == ""


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", '"plain"'),
        ('a "b" \\ c', '"a \\"b\\" \\\\ c"'),
        ("\x1b[31mred\n", '"\\u001b[31mred\\u000a"'),
        ("x" * 500, '"' + "x" * SHOWN_MAX + '"...'),
        (True, "true"),
        (-3, "-3"),
        pytest.param(1 << 20_000, "a huge number", id="huge"),
        (0.25, "0.25"),
        (float("nan"), "nan"),
        ([], "[]"),
        ([1], "[...]"),
        ({}, "{}"),
        ({"a": 1}, "{...}"),
    ],
)
def test_a_value_is_shown_as_toml_writes_it(value: object, shown: str) -> None:
    assert show(value) == shown


@given(st.text())
def test_no_text_brings_control_characters_to_a_terminal(text: str) -> None:
    assert show(text).isprintable()
