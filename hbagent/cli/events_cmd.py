"""`hbagent events`: what happened, oldest first, the way a log reads; `--follow` goes on with what happens next.

An event is written in the form of a hook's input, so that a script may read either.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

from hbagent.core.names import is_node

from . import EXIT_USAGE, export, query, terminal
from .answers import Row, number, rows
from .grid import Grid
from .render import as_json, as_json_line, event_cells, events_grid
from .ticks import endless, patiently

#: As many as a root reads for one question.
LIMIT_MAX = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    query.add_arguments(parser)
    terminal.add_output_arguments(parser, ("table", "jsonl", "json"))
    parser.add_argument("--limit", metavar="N", type=_limit, default=50, help="at most the newest N (default 50)")
    parser.add_argument("--node", metavar="NODE", type=_node, help="only events of this node")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what happens next, until Ctrl-C")
    terminal.add_table_arguments(parser)
    words = parser.add_subparsers(metavar="[export]", dest="word")
    export.add_arguments(
        words.add_parser("export", allow_abbrev=False, help="all of them, or those of a time, as JSON or CSV")
    )


def _limit(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text[:9]) <= LIMIT_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 1 to {LIMIT_MAX}")
    return int(text)


def _node(text: str) -> str:
    if not is_node(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a full name as in dc1/rack07/host12")
    return text


def run(args: argparse.Namespace) -> int:
    if args.word == "export":
        return export.run(args)
    if args.follow and args.output == "json":
        print('hbagent: "--follow" has no end, so it cannot be one document; use -o jsonl', file=sys.stderr)
        return EXIT_USAGE
    return query.answered(args, lambda asker: follow(args, asker, endless() if args.follow else (None,)))


def follow(args: argparse.Namespace, asker: query.Asker, ticks: Iterable[None]) -> int:
    """Print the newest events at the first tick and what came since at each later one; returns the exit code."""
    grid = events_grid(terminal.screen(args))
    header = not args.no_headers
    newest, limit = 0, args.limit

    def ask() -> list[Row]:
        return rows(query.as_row(asker, asker.ask("events", node=args.node or "", limit=limit, after=newest)), "events")

    for answer in patiently(ask, ticks):
        events = answer[::-1]
        for line in _lines(events, args.output, grid, header):
            print(line)
        sys.stdout.flush()
        newest = max([newest, *(int(number(event, "sequence") or 0) for event in events)])
        header, limit = False, LIMIT_MAX
    return 0


def _lines(events: list[Row], form: str, grid: Grid, header: bool) -> list[str]:
    if form == "json":
        return [as_json({"schema": 1, "events": events})]
    if form == "jsonl":
        return [as_json_line(event) for event in events]
    return grid.lines([event_cells(event, grid.screen) for event in events], header)
