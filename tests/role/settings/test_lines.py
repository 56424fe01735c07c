"""Every place of a TOML text is found on the line where it is written."""

from __future__ import annotations

from typing import Any

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from hbagent.role.settings.lines import Lines, Place

TEXT = '''\
# a comment with [brackets] and "quotes"
top = 1

[agent] # [not.this]
node = "dc1/rack1/node1"
"quoted key" = 2
'literal' = 3
a.b.c = 4

[[leader]]
name = "first # not a comment"
[[leader]]
name = "second"
[leader.deep]
key = 5

[text]
many = """
looks = "like a key"
[[leader]]
quotes "" inside \\""" and at the end"""""
plain = \'\'\'
more = 1
\'\'\'
after = 1979-05-27 07:32:00
list = [
  "one", # first
  2, [3,
  4],
  { x = 1, y = [
    5
  ] },
]
inline = { p = 1, "q r" = { s = 2 } }
last = true
'''


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("top",), 2),
        (("agent",), 4),
        (("agent", "node"), 5),
        (("agent", "quoted key"), 6),
        (("agent", "literal"), 7),
        (("agent", "a", "b", "c"), 8),
        (("leader", 0), 10),
        (("leader", 0, "name"), 11),
        (("leader", 1), 12),
        (("leader", 1, "name"), 13),
        (("leader", 1, "deep"), 14),
        (("leader", 1, "deep", "key"), 15),
        (("text", "many"), 18),
        (("text", "plain"), 22),
        (("text", "after"), 25),
        (("text", "list"), 26),
        (("text", "list", 0), 27),
        (("text", "list", 1), 28),
        (("text", "list", 2, 1), 29),
        (("text", "list", 3), 30),
        (("text", "list", 3, "y", 0), 31),
        (("text", "inline", "q r", "s"), 34),
        (("text", "last"), 35),
    ],
)
def test_a_place_is_on_its_line(place: Place, line: int) -> None:
    tomli.loads(TEXT)
    assert Lines(TEXT).of(place) == line


def test_a_place_that_is_not_written_is_on_the_line_of_what_is_around_it() -> None:
    lines = Lines(TEXT)
    assert lines.of(("agent", "interval")) == 4
    assert lines.of(("leader", 1, "publish")) == 12
    assert lines.of(("text", "list", 17)) == 26
    assert lines.of(("nothing", "here")) == 0
    assert lines.of(()) == 0


def test_a_table_that_was_implied_before_it_was_written_is_where_it_is_written() -> None:
    assert Lines("[a.b]\nx = 1\n[a]\ny = 2\n").of(("a",)) == 3


def test_windows_line_ends_count_once() -> None:
    assert Lines("[a]\r\nb = [\r\n  1,\r\n  2]\r\nc = 3\r\n").of(("a", "c")) == 5


def test_brackets_nested_deeper_than_the_walk_goes_leave_the_line_of_the_key() -> None:
    deep = "[" * 2000 + "]" * 2000
    lines = Lines(f"[a]\nb = 1\nc = {deep}\n")
    assert lines.of(("a", "b")) == 2
    assert lines.of(("a", "c", 0, 0)) == 3


# ---- any document ----------------------------------------------------------------------------------------

KEYS = st.one_of(
    st.from_regex(r"[A-Za-z0-9_-]{1,6}", fullmatch=True),
    st.from_regex(r'"([a-z .\]=#\[]|\\n|\\"|\\u00e9){0,5}"', fullmatch=True),
    st.from_regex(r"'[a-z .\]=#\"]{0,5}'", fullmatch=True),
)
SCALARS = st.one_of(
    st.sampled_from(["1", "-2.5", "true", "inf", "0x1F", "1979-05-27", "1979-05-27 07:32:00Z", "07:32:00"]),
    st.sampled_from(['"a # b"', "'[x]'", '"""\n[t]\nk = 1\n"""', "'''\n]\n'''", '"\\""', '""', "''", '"""a"" """""']),
)
SPACE = st.sampled_from(["", " ", "\t"])
BREAK = st.sampled_from(["", " ", "\n", ' # it\'s a "comment" ]\n', "\n\n  "])


def arrays(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(st.tuples(BREAK, values, BREAK), max_size=3).map(
        lambda items: "[" + ",".join("".join(item) for item in items) + "\n]"
    )


def inline_tables(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(st.tuples(KEYS, SPACE, values), max_size=3).map(
        lambda items: "{ " + ", ".join(f"{key}{space}={space}{value}" for key, space, value in items) + " }"
    )


VALUES: st.SearchStrategy[str] = st.recursive(SCALARS, lambda inner: arrays(inner) | inline_tables(inner), max_leaves=6)
DOTTED = st.lists(KEYS, min_size=1, max_size=3).map(" . ".join)
STATEMENTS = st.one_of(
    st.tuples(DOTTED, SPACE, VALUES).map(lambda parts: f"{parts[0]}{parts[1]}={parts[2]}"),
    st.tuples(DOTTED, SPACE).map(lambda parts: f"[{parts[1]}{parts[0]}{parts[1]}] # [x]"),
    st.tuples(DOTTED, SPACE).map(lambda parts: f"[[{parts[1]}{parts[0]}{parts[1]}]]"),
    st.sampled_from(["", "# comment = 1", "   "]),
)


def places(value: Any, here: Place = ()) -> list[Place]:
    """Every place in a parsed document."""
    inner: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [place for step, item in inner for place in [(*here, step), *places(item, (*here, step))]]


@given(st.lists(STATEMENTS, max_size=8).map("\n".join))
def test_every_place_of_any_document_is_found_on_a_line_that_holds_it(text: str) -> None:
    try:
        content = tomli.loads(text)
    except ValueError:
        return
    lines = Lines(text)
    for place in places(content):
        line = lines.of(place)
        assert line > 0
        assert place in lines._lines, "fell back to what is around it"
        name = place[-1]
        if isinstance(name, str) and name.isalnum() and name.isascii():
            assert name in text.split("\n")[line - 1]


@given(st.text())
def test_what_is_not_toml_raises_nothing(text: str) -> None:
    assert Lines(text).of(("a", 0)) >= 0
