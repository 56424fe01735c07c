"""`hbagent status`: what is wrong now, in one screen and one exit code.

The exit code is that of `answers.exit_code`, which scripts and schedulers of checks rely on; 3 also when nobody could
be asked. `--rack` narrows the question and so the exit code; `--state` narrows only what is shown.
"""

from __future__ import annotations

import argparse
import contextlib

from . import names_cache, query, terminal
from .answers import exit_code, in_states, rows, word, worst_first
from .grid import clean
from .render import as_json, as_json_line, status_lines

#: The document when nobody answers: a reader of json finds every list, and that the root was not reached.
_NOBODY = {"schema": 1, "root": {"reachable": False}, "racks": [], "nodes": [], "incidents": []}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Exit code: 2 with any DEAD, CRITICAL, DEADLOCKED or dark rack; else 3 with any UNKNOWN or when nobody "
        "answers; else 1 with any SUSPECT, WARNING or STALLED; else 0; 64 and above for a wrong call."
    )
    query.add_arguments(parser)
    terminal.add_output_arguments(parser, ("table", "wide", "json", "jsonl", "name"))
    terminal.add_filter_arguments(parser, states=True)
    parser.set_defaults(shown=False)


def run(args: argparse.Namespace) -> int:
    code = query.answered(args, lambda asker: _show(args, asker))
    if code == query.EXIT_UNREACHABLE and args.output == "json" and not args.shown:
        print(as_json(_NOBODY))
    return code


def _show(args: argparse.Namespace, asker: query.Asker) -> int:
    # A screen shows what is wrong, and the others are counted.
    brief = args.output in ("table", "wide") and not args.state
    document = query.status(asker, args.rack, brief)
    args.shown = True
    code = exit_code(document)
    screen = terminal.screen(args)
    if screen.width is not None and not names_cache.is_fresh():
        names_cache.remember(_names(asker))
    nodes = [node for node in rows(document, "nodes") if in_states(args.state)(node)]
    if args.output == "json":
        print(as_json({**document, "nodes": nodes}))
    elif args.output in ("jsonl", "name"):
        for node in nodes:
            print(as_json_line(node) if args.output == "jsonl" else clean(word(node, "node"), screen))
    else:
        shown = worst_first(nodes, document) if args.state else None
        print("\n".join(status_lines(document, code, screen, args.output == "wide", shown)))
    return code


def _names(asker: query.Asker) -> list[str]:
    """All nodes, for a shell to complete; none when they are not told."""
    with contextlib.suppress(query.Denied, query.Unanswered):
        cells = query.as_row(asker, asker.ask("cells")).get("cells")
        return [cell[0] for cell in cells if isinstance(cell, list) and cell] if isinstance(cells, list) else []
    return []
