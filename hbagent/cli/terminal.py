"""What this terminal can show, and in which form a command is asked to answer.

Colour follows, in this order: `--color`, NO_COLOR, FORCE_COLOR, TERM=dumb, and whether the output is a terminal at
all. Width and height count on a terminal only, so that what a pipe gets never depends on a window.
"""

from __future__ import annotations

import argparse
import codecs
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TextIO

from .answers import STATES
from .grid import Screen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--color and --plain."""
    parser.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto", help="colours (default: on a terminal)"
    )
    parser.add_argument("--plain", action="store_true", help="only ASCII, and no colours")


def add_output_arguments(parser: argparse.ArgumentParser, formats: Sequence[str]) -> None:
    """-o with the formats of a command, the first of which is its default, --color and --plain."""
    parser.add_argument("-o", "--output", choices=formats, default=formats[0], help=f"form (default {formats[0]})")
    add_arguments(parser)


def add_table_arguments(parser: argparse.ArgumentParser, sorts: Sequence[str] = ()) -> None:
    """--no-headers, and --sort with its orders, the first of which is the default."""
    parser.add_argument("--no-headers", action="store_true", help="no titles above the table")
    if sorts:
        parser.add_argument("--sort", choices=sorts, default=sorts[0], help=f"order (default {sorts[0]})")


def add_filter_arguments(parser: argparse.ArgumentParser, *, states: bool) -> None:
    """--rack, and --state for lists of nodes; each may be given several times or with commas."""
    parser.add_argument("--rack", metavar="NAME,...", type=_words, action="extend", default=[], help="only these racks")
    if states:
        parser.add_argument(
            "--state",
            metavar="STATE,...",
            type=_states,
            action="extend",
            default=[],
            help=f"only nodes whose liveness or health is one of {' '.join(STATES)}",
        )


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _states(text: str) -> list[str]:
    states = [word.upper() for word in _words(text)]
    for state in states:
        if state not in STATES:
            raise argparse.ArgumentTypeError(f"no state {state!r}; there is {', '.join(STATES)}")
    return states


def screen(args: argparse.Namespace) -> Screen:
    """The screen behind standard output, for the arguments of a command with --color and --plain."""
    return screen_of(args.color, sys.stdout, os.environ, args.plain)


def screen_of(colour: str, stream: TextIO, environment: Mapping[str, str], plain: bool = False) -> Screen:
    """The screen behind an output stream; `colour` is always, never or auto."""
    is_terminal = stream.isatty()
    size = shutil.get_terminal_size() if is_terminal else None
    return Screen(
        colour=not plain and _has_colour(colour, is_terminal, environment),
        unicode=not plain and _is_utf8(stream),
        width=size.columns if size else None,
        height=size.lines if size else None,
    )


def _has_colour(colour: str, is_terminal: bool, environment: Mapping[str, str]) -> bool:
    if colour != "auto":
        return colour == "always"
    if environment.get("NO_COLOR"):
        return False
    if environment.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return is_terminal and environment.get("TERM", "dumb") != "dumb"


def _is_utf8(stream: TextIO) -> bool:
    try:
        return codecs.lookup(stream.encoding or "ascii").name == "utf-8"
    except LookupError:
        return False
