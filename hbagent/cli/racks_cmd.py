"""`hbagent racks`: one line a rack, with its nodes in numbers and how old the word of its leaders is."""

from __future__ import annotations

import argparse

from . import query, terminal
from .answers import rows, state_of, word
from .grid import clean
from .render import age_line, as_json, as_json_line, rack_cells, racks_grid
from .ticks import Ageing

#: As they are configured; by name; the worst first.
SORTS = ("config", "name", "worst")
_WORST = ("DARK", "LEADER-LOST", "UNKNOWN", "DEGRADED", "OK")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    query.add_arguments(parser)
    terminal.add_output_arguments(parser, ("table", "wide", "json", "jsonl", "name"))
    terminal.add_filter_arguments(parser, states=False)
    terminal.add_table_arguments(parser, SORTS)


def run(args: argparse.Namespace) -> int:
    return query.answered(args, lambda asker: _show(args, asker))


def _show(args: argparse.Namespace, asker: query.Asker) -> int:
    document = query.status(asker, args.rack, brief=True)
    racks = rows(document, "racks")
    if args.sort == "name":
        racks.sort(key=lambda rack: word(rack, "rack"))
    elif args.sort == "worst":
        racks.sort(key=lambda rack: _WORST.index(state_of(rack)))
    Ageing().look(document)
    screen = terminal.screen(args)
    if args.output == "json":
        print(as_json({"schema": document.get("schema"), "racks": racks}))
    elif args.output in ("jsonl", "name"):
        for rack in racks:
            print(as_json_line(rack) if args.output == "jsonl" else clean(word(rack, "rack"), screen))
    else:
        wide = args.output == "wide"
        lines = racks_grid(screen, wide).lines([rack_cells(rack, screen, wide) for rack in racks], not args.no_headers)
        print("\n".join([*lines, *age_line(document, screen)]))
    return 0
