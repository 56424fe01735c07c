"""What a terminal is taken to show, by options, environment and kind of output."""

from __future__ import annotations

import argparse
import io
import os
import pty
from collections.abc import Iterator
from typing import TextIO

import pytest

from hbagent.cli.terminal import add_filter_arguments, screen_of


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[TextIO]:
    """A real terminal of 132 columns and 43 lines."""
    monkeypatch.setenv("COLUMNS", "132")
    monkeypatch.setenv("LINES", "43")
    controller, follower = pty.openpty()
    with open(follower, "w", encoding="utf-8") as stream:
        yield stream
    os.close(controller)


PIPE = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")


@pytest.mark.parametrize(
    ("option", "environment", "on_terminal", "on_pipe"),
    [
        ("auto", {"TERM": "xterm"}, True, False),
        ("auto", {"TERM": "dumb"}, False, False),
        ("auto", {}, False, False),
        ("auto", {"TERM": "xterm", "NO_COLOR": "1"}, False, False),
        ("auto", {"TERM": "xterm", "NO_COLOR": ""}, True, False),
        ("auto", {"TERM": "dumb", "FORCE_COLOR": "1"}, True, True),
        ("auto", {"TERM": "xterm", "FORCE_COLOR": "0"}, True, False),
        ("auto", {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False, False),
        ("always", {"NO_COLOR": "1", "TERM": "dumb"}, True, True),
        ("never", {"FORCE_COLOR": "1", "TERM": "xterm"}, False, False),
    ],
)
def test_colour(option: str, environment: dict[str, str], on_terminal: bool, on_pipe: bool, terminal: TextIO) -> None:
    assert screen_of(option, terminal, environment).colour is on_terminal
    assert screen_of(option, PIPE, environment).colour is on_pipe


def test_plain_is_stronger_than_any_wish_for_colour(terminal: TextIO) -> None:
    for colour in ("always", "auto"):
        screen = screen_of(colour, terminal, {"TERM": "xterm", "FORCE_COLOR": "1"}, plain=True)
        assert (screen.colour, screen.unicode, screen.width) == (False, False, 132)


def test_only_a_terminal_has_a_size(terminal: TextIO) -> None:
    screen = screen_of("auto", terminal, {})
    assert (screen.width, screen.height) == (132, 43)
    screen = screen_of("auto", PIPE, {})
    assert (screen.width, screen.height) == (None, None)


@pytest.mark.parametrize(
    ("encoding", "unicode"), [("utf-8", True), ("UTF8", True), ("ascii", False), ("iso-8859-1", False)]
)
def test_only_utf_8_shows_symbols(encoding: str, unicode: bool) -> None:
    assert screen_of("auto", io.TextIOWrapper(io.BytesIO(), encoding=encoding), {}).unicode is unicode


def test_filters_take_commas_and_repeats_and_states_in_any_case() -> None:
    parser = argparse.ArgumentParser()
    add_filter_arguments(parser, states=True)
    args = parser.parse_args(["--rack", "r1, r2", "--rack", "r3", "--state", "dead,Critical"])
    assert (args.rack, args.state) == (["r1", "r2", "r3"], ["DEAD", "CRITICAL"])
    assert parser.parse_args([]).rack == []
