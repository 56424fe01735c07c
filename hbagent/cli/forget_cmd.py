"""`hbagent forget NODE`: it is gone for good, so the root stops to wait for it. Its events stay in the history.

A node that still beats, or that its leader's config still names, comes back at once.
"""

from __future__ import annotations

import argparse

from . import query, terminal
from .answers import word
from .explain_cmd import add_node_argument, full_name
from .grid import clean
from .render import as_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_node_argument(parser)
    parser.add_argument("--reason", metavar="TEXT", default="", help="why, for the log")
    query.add_arguments(parser)
    terminal.add_output_arguments(parser, ("table", "json"))


def run(args: argparse.Namespace) -> int:
    return query.answered(args, lambda asker: _show(args, asker))


def _show(args: argparse.Namespace, asker: query.Asker) -> int:
    name = full_name(args.node, asker)
    document = query.as_row(asker, asker.order("forget", target=name, reason=args.reason))
    if args.output == "json":
        print(as_json(document))
    else:
        print(f"forgotten: {clean(word(document, 'forgotten') or name, terminal.screen(args))}")
    return 0
