"""`hbagent silences`: what nobody is told of, until when, why, and who said so; with `--all` also what has ended."""

from __future__ import annotations

import argparse
import time

from hbagent.core.wallclock import rfc3339

from . import query, terminal
from .answers import rows, word
from .grid import clean
from .incidents import silence_cells, silences_grid
from .render import as_json, as_json_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="also those that have ended")
    query.add_arguments(parser)
    terminal.add_output_arguments(parser, ("table", "json", "jsonl", "name"))


def run(args: argparse.Namespace) -> int:
    return query.answered(args, lambda asker: _show(args, asker))


def _show(args: argparse.Namespace, asker: query.Asker) -> int:
    document = query.as_row(asker, asker.ask("silences"))
    silences = [each for each in rows(document, "silences") if args.all or word(each, "state") != "ended"]
    screen = terminal.screen(args)
    if args.output == "json":
        print(as_json({"schema": document.get("schema"), "silences": silences}))
    elif args.output in ("jsonl", "name"):
        for each in silences:
            print(as_json_line(each) if args.output == "jsonl" else clean(word(each, "silence"), screen))
    elif silences:
        now = rfc3339(time.time_ns())
        print("\n".join(silences_grid(screen).lines([silence_cells(each, now, screen) for each in silences])))
    else:
        print("nothing is silenced")
    return 0
