from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.names import NAME_LENGTH_MAX, is_node, is_part, is_rack, rack_of, short_of

HOSTILE = [
    "..",
    "../..",
    "/etc/passwd",
    "a/../b",
    "a//b",
    "a/b/",
    "/a/b",
    "a b",
    "a\nb",
    "a\x1b[2J",
    "$(id)",
    "a;b",
    "a\0",
    "é",
]


def test_a_name_has_two_or_three_parts() -> None:
    assert is_part("host12") and is_rack("dc1/rack07") and is_node("dc1/rack07/host12")
    assert not is_rack("dc1") and not is_rack("dc1/rack07/host12")
    assert not is_node("dc1/rack07") and not is_node("dc1/rack07/host12/x")


@pytest.mark.parametrize("part", [*HOSTILE, "", ".", "-a", "a-", "a.", "x" * 65])
def test_a_part_that_could_be_a_path_an_escape_or_an_option_is_refused(part: str) -> None:
    assert not is_part(part)
    assert not is_rack(f"dc1/{part}")
    assert not is_node(f"dc1/rack07/{part}") and not is_node(f"{part}/rack07/host12")


def test_a_name_with_a_newline_at_its_end_is_refused() -> None:
    assert not is_part("a\n") and not is_rack("a/b\n") and not is_node("a/b/c\n")


def test_the_longest_name_is_three_parts_of_64() -> None:
    longest = "/".join(["x" * 64] * 3)
    assert len(longest) == NAME_LENGTH_MAX
    assert is_node(longest) and not is_node(longest + "x")


@given(st.text(max_size=30))
def test_what_is_accepted_is_plain(text: str) -> None:
    if is_part(text) or is_rack(text) or is_node(text):
        assert re.fullmatch(r"[A-Za-z0-9._/-]+", text)
        assert ".." not in text.split("/")


def test_a_node_knows_its_rack_and_its_short_name() -> None:
    assert (rack_of("dc1/rack07/host12"), short_of("dc1/rack07/host12"), short_of("dc1/root")) == (
        "dc1/rack07",
        "host12",
        "root",
    )
