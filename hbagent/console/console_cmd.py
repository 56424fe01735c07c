"""`hbagent console`: the datacenter on a full screen, live, with the keys to silence and acknowledge."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from hbagent.cli import EXIT_UNAVAILABLE, EXIT_USAGE, names_cache, query, terminal
from hbagent.cli.query import NoTarget, Target


def add_arguments(parser: argparse.ArgumentParser) -> None:
    query.add_arguments(parser)
    parser.add_argument(
        "--else",
        dest="others",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="root.toml or leader.toml of who stands in while the first does not answer; may be given again "
        f"(else {query.DEFAULT_CONFIGS[1]}, if it is there)",
    )
    terminal.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    try:
        import textual  # noqa: F401
    except ModuleNotFoundError:
        query.say(
            "the console needs textual, which is not installed; try: pip install 'hbagent[console]' "
            "(without it: hbagent status, hbagent nodes --watch, hbagent events --follow)"
        )
        return EXIT_UNAVAILABLE
    # Textual draws on standard error.
    streams = {"input": sys.stdin, "output": sys.stdout, "error": sys.stderr}
    elsewhere = [f"standard {name}" for name, stream in streams.items() if stream is None or not stream.isatty()]
    if elsewhere:
        verb = "is" if len(elsewhere) == 1 else "are"
        query.say(
            f"the console needs a terminal, and {' and '.join(elsewhere)} {verb} none; "
            "for a pipe there is: hbagent nodes --watch"
        )
        return EXIT_USAGE
    try:
        found = targets(args)
    except NoTarget as error:
        query.say(str(error))
        return EXIT_USAGE
    from .app import Console
    from .feed import Feed

    console = Console(lambda told: Feed(found, args.timeout, told), terminal.screen(args), seen=names_cache.remember)
    console.run()
    return console.return_code or 0


def targets(args: argparse.Namespace) -> list[Target]:
    """Whom to ask, in this order. Raises NoTarget and ConfigError as `query.target_of`."""
    first = query.target_of(args)
    others = list(args.others)
    leader = query.DEFAULT_CONFIGS[1]
    if not others and not args.socket and not args.connect and first.config != leader and os.path.lexists(leader):
        others.append(leader)
    rest = (query.find_target(path, None, os.environ) for path in others)
    return [first, *(target for target in rest if target.endpoint != first.endpoint)]
