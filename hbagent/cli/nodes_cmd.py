"""`hbagent nodes`: one line a node, made for `grep`; with `--watch`, a line again for each node that changed.

A watch outlives whom it asks: while nobody answers it says so once and goes on asking, since a root that restarts is
what one wants to watch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

from . import EXIT_USAGE, query, terminal
from .answers import Row, in_states, row, rows, word
from .grid import Grid, clean
from .render import as_json, as_json_line, node_cells, nodes_grid
from .ticks import endless, patiently


def add_arguments(parser: argparse.ArgumentParser) -> None:
    query.add_arguments(parser)
    terminal.add_output_arguments(parser, ("table", "wide", "json", "jsonl", "name"))
    terminal.add_filter_arguments(parser, states=True)
    parser.add_argument("-w", "--watch", action="store_true", help="go on, with a line for each change, until Ctrl-C")
    parser.add_argument("--no-headers", action="store_true", help="no titles above the table")


def run(args: argparse.Namespace) -> int:
    if args.watch and args.output == "json":
        print('hbagent: "--watch" has no end, so it cannot be one document; use -o jsonl', file=sys.stderr)
        return EXIT_USAGE
    return query.answered(args, lambda asker: watch(args, asker, endless() if args.watch else (None,)))


def watch(args: argparse.Namespace, asker: query.Asker, ticks: Iterable[None]) -> int:
    """List the nodes at the first tick, and what changed at each later one; returns the exit code."""
    screen = terminal.screen(args)
    listing = _Listing(args, nodes_grid(screen, args.output == "wide"))
    for document in patiently(lambda: query.status(asker, args.rack), ticks):
        nodes = [node for node in rows(document, "nodes") if in_states(args.state)(node)]
        for line in listing.lines(nodes, document):
            print(line)
        sys.stdout.flush()
    return 0


class _Listing:
    """Turns one answer after another into lines, each node again only when it changed."""

    def __init__(self, args: argparse.Namespace, grid: Grid) -> None:
        self._form = args.output
        self._grid = grid
        self._screen = grid.screen
        self._header = not args.no_headers
        self._shown: dict[str, tuple[str, str, str]] = {}

    def lines(self, nodes: list[Row], document: Row) -> list[str]:
        news = [node for node in nodes if self._shown.get(word(node, "node")) != _state(node)]
        self._shown = {word(node, "node"): _state(node) for node in nodes}
        if self._form == "json":
            return [as_json({"schema": document.get("schema"), "nodes": nodes})]
        if self._form == "jsonl":
            return [as_json_line(node) for node in news]
        if self._form == "name":
            return [clean(word(node, "node"), self._screen) for node in news]
        now, header, self._header = word(row(document, "root"), "at"), self._header, False
        cells = [node_cells(node, now, self._screen, self._form == "wide") for node in news]
        return self._grid.lines(cells, header)


def _state(node: Row) -> tuple[str, str, str]:
    return word(node, "liveness"), word(node, "health"), word(node, "cause")
