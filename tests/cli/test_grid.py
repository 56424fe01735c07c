"""Columns that fit, and text that cannot act on a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.cli.grid import TEXT_LENGTH_MAX, Cell, Column, Grid, Screen, clean, cut, paint

PIPE = Screen()
ASCII = Screen(unicode=False)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("a\r\nb\tc", "a\\x0d\\x0ab\\x09c"),
        ("\x9b31m", "\\x9b31m"),
        ("\x7f", "\\x7f"),
        ("right\u202eleft", "right\\u202eleft"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("\ud800", "\\ud800"),
        ("\U000e0001", "\\U000e0001"),
        ("Zürich ✓", "Zürich ✓"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text: str, shown: str) -> None:
    assert clean(text, PIPE) == shown


def test_an_ascii_screen_gets_ascii() -> None:
    assert clean("Zürich ✓", ASCII) == "Z\\xfcrich \\u2713"


@given(st.text())
def test_clean_text_is_one_printable_line(text: str) -> None:
    assert clean(text, PIPE).isprintable()
    assert clean(text, ASCII).isascii()


def test_a_flood_is_cut() -> None:
    assert len(clean("x" * 10_000, PIPE)) == TEXT_LENGTH_MAX


def test_colour_is_there_only_on_a_screen_that_has_it() -> None:
    assert paint("DEAD", "bad", PIPE) == "DEAD"
    assert paint("DEAD", "bad", Screen(colour=True)) == "\x1b[1;31mDEAD\x1b[0m"
    assert paint("plain", "", Screen(colour=True)) == "plain"


def test_columns_are_as_wide_as_their_widest_cell_and_lines_have_no_blanks_at_their_end() -> None:
    grid = Grid((Column("A"), Column("COUNT", right=True), Column("LAST")), PIPE)
    assert grid.lines([[Cell("long one"), Cell("7"), Cell("")], [Cell("b"), Cell("12345678"), Cell("end")]]) == [
        "A            COUNT  LAST",
        "long one         7",
        "b         12345678  end",
    ]


def test_a_narrow_screen_loses_its_least_important_columns_and_never_those_of_rank_0() -> None:
    columns = (Column("NAME"), Column("SECOND", 2), Column("THIRD", 3), Column("FIRST", 1))
    cells = [Cell("a-name-that-is-long"), Cell("22"), Cell("333"), Cell("1")]

    def titles(width: int) -> list[str]:
        return Grid(columns, Screen(width=width)).lines([cells])[0].split()

    assert titles(80) == ["NAME", "SECOND", "THIRD", "FIRST"]
    assert titles(35) == ["NAME", "SECOND", "FIRST"]
    assert titles(27) == ["NAME", "FIRST"]
    assert titles(10) == ["NAME"]


def test_a_sentence_is_cut_before_a_column_is_lost_and_a_name_is_never_cut() -> None:
    grid = Grid((Column("NAME"), Column("WHY", cut=True)), Screen(width=20))
    assert grid.lines([[Cell("node1"), Cell("a sentence of some length")]], header=False) == ["node1  a sentence o…"]
    grid = Grid((Column("NAME"),), Screen(width=4))
    assert grid.lines([[Cell("node1")]], header=False) == ["node1"]
    assert cut("abcdefgh", Screen(unicode=False, width=6)) == "abc..."


def test_later_rows_keep_the_columns_of_the_first_ones() -> None:
    grid = Grid((Column("NAME"), Column("MORE", 1)), Screen(width=14))
    assert grid.lines([[Cell("node1"), Cell("x")]]) == ["NAME   MORE", "node1  x"]
    assert grid.lines([[Cell("a-longer-name"), Cell("y")], [Cell("b"), Cell("z")]], header=False) == [
        "a-longer-name  y",
        "b              z",
    ]
