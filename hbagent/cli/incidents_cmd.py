"""`hbagent incidents`: what burns, the worst first; with `--all` also what is over, the newest first."""

from __future__ import annotations

import argparse
import time

from hbagent.core.wallclock import rfc3339

from . import query, terminal
from .answers import rows, word
from .grid import clean
from .incidents import incident_lines
from .render import as_json, as_json_line

#: Resolved ones that `--all` asks for.
LIMIT = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help=f"also the newest {LIMIT} of those that are over")
    query.add_arguments(parser)
    terminal.add_output_arguments(parser, ("table", "wide", "json", "jsonl", "name"))


def run(args: argparse.Namespace) -> int:
    return query.answered(args, lambda asker: _show(args, asker))


def _show(args: argparse.Namespace, asker: query.Asker) -> int:
    document = query.as_row(asker, asker.ask("incidents", limit=LIMIT if args.all else 0))
    incidents = [each for each in rows(document, "incidents") if args.all or word(each, "state") != "resolved"]
    screen = terminal.screen(args)
    if args.output == "json":
        print(as_json({"schema": document.get("schema"), "incidents": incidents}))
    elif args.output in ("jsonl", "name"):
        for each in incidents:
            print(as_json_line(each) if args.output == "jsonl" else clean(word(each, "incident"), screen))
    elif incidents:
        print("\n".join(incident_lines(incidents, rfc3339(time.time_ns()), screen, args.output == "wide")))
    else:
        print("nothing burns")
    return 0
