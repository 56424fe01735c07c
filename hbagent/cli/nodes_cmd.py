"""`hbagent nodes`: one line a node, made for `grep`; with `--watch`, a line again for each node that changed.

A watch outlives whom it asks: while nobody answers it says so once and goes on asking, since a root that restarts is
what one wants to watch.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable

from . import EXIT_USAGE, names_cache, query, terminal
from .answers import Row, in_states, number, row, rows, word, worst_first
from .grid import Grid, clean
from .render import age_line, as_json, as_json_line, node_cells, nodes_grid
from .ticks import Ageing, endless, patiently

#: As they are told, by rack; by name; the worst first; what changed last first; who was heard longest ago first.
SORTS = ("rack", "name", "worst", "since", "age")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    query.add_arguments(parser)
    terminal.add_output_arguments(parser, ("table", "wide", "json", "jsonl", "name"))
    terminal.add_filter_arguments(parser, states=True)
    parser.add_argument("-w", "--watch", action="store_true", help="go on, with a line for each change, until Ctrl-C")
    terminal.add_table_arguments(parser, SORTS)


def run(args: argparse.Namespace) -> int:
    if args.watch and args.output == "json":
        print('hbagent: "--watch" has no end, so it cannot be one document; use -o jsonl', file=sys.stderr)
        return EXIT_USAGE
    return query.answered(args, lambda asker: watch(args, asker, endless() if args.watch else (None,)))


def watch(args: argparse.Namespace, asker: query.Asker, ticks: Iterable[None]) -> int:
    """List the nodes at the first tick, and what changed at each later one; returns the exit code."""
    screen = terminal.screen(args)
    listing = _Listing(args, nodes_grid(screen, args.output == "wide"))
    ageing = Ageing()
    for document in patiently(lambda: query.status(asker, args.rack), ticks):
        ageing.look(document)
        every = rows(document, "nodes")
        nodes = in_order(args.sort, [node for node in every if in_states(args.state)(node)], document)
        for line in listing.lines(nodes, document):
            print(line)
        sys.stdout.flush()
        if screen.width is not None:
            names_cache.remember(word(node, "node") for node in every)
    return 0


def in_order(sort: str, nodes: list[Row], document: Row) -> list[Row]:
    """Nodes in one of `SORTS`."""
    if sort == "name":
        return sorted(nodes, key=lambda node: word(node, "node"))
    if sort == "worst":
        return worst_first(nodes, document)
    if sort == "since":
        return sorted(nodes, key=lambda node: word(node, "since"), reverse=True)
    if sort == "age":
        ages = ((number(node, "age_s"), node) for node in nodes)
        # Who was never heard has been silent for longest.
        return [node for _, node in sorted(ages, key=lambda pair: -(math.inf if pair[0] is None else pair[0]))]
    return nodes


class _Listing:
    """Turns one answer after another into lines, each node again only when it changed."""

    def __init__(self, args: argparse.Namespace, grid: Grid) -> None:
        self._form = args.output
        self._grid = grid
        self._screen = grid.screen
        self._header = not args.no_headers
        self._watch = args.watch
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
        return [*self._grid.lines(cells, header), *([] if self._watch else age_line(document, self._screen))]


def _state(node: Row) -> tuple[str, str, str]:
    return word(node, "liveness"), word(node, "health"), word(node, "cause")
